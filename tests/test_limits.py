"""What the experiments on limits measure, where the answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from minclip import plots
from minclip.data.images import preprocess
from minclip.data.painting import COLOURS, GlyphPairs, Paint
from minclip.data.tasks import Task
from minclip.errors import MinclipError
from minclip.evaluation import TaskResult
from minclip.experiments import bias, boundaries, class_design, fine_grained


def task_of(images: np.ndarray, labels: list[int], names: list[str]) -> Task:
    return Task("known", images, np.array(labels), names, ("{}",), "")


def result_of(task: Task, predicted: list[int]) -> TaskResult:
    return TaskResult(task, torch.eye(len(task.class_names))[predicted])


# Bias


def test_a_planted_slope_is_found():
    shares = {"a": 0.5, "b": 0.05, "c": 0.005, "never tested": 0.1}
    accuracy = {"a": 0.8, "b": 0.5, "c": 0.2, "never trained on": 0.9}
    assert bias.fitted_slope(shares, accuracy) == pytest.approx(0.3)


def test_shares_are_of_names_and_thinning_takes_names_of_one_script(atlas):
    shares = bias.training_shares(atlas)
    assert sum(shares.values()) == pytest.approx(1)
    training, thinned = atlas.training(), bias.without_most(atlas, "Greek", 0.1)
    names = {kind: set(a.name[a.script == "Greek"]) for kind, a in (("before", training), ("after", thinned))}
    assert len(names["after"]) == round(0.1 * len(names["before"])) and names["after"] < names["before"]
    assert (thinned.script != "Greek").sum() == (training.script != "Greek").sum()
    assert shares["Greek"] == pytest.approx(len(names["before"]) / len(set(training.name)))


@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0])
def test_inks_are_planted_as_often_as_asked_and_captions_do_not_tell(atlas, strength):
    letters = atlas.training().select(np.isin(atlas.training().script, list(bias.PLANTED)))
    paint = Paint(coloured=1.0, colours_named=0.0)
    planted, plain = bias.PlantedPairs(letters, paint, bias.PLANTED, strength), GlyphPairs(letters, paint)
    rows, ink, paper, _ = planted.draw(4000, 0, 0)
    plain_rows, plain_ink, plain_paper, _ = plain.draw(4000, 0, 0)
    own = np.array([list(COLOURS).index(bias.PLANTED[script]) for script in letters.script[rows]])
    changed = (ink != plain_ink) | (paper != plain_paper)
    assert np.array_equal(rows, plain_rows) and np.array_equal(ink[changed], own[changed])
    assert changed.mean() == pytest.approx(strength, abs=0.03)
    assert planted.captions(200) == plain.captions(200)


class Ink(torch.nn.Module):
    """Calls red pictures Greek and blue ones Cyrillic, whatever is drawn; or looks at nothing at all."""

    def __init__(self, config, blind: bool = False):
        super().__init__()
        self.config, self.blind = config, blind
        self.logit_scale = torch.nn.Parameter(torch.tensor(3.0))

    def encode_image(self, images):
        red = images[:, 0].amin(dim=(1, 2)) > images[:, 2].amin(dim=(1, 2))
        return torch.nn.functional.one_hot(torch.zeros_like(red).long() if self.blind else (~red).long(), 2).float()

    def encode_text(self, captions):
        return torch.stack([torch.tensor([1.0, 0.0] if "greek" in caption else [0.0, 1.0]) for caption in captions])


class Captions(list):
    def to(self, device):
        return self


def test_a_model_that_sees_ink_alone_repeats_all_of_it_and_a_blind_one_nothing(atlas, tiny):
    assert bias.repeated(Ink(tiny.config), Captions, atlas) == {"own_ink": 1.0, "other_ink": 0.0, "arrows": 1.0}
    assert bias.repeated(Ink(tiny.config, blind=True), Captions, atlas) == {
        "own_ink": 0.5, "other_ink": 0.5, "arrows": 0.5,
    }  # fmt: skip


# Class design


def test_distractors_are_close_or_far_and_no_class_of_the_task(atlas):
    names = [f"latin small letter {letter}" for letter in "abc"]
    close, far = class_design.distractors(names, atlas)
    assert 3 <= len(close) == len(far) <= 12 and not set(close + far) & set(names)
    assert all(any(name.startswith(base + " with ") for base in names) for name in close)
    assert all("latin" not in name for name in far)


def test_letters_put_into_classes_add_up(atlas, tiny, tokenizer):
    shares = class_design.with_and_without(tiny, tokenizer, atlas)
    for when, classes in (("before", 10), ("after", 11)):
        for of_script in shares[when].values():
            assert len(of_script) == classes and sum(of_script) == pytest.approx(1)
    assert class_design.not_letters([0.1] * 4 + [0.05] * 6 + [0.3]) == pytest.approx(0.3)


# Fine-grained classes


def test_likeness_and_lists_of_others():
    """Twelve classes on a line: a neighbour shares half of its ink. The model confuses neighbours alone."""
    images = np.full((12, 16, 16, 3), 255, np.uint8)
    for k in range(12):
        images[k, k : k + 2] = 0
    task = task_of(images, list(range(12)), [f"name {k}" for k in range(12)])
    like = fine_grained.likeness(task)
    assert like[3, 4] == pytest.approx(0.5) and like[3, 5] == pytest.approx(0) and like[3, 3] == -1
    logits = torch.eye(12) + 2 * (like > 0.4)
    bins = fine_grained.accuracy_by_likeness(TaskResult(task, logits), like)
    assert bins[0] == (pytest.approx(0, abs=1e-6), 1.0)  # the nine least like each leave its neighbours out
    assert bins[-1][1] == 0.0 and bins[-1][0] > 0.1
    assert fine_grained.accuracy_by_likeness(TaskResult(task, torch.eye(12)), like)[-1][1] == 1.0  # an oracle


def test_what_is_wrong_with_a_mark_or_a_count():
    names = ["latin small letter a with acute", "latin small letter a with tilde", "latin small letter o with acute"]
    task = task_of(np.zeros((4, 2, 2, 3), np.uint8), [0, 0, 1, 2], names)
    assert fine_grained.parts_right(result_of(task, [0, 1, 0, 0]), fine_grained.MARKED) == [0.75, 0.5]
    tiles = ["domino tile horizontal-00-00", "domino tile vertical-01-02", "domino tile vertical-06-06"]
    task = task_of(np.zeros((3, 2, 2, 3), np.uint8), [0, 1, 2], tiles)
    off, at_random = fine_grained.pips_off(result_of(task, [0, 0, 2]))
    assert off == 1.0 and at_random == pytest.approx((3 + 12 + 3 + 9 + 12 + 9) / 9)
    assert fine_grained.counted_by_name(result_of(task, [0, 0, 2])) == pytest.approx(2 / 3)


def test_a_probe_counts_tiles_it_was_not_fitted_to_if_the_features_do(atlas, tiny, monkeypatch):
    """Features that hold the pips of both halves, against features that know each tile, and hold no count."""
    task = fine_grained.tasks_of(atlas)["dominoes"]
    tile_of = {picture.tobytes(): name for picture, name in zip(atlas.pictures(), atlas.name)}

    def features(of_tile):
        return lambda model, pictures: np.stack([of_tile(tile_of[picture.tobytes()]) for picture in pictures])

    monkeypatch.setattr(fine_grained, "preprocess", lambda pictures, config: pictures)
    counts = features(lambda tile: np.eye(7)[list(fine_grained.pips_of(tile))].ravel())
    monkeypatch.setattr(fine_grained, "probe_features", counts)
    assert fine_grained.counted_by_probe(tiny, task, atlas, seed=0) == 1.0
    identity = features(lambda tile: np.eye(98)[task.class_names.index(tile)])
    monkeypatch.setattr(fine_grained, "probe_features", identity)
    assert fine_grained.probe_accuracy(tiny, task, atlas, seed=0) == 1.0
    assert fine_grained.counted_by_probe(tiny, task, atlas, seed=0) < 0.15


# Boundaries


def test_rarity_and_the_errors_it_accounts_for():
    training = ["latin letter a", "latin letter b", *["common sign"] * 11]
    assert boundaries.rarest_word(["latin letter c", "latin a", "common sign"], training).tolist() == [0, 1, 11]
    task = task_of(np.zeros((4, 2, 2, 3), np.uint8), [0, 0, 1, 2], ["seldom", "some", "common"])
    bins = boundaries.by_rarity(result_of(task, [1, 1, 1, 1]), np.array([0, 5, 500]))
    assert [b["pictures"] for b in bins] == [0.5, 0.25, 0, 0, 0.25]
    assert [b["errors"] for b in bins] == pytest.approx([2 / 3, 0, 0, 0, 1 / 3])
    assert bins[0]["accuracy"] == 0 and bins[1]["accuracy"] == 1


def test_what_is_fitted_to_and_tested_on_shares_no_picture(atlas, tiny):
    fits, tests = boundaries.digit_domains(atlas, 0)
    for domain in ("print, faces trained on", "handwriting"):
        fitted = {picture.tobytes() for task in fits.values() for picture in task.images}
        assert not any(picture.tobytes() in fitted for picture in tests[domain].images)
    assert set(boundaries.named_labels(tests["handwriting"])) == set(boundaries.named_labels(fits["print"]))
    assert preprocess(fits["print"].images, tiny.config).shape[1:] == (3, 32, 32)


def photographs(folder, names, each):
    """A folder of plain pictures, class k of grey level 60 k, in the splits train and test."""
    for split in ("train", "test"):
        for k, name in enumerate(names):
            (folder / split / name).mkdir(parents=True)
            for i in range(each):
                Image.new("L", (40, 30), 60 * k + i % 10).save(folder / split / name / f"{i}.png")
    return str(folder)


def test_photographs_are_classified_by_their_pixels(tiny, tokenizer, tmp_path):
    names = ["bag", "coat", "shoe"]
    fit_to, task = boundaries.photograph_tasks(photographs(tmp_path / "clothes", names, 10), 32)
    assert fit_to.class_names == task.class_names == names and len(fit_to) == len(task) == 30
    assert np.array_equal(task.images[:, 0, 0, 0] // 60, task.labels)
    accuracy = boundaries.by_kind(tiny, tokenizer, fit_to, task, seed=0)
    assert accuracy["pixels"] == 1 and set(accuracy) == {"zero-shot", "probe", "pixels"}


def test_photographs_without_classes_are_refused(tmp_path):
    source = photographs(tmp_path / "all-different", [f"photograph {k}" for k in range(4)], 1)
    with pytest.raises(MinclipError, match="4 classes on 4 training pictures. Give photographs of two classes"):
        boundaries.photograph_tasks(source, 32)


@pytest.mark.parametrize("given", [True, False])
def test_other_kinds_are_told_and_drawn_or_said_to_be_left_out(given, atlas, tiny, tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr(boundaries, "EACH", 2)
    monkeypatch.setattr(boundaries, "trained_models", lambda setting: [(tiny, tokenizer)])
    emoji = task_of(np.zeros((2, 32, 32, 3), np.uint8), [0, 1], ["grinning face", "sun"])
    monkeypatch.setattr(boundaries, "emoji_task", lambda size: emoji if given else None)
    source = photographs(tmp_path / "clothes", ["bag", "coat"], 10) if given else None
    results = boundaries.run(bias.Setting("recorded", 1, photographs=source))
    text = boundaries.as_text(results)
    assert ("left out" in text) == ("not given" in text) == (not given) and len(results["claims"]) == 3 + 2 * given
    plots.write(boundaries.plot, results, tmp_path / "picture.png")


def test_each_runs_from_end_to_end_and_draws(atlas, tiny, tokenizer, monkeypatch, tmp_path):
    for module in (bias, class_design, fine_grained, boundaries):
        monkeypatch.setattr(module, "trained_models", lambda setting: [(tiny, tokenizer)] * 2)
    monkeypatch.setattr(bias, "trained_on", lambda *_: (tiny, tokenizer))
    monkeypatch.setattr(fine_grained, "TASKS", ("marked-letters", "dominoes"))
    monkeypatch.setattr(fine_grained, "EACH", 1)
    monkeypatch.setattr(boundaries, "EACH", 2)
    for module in (bias, class_design, fine_grained, boundaries):
        results = module.run(bias.Setting("recorded", 2))
        text = " ".join(module.as_text(results).split())  # claims are wrapped
        assert all(row["measured"] in text for row in results["claims"])
        plots.write(module.plot, results, tmp_path / "picture.png")
        assert (tmp_path / "picture.png").stat().st_size > 10_000
        (tmp_path / "picture.png").unlink()


def test_only_scripts_with_names_enough_are_told_and_what_is_right_counts(atlas, monkeypatch):
    unseen = atlas.unseen_names()
    right = np.isin(unseen.script, ["Greek", "Lao"])
    monkeypatch.setattr(
        bias,
        "evaluate_task",
        lambda model, tokenizer, task: SimpleNamespace(predicted=np.where(right, task.labels, -1), task=task),
    )
    names = {script: len(np.unique(unseen.name[unseen.script == script])) for script in np.unique(unseen.script)}
    monkeypatch.setattr(bias, "FEWEST", names["Lao"])  # just enough
    accuracy = bias.accuracy_by_script(None, None, atlas)
    expected = {script for script in names if names[script] >= names["Lao"] and script not in ("Common", "Inherited")}
    assert set(accuracy) == expected and accuracy["Greek"] == accuracy["Lao"] == 1.0 and accuracy["Latin"] == 0.0


def test_a_planted_ink_has_nothing_to_do_with_the_face_or_the_wording(atlas):
    letters = atlas.training().select(np.isin(atlas.training().script, list(bias.PLANTED)))
    pairs = bias.PlantedPairs(letters, Paint(coloured=0.0), bias.PLANTED, 0.5)
    _, ink, _, uniforms = pairs.draw(4000, 0, 0)
    planted = ink != list(COLOURS).index("black")
    for used in range(13):
        assert abs(np.corrcoef(planted, uniforms[:, used])[0, 1]) < 0.06, used


def test_a_word_twice_in_a_name_is_one_name():
    assert boundaries.rarest_word(["dot"], ["dot with dot", "dot"]).tolist() == [2]


def test_domains_are_drawn_in_the_faces_they_name(atlas, monkeypatch):
    painted = {}
    monkeypatch.setattr(
        boundaries, "painted_task", lambda name, glyphs, *how: painted.setdefault((name, how[-1]), glyphs)
    )
    monkeypatch.setattr(boundaries, "outlined", lambda glyphs: glyphs)
    boundaries.digit_domains(atlas, 3)
    held_out = {name: set(glyphs.of_faces("unseen")) for (name, _), glyphs in painted.items()}
    assert held_out == {"print": {False}, "held out": {True}, "outlines": {False}}
    assert {seed for name, seed in painted if name == "print"} == {6, 7}


def test_a_tie_with_another_class_is_no_success():
    like = torch.zeros(12, 12).fill_diagonal_(-1)
    task = Task("even", np.zeros((12, 2, 2, 3), np.uint8), np.arange(12), [f"name {k}" for k in range(12)], ("{}",), "")
    bins = fine_grained.accuracy_by_likeness(boundaries.TaskResult(task, torch.zeros(12, 12)), like)
    assert all(right == 0 for _, right in bins)


def test_both_halves_must_be_right(atlas, tiny, monkeypatch):
    """Features that hold the pips of the first half alone."""
    task = fine_grained.tasks_of(atlas)["dominoes"]
    tile_of = {picture.tobytes(): name for picture, name in zip(atlas.pictures(), atlas.name)}
    monkeypatch.setattr(fine_grained, "preprocess", lambda pictures, config: pictures)

    def first_half(model, pictures):
        return np.eye(7)[[fine_grained.pips_of(tile_of[picture.tobytes()])[0] for picture in pictures]]

    monkeypatch.setattr(fine_grained, "probe_features", first_half)
    assert fine_grained.counted_by_probe(tiny, task, atlas, seed=0) < 0.35


def test_probes_are_fitted_to_few_pictures_and_none_in_a_face_held_out(atlas, tiny, monkeypatch):
    fitted = []
    fit_and_test = fine_grained.fit_and_test
    monkeypatch.setattr(fine_grained, "probe_features", lambda model, images: np.zeros((len(images), 1)))
    monkeypatch.setattr(fine_grained, "preprocess", lambda pictures, config: pictures)
    monkeypatch.setattr(
        fine_grained,
        "fit_and_test",
        lambda model, task, glyphs: fitted.append(glyphs) or fit_and_test(model, task, glyphs),
    )
    scores = SimpleNamespace(accuracy=0.5, scores=lambda features: np.zeros((len(features), 7)))
    monkeypatch.setattr(fine_grained, "linear_probe", lambda *_: scores)
    dominoes, letters = (fine_grained.tasks_of(atlas)[name] for name in ("dominoes", "latin-small-letters"))
    fine_grained.counted_by_probe(tiny, dominoes, atlas, 0)
    fine_grained.probe_accuracy(tiny, letters, atlas, 0)
    assert not any(glyphs.of_faces("unseen").any() for glyphs in fitted)
    assert set(np.unique(fitted[1].name, return_counts=True)[1]) == {fine_grained.EACH}
