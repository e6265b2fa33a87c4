"""Effective robustness is found where it was planted, and shifts change what they say and nothing else."""

import numpy as np
import pytest
import torch

from minclip import plots
from minclip.data import shifts
from minclip.data.tasks import Task
from minclip.errors import MinclipError
from minclip.experiments import robustness as experiment
from minclip.experiments.common import Setting
from minclip.robustness import effective_robustness, expit, fit_line, gap_closed, logit, shifted_accuracy
from minclip.supervised import SupervisedClassifier, classify, fit_classifier
from minclip.train import TrainConfig


def test_logit_axes_and_perfect_scores():
    assert logit(0.5) == 0
    assert logit(0.99) - logit(0.98) == pytest.approx(logit(0.02) - logit(0.01))
    assert expit(logit(np.array([0.2, 0.9]))) == pytest.approx([0.2, 0.9])
    assert logit(1.0, pictures=100) == pytest.approx(np.log(99.5 / 0.5))
    with pytest.raises(MinclipError, match=r"in \[0, 1\]; got 20"):
        logit(20.0)


def test_a_planted_line_and_what_lies_above_it():
    home = np.array([0.6, 0.7, 0.8, 0.95])
    line = fit_line(home, expit(1.5 * logit(home) - 2))
    assert (line.slope, line.intercept) == pytest.approx((1.5, -2))
    assert effective_robustness(home, line.expected(home), line) == pytest.approx(0, abs=1e-12)
    assert gap_closed(0.9, 0.9, line) == pytest.approx(1)  # does not fall at all
    halfway = (0.9 + line.expected(0.9)) / 2
    assert gap_closed(0.9, halfway, line) == pytest.approx(0.5)
    assert effective_robustness(0.9, halfway, line) == pytest.approx((0.9 - line.expected(0.9)) / 2)
    assert gap_closed(0.9, line.expected(0.9) - 0.1, line) < 0
    with pytest.raises(MinclipError, match="two models that differ"):
        fit_line([0.5, 0.5], [0.2, 0.3])


def test_accuracy_under_a_shift_of_some_classes():
    names = ["a", "b", "c", "d"]
    images = np.zeros((4, 2, 2, 3), np.uint8)
    images[..., 0] = np.arange(4).reshape(4, 1, 1)  # the red channel tells the class

    def oracle(pictures):  # would rather say "c", which the small task does not have
        logits = torch.eye(4)[pictures[:, 0, 0, 0].long()]
        logits[:, 2] = 2.0
        return logits

    home = Task("home", images, np.arange(4), names, ("{}",), "")
    some = Task("some", images[[3, 1]], np.array([1, 0]), ["b", "d"], ("{}",), "")
    assert shifted_accuracy(oracle, names, home) == 0.25
    assert shifted_accuracy(oracle, names, some) == 1.0
    assert shifted_accuracy(oracle, names, some, home) == 1.0  # the benchmark's b and d alone
    with pytest.raises(MinclipError, match="does not know 1 of the task's classes, 'd'"):
        shifted_accuracy(oracle, names[:3], some)


def test_benchmark_and_shifts(atlas):
    training, home = shifts.benchmark(atlas, each=2)
    assert len(training.class_names) == 62 and len(training) == 124 and len(home) == 16 * 62
    assert (np.bincount(training.labels) == 2).all()
    natural = shifts.natural_shifts(atlas)
    assert list(natural) == ["new-typeface", "outlines", "handwriting"]
    for task in natural.values():
        assert set(task.class_names) <= set(home.class_names)
        assert task.images.dtype == np.uint8 and task.images.shape[1:] == (32, 32, 3)
    ink = shifts.benchmark_glyphs(atlas)
    around = shifts.outlined(ink).ink
    assert not around[ink.ink == 255].any() and around.any(axis=(1, 2)).all()  # none where ink was full


def test_corruptions_grow_with_strength(atlas):
    home = shifts.benchmark(atlas, each=1)[1]
    some = Task(home.name, home.images[:50], home.labels[:50], home.class_names, home.templates, home.about)
    tasks = shifts.every_corruption(some)
    assert len(tasks) == 20
    for kind in shifts.CORRUPTIONS:
        change = [np.abs(tasks[f"{kind}-{s}"].images.astype(int) - some.images).mean() for s in range(1, 6)]
        assert change == sorted(change) and change[0] > 0
    assert (shifts.corrupted(some, "noise", 2).images == tasks["noise-2"].images).all()
    with pytest.raises(MinclipError, match="'fog' in strength 1"):
        shifts.corrupted(some, "fog", 1)


