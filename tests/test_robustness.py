"""Effective robustness is found where it was planted, and shifts change what they say and nothing else."""

import math
import warnings

import numpy as np
import pytest
import torch

from minclip import plots, supervised
from minclip.data import shifts
from minclip.data.images import MEAN, STD
from minclip.data.tasks import Task
from minclip.errors import MinclipError
from minclip.experiments import robustness as experiment
from minclip.experiments.common import Setting
from minclip.robustness import Line, effective_robustness, expit, fit_line, gap_closed, logit, shifted_accuracy
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


def test_ends_of_the_axes_and_accuracies_that_are_none():
    assert logit(1.0) == pytest.approx(np.log(999.5 / 0.5))
    for wrong in (-0.1, math.nan):
        with pytest.raises(MinclipError, match=r"in \[0, 1\]"):
            logit(wrong)
    with pytest.raises(MinclipError, match="accuracies of shape"):
        fit_line([0.5, 0.6], [0.2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gap_closed(0.5, 0.4, Line(1.0, 0.0)) == -math.inf  # nobody else falls


class Recorder(torch.nn.Module):
    """Notes which pictures it is shown: picture k is of grey level k."""

    def __init__(self):
        super().__init__()
        self.head, self.seen = torch.nn.Linear(1, 2), []

    def forward(self, images):
        level = images[:, 0, 0, :1] * STD[0] + MEAN[0]
        self.seen += (255 * level[:, 0]).round().int().tolist()
        return self.head(level)


def order_of(seed: int) -> list[list[int]]:
    model, images = Recorder(), torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 2, 2)
    fit_classifier(model, images, torch.arange(10) % 2, TrainConfig(images_seen=30, batch_size=5, seed=seed))
    return [model.seen[:10], model.seen[10:20], model.seen[20:]]


def test_pictures_go_round_reshuffled_by_the_seed_alone():
    rounds = order_of(seed=1)
    assert all(sorted(some) == list(range(10)) != some for some in rounds) and rounds[0] != rounds[1]
    torch.rand(1)
    assert order_of(seed=1) == rounds and order_of(seed=2) != rounds


def test_a_step_is_the_schedules_and_no_longer_than_the_gradient_may_be(monkeypatch):
    monkeypatch.setattr(
        supervised, "make_optimizer", lambda model, config: torch.optim.SGD(model.parameters(), lr=99.0)
    )
    model = SupervisedClassifier(3, width=4)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    config = TrainConfig(images_seen=6, batch_size=6, lr=2.0, warmup=0, clip_grad=1e-2)
    fit_classifier(model, torch.rand(6, 3, 32, 32), torch.arange(6) % 3, config)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(2.0 * 1e-2, rel=0.01)
    assert not model.training


def test_a_picture_is_classified_by_itself():
    model, images = SupervisedClassifier(3, width=4), torch.rand(6, 3, 32, 32)
    for training in (True, False):
        torch.testing.assert_close(classify(model.train(training), images)[:1], classify(model, images[:1]))
        assert model.training is training


def test_no_pictures_are_refused():
    with pytest.raises(MinclipError, match="0 pictures"):
        fit_classifier(
            SupervisedClassifier(3, width=4), torch.zeros(0, 3, 32, 32), torch.zeros(0).long(), TrainConfig()
        )


@pytest.mark.parametrize("kind", ["blur", "contrast"])
def test_a_corruption_stays_in_its_picture_and_its_channel(atlas, kind):
    home = shifts.benchmark(atlas, each=1)[1].select(slice(4))
    home.images[..., 1:] = 255  # red alone shows the glyph
    together = shifts.corrupted(home, kind, 5).images
    for k in range(4):
        assert (shifts.corrupted(home.select([k]), kind, 5).images[0] == together[k]).all()
    assert (together[..., 1] == together[..., 2]).all() and np.ptp(together[..., 1]) == 0


def test_contrast_draws_towards_grey_and_noise_does_not_wrap(atlas):
    some = shifts.benchmark(atlas, each=1)[1].select(slice(0, 992, 10))
    before = some.images.astype(int)
    pale = shifts.corrupted(some, "contrast", 5).images
    white, black = (set(pale[before == level].tolist()) for level in (255, 0))
    assert (white, black) == ({147}, {108})  # 127.5 +- 0.15 of it
    noisy = shifts.corrupted(some, "noise", 1).images.astype(int)
    assert np.abs(noisy - before).max() < 6 * 0.1 * 255


def test_patches_reach_every_edge_and_strengths_have_noise_of_their_own(atlas):
    some = shifts.benchmark(atlas, each=1)[1].select(slice(0, 992, 2))
    for strength in (1, 5):
        changed = (shifts.corrupted(some, "patch", strength).images != some.images).any(-1)
        assert changed[:, 0].any() and changed[:, -1].any() and changed[:, :, 0].any() and changed[:, :, -1].any()
    grey = Task("grey", np.full((8, 32, 32, 3), 128, np.uint8), np.arange(8), list("abcdefgh"), ("{}",), "")
    one, two = (shifts.corrupted(grey, "noise", s).images.astype(float).ravel() for s in (1, 2))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.05


@pytest.mark.parametrize("strength", [0, -1, 6])
def test_no_other_strength(strength):
    grey = Task("grey", np.full((1, 32, 32, 3), 128, np.uint8), np.arange(1), ["a"], ("{}",), "")
    with pytest.raises(MinclipError, match=f"in strength {strength} does not exist"):
        shifts.corrupted(grey, "noise", strength)


def test_print_is_black_on_white_and_hard_pictures_are_harder(atlas):
    training, home = shifts.benchmark(atlas, each=2)
    hard = shifts.hard_pictures(atlas, each=2)
    for task in (training, home, hard):
        assert (np.median(task.images, axis=(1, 2)) > 220).all()  # of each channel: paper is white
        assert np.ptp(task.images.astype(float).mean(axis=(1, 2)), axis=1).max() < 5  # and ink grey
    edge = {task.name: task.images[:, 0].std() for task in (home, hard)}
    assert edge["hard"] > 3 * edge["benchmark"]


def test_each_shift_is_painted_from_its_glyphs(atlas, monkeypatch):
    painted = {}

    def paint(name, glyphs, *how, **more):
        painted[name] = glyphs
        return Task(name, None, None, [], (), "")

    monkeypatch.setattr(shifts, "painted_task", paint)
    shifts.natural_shifts(atlas)
    assert set(painted["new-typeface"].of_faces("typeface")) == {"DejaVu Sans Mono"}
    assert set(painted["outlines"].of_faces("typeface")) == {"STIX"}
    assert len(np.unique(painted["new-typeface"].name)) == 62
