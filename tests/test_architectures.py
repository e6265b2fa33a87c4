"""Architectures at equal compute: the count is right, the factor is found, the permutation is invisible to a ViT."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from einops import rearrange

import minclip
from minclip.data.tasks import Task, glyph_tasks
from minclip.experiments import architectures
from minclip.experiments.common import Setting

VIT = minclip.CLIPConfig(16, 32, 2, 24, 8, 16, 512, 16, 2, 1, vision_heads=2)


def forward_flops(width: int, layers: int, embed_dim: int, patches: int = 16, patch: int = 8) -> int:
    """A ViT's, by hand: lesson 03."""
    places = patches + 1
    matrices = (layers - 1) * 24 * places * width**2 + (4 * places + 20) * width**2
    attention = (layers - 1) * 4 * places**2 * width + 4 * places * width
    return 2 * patches * 3 * patch**2 * width + matrices + attention + 2 * width * embed_dim


def test_training_costs_what_a_hand_counts():
    model = minclip.CLIP(VIT)
    first = 2 * 16 * 3 * 8**2 * 24  # nobody asks for the gradient of the pixels: once backward, not twice
    counted = architectures.training_flops(model, torch.full((4, 5), 511))
    assert counted["image"] == 3 * forward_flops(24, 2, 16) - first
    longer = architectures.training_flops(model, torch.full((4, 10), 511))
    assert longer["image"] == counted["image"] and longer["text"] > counted["text"]


def test_families_are_matched_and_share_everything_but_the_image_encoder():
    for size in ("small", "medium", "large"):
        models = [architectures.recipe(family, size, 1000, 1e-3) for family in ("ResNet", "ViT")]
        flops = [architectures.training_flops(minclip.CLIP(m.model), torch.full((2, 3), 4095))["image"] for m in models]
        assert max(flops) / min(flops) < 1.1
        assert models[0].train == models[1].train
    small = architectures.recipe("ViT, patches of 4", "medium", 1000, 1e-3).model
    assert 0.9 < architectures.training_flops(minclip.CLIP(small), torch.full((2, 3), 4095))["image"] / 31.5e6 < 1.1


@pytest.mark.parametrize("planted", [3.0, 0.25])
def test_a_planted_factor_is_found(planted):
    costs = np.array([1e9, 3e9, 9e9])
    other = np.array([2e9, 5e9, 20e9])
    line = lambda cost: 0.1 + 0.07 * np.log(cost)  # noqa: E731
    found = architectures.factor(costs, line(costs), other, line(other / planted))
    assert found == pytest.approx(planted)


