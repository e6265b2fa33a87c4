"""The objectives' experiment measures what it says, on curves and tasks whose answer is known."""

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from minclip import baselines
from minclip.data.tasks import Task, glyph_tasks
from minclip.experiments import objectives
from minclip.experiments.common import Setting


def curve(pictures, rate):
    """Accuracy that grows with the logarithm of pictures seen times `rate`."""
    return list(pictures), [0.05 + 0.1 * math.log(rate * seen / 1000) for seen in pictures]


@pytest.mark.parametrize("planted", [1.5, 3.0, 6.0])
def test_a_planted_factor_is_read_off(planted):
    slow, fast = curve((16_000, 32_000, 64_000), 1), curve((4_000, 8_000, 16_000, 32_000), planted)
    assert objectives.factor(slow, fast) == pytest.approx(planted)
    assert objectives.factor(fast, slow) == pytest.approx(1 / planted)
    assert objectives.factor(slow, slow) == pytest.approx(1)


def test_the_pictures_a_level_takes():
    seen, accuracy = [1_000, 4_000, 16_000], [0.1, 0.3, 0.2]
    assert objectives.pictures_needed(seen, accuracy, 0.2) == pytest.approx(2_000)  # half way in log(pictures)
    assert objectives.pictures_needed(seen, accuracy, 0.05) == 1_000
    assert math.isnan(objectives.pictures_needed(seen, accuracy, 0.31))


def test_names_that_a_bag_cannot_tell_apart():
    assert objectives.shared_bags(["domino 01-02", "domino 02-01", "domino 01-01", "black king"]) == 2


class Planted(torch.nn.Module):
    """Scores that are right for every picture, or that know nothing: the label is the picture's grey level."""

    class config:
        image_resolution = 32

    logit_scale = torch.zeros(())


@pytest.mark.parametrize("noise, low, high", [(0.0, 1.0, 1.0), (1e6, 0.0, 0.12)])
def test_an_oracle_names_all_and_noise_guesses(noise, low, high, tokenizer):
    names = [f"digit {chr(ord('a') + i)}" for i in range(20)]
    labels = np.repeat(np.arange(20), 20)
    task = Task("planted", np.zeros((400, 32, 32, 3), np.uint8), labels, names, ("{}",), "")
    draw = torch.Generator().manual_seed(0)

    def scores(model, images, tokens):
        return torch.eye(20)[torch.from_numpy(labels)] + noise * torch.randn(400, 20, generator=draw)

    objective = objectives.Objective(None, None, scores, "", "")
    found = objectives.accuracies(objective, Planted(), tokenizer, task)
    assert low <= found["whole"] <= high


def test_it_runs_and_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(objectives, "K", 8)  # pictures for a thousand
    monkeypatch.setattr(objectives, "NAMES", 4)
    monkeypatch.setattr(objectives, "LARGEST", 8)
    monkeypatch.setattr(objectives, "RATES", (1e-2,))
    monkeypatch.setattr(objectives, "LENGTHS", dict.fromkeys(objectives.OBJECTIVES, (16, 24)))
    results = objectives.run(Setting("recorded", 1, runs=tmp_path))
    assert len(results["sweep"]) == 2 + 2 + 2 + 1  # captioning scores in two ways, bags have two vocabularies
    for points in results["curves"].values():
        assert [point["pictures"] for point in points] == [128, 192]
        assert points[1]["flops"] == pytest.approx(points[0]["flops"] * 24 / 16)
    again = objectives.run(Setting("recorded", 1, runs=tmp_path))
    assert again["curves"] == results["curves"]
    assert again["runs"] == {"trained": 0, "found from before": results["runs"]["trained"]}
    assert "captioning" in objectives.as_text(results)
    rounds_up = next(x for x in np.linspace(1, 4, 1000).tolist() if statistics.geometric_mean([x]) > x)
    results["factors"]["pictures"] = dict.fromkeys(objectives.PAIRS, [rounds_up])
    objectives.plot(results)
    plt.close()


def test_the_quick_scale_takes_what_the_recorded_sweep_chose():
    recorded = json.loads((Path(__file__).parent.parent / "notebooks" / "recorded" / "objectives.json").read_text())
    assert {name: tuple(chosen) for name, chosen in recorded["chosen"].items()} == objectives.CHOSEN
    for name, (lr, vocabulary) in objectives.CHOSEN.items():
        swept = [run for run in recorded["sweep"] if run["objective"] == name]
        best = max(swept, key=lambda run: run["accuracy"])
        assert (best["lr"], best["vocabulary"]) == (lr, vocabulary)
        assert min(run["lr"] for run in swept) < lr < max(run["lr"] for run in swept)  # not at the edge of the sweep


def test_some_names_keep_their_pictures(atlas):
    whole = glyph_tasks(atlas)["latin-small-letters"]
    some = objectives.some_names(whole, names=7, pictures=2)
    assert len(some.class_names) == 7 and np.bincount(some.labels).tolist() == [2] * 7
    for image, label in zip(some.images, some.labels):
        own = whole.images[whole.labels == whole.class_names.index(some.class_names[label])]
        assert (own == image).all(axis=(1, 2, 3)).any()


def test_log_probabilities_are_divided_by_the_tokens_of_each_name(tokenizer, monkeypatch):
    task = Task("two", np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1, int), ["black chess knight", "a"], ("{}",), "")
    long, short = tokenizer(task.class_names).argmax(dim=1).tolist()
    model = SimpleNamespace(logit_scale=torch.zeros(()), config=SimpleNamespace(image_resolution=32))

    def scores(*_):  # the long name is likelier a token, the short one as a whole
        return torch.tensor([[-1.0 * long, -2.0 * short]])

    monkeypatch.setattr(baselines, "caption_scores", scores)
    objective = replace(objectives.OBJECTIVES[objectives.CAPTIONING], scores=scores)
    found = objectives.accuracies(objective, model, tokenizer, task)
    assert -2.0 * short > -1.0 * long and found == {"whole": 0.0, "per token": 1.0}


def test_runs_are_kept_by_seed_and_begin_from_it(monkeypatch, tmp_path):
    monkeypatch.setattr(objectives, "tests", lambda atlas: {})
    monkeypatch.setattr(objectives, "accuracies", None)
    monkeypatch.setattr(objectives, "training_flops", lambda *_: 3.0)
    begun = []
    monkeypatch.setattr(
        baselines,
        "train",
        lambda model, objective, tokenizer, pairs, config: (
            begun.append((model.token_embedding.weight.sum().item(), config.seed)) or [1.0]
        ),
    )
    laboratory = objectives.Laboratory(Setting(runs=tmp_path))
    recipe = objectives.Recipe(objectives.MATCHING, 640, 1e-2, 520)
    for seed in (0, 1, 0):
        assert laboratory.measure(recipe, seed, [])["flops"] == 3.0 * 640
        torch.rand(1)
    assert (laboratory.trained, laboratory.found) == (2, 1) and [seed for _, seed in begun] == [0, 1]
    (tmp_path / "objectives").rename(tmp_path / "before")
    laboratory.measure(recipe, 0, [])
    assert begun[2] == begun[0] != begun[1]
