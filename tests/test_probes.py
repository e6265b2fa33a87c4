"""The probe experiment: what is planted is found, and what is fitted to is not what is tested on."""

import numpy as np
import pytest
import torch

import minclip
from minclip import plots
from minclip.data.tasks import Task, glyph_tasks
from minclip.errors import MinclipError
from minclip.experiments import fine_grained, probes
from minclip.experiments.common import Setting
from minclip.probe import linear_probe


@pytest.fixture(scope="module")
def tasks(atlas):
    return glyph_tasks(atlas)


def test_what_zero_shot_is_worth():
    shots = [0.2, 0.4, 0.6, 0.5, 0.8]
    assert probes.worth(0.4, shots) == pytest.approx(2)
    assert probes.worth(0.3, shots) == pytest.approx(2**0.5)
    assert probes.worth(0.7, shots) == pytest.approx(2**3.5, rel=0.3)
    assert probes.worth(0.1, shots) == 0.5 and probes.worth(0.9, shots) == 32
    assert probes.worth(1.0, [0.9, 1, 1, 1, 1]) == 2 and probes.worth(1.0, [1, 1, 1, 1, 1]) == 0.5


def test_drawings_that_a_face_trained_on_has_are_counted(tasks, atlas):
    trained_faces = atlas.select(~atlas.of_faces("unseen"))
    assert all(probes.drawn_alike(tasks[name], trained_faces) == 1 for name in fine_grained.DRAWN_ALIKE)
    assert 0 < probes.drawn_alike(tasks["chess"], trained_faces) < 1
    assert probes.drawn_alike(tasks["latin-capitals"], trained_faces) == 0


def test_some_classes_keep_their_pictures_and_names(tasks):
    some = probes.some_classes(tasks["braille"], 10)
    assert len(some.class_names) == 10 and set(some.labels) == set(range(10))
    whole = tasks["braille"]
    named = [some.class_names[k] for k in some.labels]
    kept = np.isin([whole.class_names[k] for k in whole.labels], some.class_names)
    assert named == [whole.class_names[k] for k in whole.labels[kept]]
    assert (some.images == whole.images[kept]).all()
    assert probes.some_classes(tasks["dice"]) is tasks["dice"]


@pytest.mark.parametrize("name", ["dice", "planets", "handwritten-digits", "script", "slant"])
def test_no_picture_is_both_fitted_to_and_tested_on(tasks, atlas, name):
    fit_to, test = probes.labelled(tasks[name], atlas.select(~atlas.of_faces("unseen")), seed=0)
    assert fit_to.class_names == test.class_names
    assert set(fit_to.labels) == set(range(len(fit_to.class_names)))
    if name == "handwritten-digits":
        assert len(fit_to) == 1000 and len(test) == 797
    else:
        assert np.bincount(fit_to.labels).max() <= probes.EACH


def test_a_task_without_training_pictures_says_so(tasks, atlas):
    with pytest.raises(MinclipError, match="'unseen-names' has no labelled training pictures"):
        probes.labelled(tasks["unseen-names"], atlas, seed=0)


def test_random_features_score_chance_and_a_plain_class_is_found(monkeypatch):
    random = np.random.default_rng(0)
    labels = np.tile(np.arange(4), 100)
    fit_to = Task("x", random.integers(0, 256, (400, 32, 32, 3), dtype=np.uint8), labels, list("abcd"), ("{}",), "")
    monkeypatch.setattr(probes, "probe_features", lambda model, images: random.standard_normal((len(images), 8)))
    model, tokenizer = minclip.load("glyphs-tiny")
    assert 0.1 < probes.compare(model, tokenizer, fit_to, fit_to, seed=0)["probe"] < 0.4
    planted = lambda model, images: np.eye(4)[labels] + 0.01 * random.standard_normal((400, 4))  # noqa: E731
    monkeypatch.setattr(probes, "probe_features", planted)
    found = probes.compare(model, tokenizer, fit_to, fit_to, seed=0)
    assert found["probe"] == 1.0 and found["shots"][0] == 1.0


def test_scores_are_those_of_the_probe():
    random = np.random.default_rng(0)
    x, y = random.standard_normal((60, 5)), np.arange(60) % 3
    probe = linear_probe(x[:40], y[:40], x[40:], y[40:])
    scores = torch.from_numpy(probe.scores(x[40:]))
    assert (scores.argmax(1) == torch.from_numpy(y[40:])).float().mean().item() == pytest.approx(probe.accuracy)


def test_the_experiment_runs_and_draws(monkeypatch, tmp_path):
    monkeypatch.setattr(probes, "QUICK_TASKS", ("dice", "chess"))
    monkeypatch.setattr(probes, "EACH", 6)
    results = probes.run(Setting("quick", 1))
    assert set(results["tasks"][0]) == {"dice", "chess"} and len(results["claims"]) == 3
    assert results["shifts"][0]["benchmark"]["zero_shot"] > 0.7
    assert "chess" in probes.as_text(results)
    plots.write(probes.plot, results, tmp_path / "probes.png")
    assert (tmp_path / "probes.png").stat().st_size > 10_000


def test_shots_are_drawn_at_random_from_a_class():
    labels = np.repeat([0, 1, 2], 50)
    rows = probes.few(labels, 1, 8, np.random.default_rng(0))
    assert len(set(rows)) == 8 and set(labels[rows]) == {1} and rows.max() - rows.min() > 8
    assert not np.array_equal(rows, probes.few(labels, 1, 8, np.random.default_rng(1)))


def test_without_unknown_classes_each_picture_keeps_its_name(atlas):
    task = glyph_tasks(atlas)["dice"]
    known = np.array([True, False, True, True, False, True])
    some = probes.among(task, known)
    assert some.class_names == [name for name, is_known in zip(task.class_names, known) if is_known]
    kept = known[task.labels]
    assert np.array_equal(np.array(some.class_names)[some.labels], np.array(task.class_names)[task.labels[kept]])
    assert (some.images == task.images[kept]).all()