def test_a_vit_undoes_the_permutation_and_nothing_is_lost():
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32)
    moved = architectures.scramble(images)
    assert not torch.equal(moved, images)
    assert torch.equal(moved.flatten(2).sort().values, images.flatten(2).sort().values)

    # The same reordering of where each weight stands, found by scrambling the places themselves.
    places = architectures.scramble(torch.arange(32.0 * 32).view(1, 1, 32, 32))[0, 0].long()
    patch_of = rearrange(places, "(y h) (x w) -> (y x) (h w)", h=8, w=8)
    came_from = (patch_of[:, 0] // 32 // 8) * 4 + patch_of[:, 0] % 32 // 8
    pixel = (patch_of[0] // 32 % 8) * 8 + patch_of[0] % 32 % 8
    model = minclip.CLIP(VIT).eval()
    with torch.no_grad():
        before = model.encode_image(images)
        model.visual.conv1.weight.copy_(model.visual.conv1.weight.flatten(2)[..., pixel].view(-1, 3, 8, 8))
        positions = model.visual.positional_embedding
        positions[1:] = positions[1:][came_from].clone()
        torch.testing.assert_close(model.encode_image(moved), before)


def test_a_scrambled_task_is_the_scrambled_picture():
    images = np.random.default_rng(0).integers(256, size=(2, 32, 32, 3), dtype=np.uint8)
    task = architectures.scrambled_task(Task("any", images, np.array([0, 1]), ["a", "b"], ("{}",), ""))
    expected = architectures.scramble(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert np.array_equal(task.images, expected.numpy()) and task.images.dtype == np.uint8


def made_up(family, size, pictures, scrambled, seed, zero_shot):
    costs = {"small": 1e6, "medium": 4e6, "large": 16e6}
    return {
        "family": family, "size": size, "pictures": pictures, "scrambled": scrambled, "seed": seed,
        "flops": {"image": costs[size], "text": 1e6}, "zero-shot": zero_shot, "probe": zero_shot + 0.1,
    }  # fmt: skip


def test_claims_and_picture_from_known_runs():
    runs = []
    for seed in (0, 1):
        for place, size in enumerate(("small", "medium", "large")):
            runs += [
                made_up("ResNet", size, 1000, False, seed, 0.2 + 0.1 * place),
                made_up("ViT", size, 1000, False, seed, 0.1 + 0.1 * place),  # one step of 4 behind
            ]
        runs += [
            made_up(f, "medium", n, s, seed, share)
            for f, n, s, share in (
                ("ResNet", 1000, True, 0.11), ("ViT", 1000, True, 0.2), ("ResNet", 5000, False, 0.5), ("ViT", 5000, False, 0.47),
            )
        ]  # fmt: skip
    results = architectures.summary(runs)
    assert results["factors"]["probe"]["image"] == pytest.approx([4.0, 4.0])
    assert results["factors"]["probe"]["model"][0] < 4  # the text encoder costs the same for both
    assert results["leads"]["zero-shot"]["1000"] == pytest.approx([0.1, 0.1])
    assert results["leads"]["zero-shot"]["5000"] == pytest.approx([0.03, 0.03])
    assert "ResNet 30.0 ± 0.0% to 11.0 ± 0.0%, ViT 20.0 ± 0.0% to 20.0 ± 0.0%" in results["claims"][2]["measured"]
    assert "4.0 (4.0 to 4.0) times" in " ".join(architectures.as_text(results).split())
    architectures.plot(results)


def test_run_end_to_end_on_almost_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(architectures, "plan", lambda s: architectures.Plan(("small",), 384, (384,), (1e-3,)))
    monkeypatch.setitem(architectures.ENCODERS["ResNet"], "medium", architectures.ENCODERS["ResNet"]["small"])
    monkeypatch.setitem(architectures.ENCODERS["ViT"], "medium", architectures.ENCODERS["ViT"]["small"])
    monkeypatch.setattr(architectures, "NAMED", ("planets", "chess"))
    monkeypatch.setattr(architectures, "PROBED", ("chess",))
    results = architectures.run(Setting("quick", 1, runs=tmp_path))
    assert {(r["family"], r["size"], r["scrambled"]) for r in results["runs"]} == {
        (family, size, scrambled)
        for family in ("ResNet", "ViT") for size, scrambled in (("small", False), ("medium", False), ("medium", True))
    }  # fmt: skip
    for found in results["runs"]:
        assert set(found["zero_shot"]) == {"planets", "chess", "unseen-names"}
        assert 0 <= found["zero-shot"] <= 1
    architectures.plot(results)
    assert architectures.as_text(results).count("\n") > 8


def test_the_rate_is_tuned_on_validation_names_by_a_seed_that_is_not_reported(monkeypatch):
    asked = []
    monkeypatch.setattr(
        architectures,
        "trained_model",
        lambda preset, seed, setting: asked.append((preset.train.lr, seed)) or (preset.train.lr, None),
    )
    accuracy = {1e-3: 0.2, 2e-3: 0.7, 4e-3: 0.4}
    monkeypatch.setattr(
        architectures,
        "evaluate_task",
        lambda model, tokenizer, task: (
            SimpleNamespace(accuracy=accuracy[model]) if task.name == "validation-names" else None
        ),
    )
    how = architectures.Plan(("medium",), 1000, (), tuple(accuracy))
    assert architectures.choose_rate("ViT", how, Setting()) == (2e-3, {"0.001": 0.2, "0.002": 0.7, "0.004": 0.4})
    assert [lr for lr, _ in asked] == list(accuracy) and all(seed >= 10 for _, seed in asked)


def test_a_model_of_scrambled_pictures_is_measured_on_scrambled_pictures(monkeypatch, atlas):
    seen = {}
    monkeypatch.setattr(architectures, "plan", lambda s: architectures.Plan(("small", "medium"), 384, (), (1e-3,)))
    monkeypatch.setattr(architectures, "NAMED", ("dice",))
    monkeypatch.setattr(architectures, "trained_model", lambda *_: ("plain", lambda captions: torch.zeros(1, 1)))
    monkeypatch.setattr(architectures, "trained_on", lambda pairs, preset, kind, setting: (kind, None))
    monkeypatch.setattr(architectures, "training_flops", lambda *_: {"image": 1.0, "text": 1.0})
    monkeypatch.setattr(architectures, "summary", lambda runs: {"runs": runs})

    def measure(model, tokenizer, tasks, glyphs):
        seen[model] = tasks["dice"].images
        return {"zero-shot": 0.5}

    monkeypatch.setattr(architectures, "measure", measure)
    architectures.run(Setting("quick", 1))
    dice = glyph_tasks(atlas)["dice"]
    assert np.array_equal(seen["plain"], dice.images)
    assert np.array_equal(seen["scrambled"], architectures.scrambled_task(dice).images)