def test_hard_examples_are_those_the_picker_got_wrong(atlas):
    pool = shifts.hard_pictures(atlas, each=1)
    predicted = pool.labels.copy()
    predicted[[3, 7]] += 1
    hard = shifts.hard_examples(pool, predicted, "hard")
    assert (hard.images == pool.images[[3, 7]]).all() and (hard.labels == pool.labels[[3, 7]]).all()
    with pytest.raises(MinclipError, match="every picture right"):
        shifts.hard_examples(pool, pool.labels, "hard")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_test_picture_is_a_training_pictures_double(atlas, seed):
    def pictures(*tasks: Task) -> set[bytes]:
        return {image.tobytes() for task in tasks for image in task.images}

    training, home = shifts.benchmark(atlas, experiment.EACH, seed)
    typeface = shifts.natural_shifts(atlas)["new-typeface"]
    learned = pictures(training, experiment.broad_pictures(atlas, seed))
    assert not learned & pictures(home, typeface, shifts.hard_pictures(atlas, seed=experiment.POOL))


def test_hard_pictures_are_painted_by_random_numbers_of_their_own(atlas):
    """The training pictures of seed 2, turned further and the same way, are the pool of the default's stream."""
    pool = shifts.hard_pictures(atlas, each=1, seed=experiment.POOL)
    for seed in range(3):
        assert not np.array_equal(shifts.benchmark(atlas, 1, seed)[0].labels, pool.labels)


def test_a_supervised_model_learns_from_labels(atlas):
    training, home = shifts.benchmark(atlas, each=8)
    images, labels = shifts.as_tensor(training), torch.from_numpy(training.labels)
    torch.manual_seed(0)
    model = SupervisedClassifier(62, width=8)
    fit_classifier(model, images, labels, TrainConfig(images_seen=2_560, batch_size=64, lr=3e-3))
    assert shifted_accuracy(lambda x: classify(model, x), training.class_names, home) > 10 / 62
    with pytest.raises(MinclipError, match="496 pictures and labels"):
        fit_classifier(model, images, labels[:7], TrainConfig())


def planted(group, home, shifted):
    everywhere = experiment.SHIFTS
    return {"group": group, "home": dict.fromkeys(everywhere, home), "shifted": dict.fromkeys(everywhere, shifted)}


def test_the_share_closed_is_that_of_the_last_model_of_a_group():
    models = [planted("supervised", home, float(expit(logit(home) - 1))) for home in (0.6, 0.9)]
    models += [planted("zero-shot CLIP", 0.5, 0.1), planted("zero-shot CLIP", 0.8, 0.8)]
    assert experiment.closed(models, "zero-shot CLIP", "outlines") == pytest.approx(1)


def test_the_experiment_runs_and_draws(monkeypatch, tmp_path):
    tiny = experiment.Sizes(widths=(4, 8), pieces=(8,), pictures=1_920, lengths=(), narrow=192)
    monkeypatch.setattr(experiment, "QUICK", tiny)
    monkeypatch.setattr(experiment, "EACH", 8)
    monkeypatch.setattr(shifts, "CORRUPTIONS", {"noise": shifts.CORRUPTIONS["noise"]})
    hard_pictures = shifts.hard_pictures
    monkeypatch.setattr(shifts, "hard_pictures", lambda atlas, seed: hard_pictures(atlas, 1, seed))
    results = experiment.run(Setting("quick", 1, runs=tmp_path))
    assert len(results["models"][0]) == 6 and len(results["claims"]) == 3
    clip = next(model for model in results["models"][0] if model["group"] == "zero-shot CLIP")
    assert clip["home"]["new-typeface"] > 0.7
    assert "new-typeface" in experiment.as_text(results)
    plots.write(experiment.plot, results, tmp_path / "robustness.png")
    assert (tmp_path / "robustness.png").stat().st_size > 10_000
