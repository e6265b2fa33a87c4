"""What the README tells follows from the measurements that are recorded beside it: all claims but those of
`boundaries` on emoji and photographs."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from minclip.experiments import (
    architectures,
    batch_size,
    bias,
    boundaries,
    broken_clips,
    class_design,
    common,
    fine_grained,
    objectives,
    pretraining,
    probes,
    prompts,
    robustness,
)

ROOT = Path(__file__).parent.parent


def recorded(name: str) -> dict:
    return json.loads((ROOT / "notebooks" / "recorded" / f"{name}.json").read_text())


def pretraining_claims(r: dict) -> list[dict]:
    train = SimpleNamespace(**r["recipe"]["train"])
    for run in r["runs"]:
        for at in run["moments"]:
            at["candidates"] = {int(n): share for n, share in at["candidates"].items()}
    return pretraining.claims(SimpleNamespace(train=train), r["step"], r["runs"], r["step"]["candidates"])


CLAIMS = {
    "architectures": lambda r: architectures.summary(r["runs"])["claims"],
    "batch_size": lambda r: batch_size.claims(r, r["pictures"]),
    "bias": bias.claims,
    "broken_clips": lambda r: broken_clips.claims_of(r["runs"], r["another_activation"]),
    "objectives": lambda r: objectives.claims(
        {"factors": {a: objectives.factors(r["curves"], 3, a) for a in ("pictures", "flops")}}
    ),
    "pretraining": pretraining_claims,
    "probes": probes.claims,
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_follow_from_what_was_recorded(name):
    assert CLAIMS[name](recorded(name)) == recorded(name)["claims"]


def run_with(module, monkeypatch, r: dict, **returns) -> list[dict]:
    """The claims of `run`, in which what measures gives what was recorded, one a seed, in order."""
    for name, values in returns.items():
        queue = iter(values)
        monkeypatch.setattr(module, name, lambda *_, queue=queue, **__: next(queue))
    monkeypatch.setattr(module, "trained_models", lambda setting: [(None, None)] * 3)
    return module.run(common.Setting("recorded", 3))["claims"]


def test_claims_of_class_design_follow(monkeypatch):
    r = recorded("class_design")
    found = run_with(class_design, monkeypatch, r, with_and_without=r["sorted"], distracted=r["accuracies"])
    assert found == r["claims"]


def test_claims_of_fine_grained_follow(monkeypatch):
    r = recorded("fine_grained")
    assert run_with(fine_grained, monkeypatch, r, measure=r["models"]) == r["claims"]


def test_claims_of_boundaries_follow(monkeypatch):
    r = recorded("boundaries")
    parts = {part: [model[part] for model in r["models"]] for part in ("distance", "rarity")}
    monkeypatch.setattr(boundaries, "evaluate_task", lambda *_: None)
    found = run_with(
        boundaries, monkeypatch, r, by_distance=parts["distance"], by_rarity=parts["rarity"], emoji_task=[None]
    )
    assert found == r["claims"][:3]


def test_claims_and_gaps_of_robustness_follow(monkeypatch):
    r = recorded("robustness")
    monkeypatch.setattr(robustness, "measure", lambda setting, sizes, seed: r["models"][seed])
    found = robustness.run(common.Setting("recorded", 3))
    assert found["claims"] == r["claims"]
    for group, shifts_ in r["gap_closed"].items():
        for shift, shares in shifts_.items():
            assert found["gap_closed"][group][shift] == pytest.approx(shares)


def test_claims_and_means_of_prompts_follow(monkeypatch):
    r = recorded("prompts")
    mean = prompts.mean_over_tasks
    for way, means in mean(r["accuracies"]).items():
        assert means == pytest.approx(r["means"][way])
    monkeypatch.setattr(prompts, "glyph_tasks", lambda atlas: {})
    monkeypatch.setattr(prompts, "trained_models", lambda setting: [(None, None)] * 3)
    monkeypatch.setattr(prompts, "wordy_models", lambda setting: [])
    measured = iter(r["accuracies"])
    monkeypatch.setattr(prompts, "measure", lambda *_: next(measured))
    monkeypatch.setattr(prompts, "mean_over_tasks", lambda some: mean(some) if some else r["wordy_means"])
    assert prompts.run(common.Setting("recorded", 3))["claims"] == r["claims"]
