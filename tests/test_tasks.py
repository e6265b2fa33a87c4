"""Zero-shot tasks: what each holds is what it says, and was never trained on in this form."""

import re

import numpy as np
import pytest
from sklearn.datasets import load_digits

from minclip import MinclipError
from minclip.data.painting import COLOURS
from minclip.data.tasks import NAMED, Task, digit_pictures, glyph_tasks, named_task, validation_task


@pytest.fixture(scope="module")
def tasks(atlas) -> dict[str, Task]:
    return glyph_tasks(atlas)


def keys(pictures: np.ndarray) -> set[bytes]:
    return {picture.tobytes() for picture in pictures}


def test_there_are_the_named_ones(tasks):
    promised = {"unseen-names", "unseen-typeface", "unseen-typeface-digits", "handwritten-digits", "hebrew-letters",
                "arabic-letters", "arrows", "chess", "card-suits", "dice", "dominoes", "zodiac", "braille", "box-drawing",
                "operators", "currency", "script", "weight", "slant", "ink-colour", "paper-colour"}  # fmt: skip
    assert promised <= tasks.keys() and len(tasks) >= 30
    assert tasks.keys() >= NAMED.keys() and all(task.name == name for name, task in tasks.items())


def test_each_is_a_classification(tasks):
    for name, task in tasks.items():
        assert task.images.dtype == np.uint8 and task.images.shape == (len(task), 32, 32, 3), name
        assert len(set(task.class_names)) == len(task.class_names) >= 2, name
        assert sorted(set(task.labels.tolist())) == list(range(len(task.class_names))), (
            name
        )  # no class without pictures
        assert task.chance == 1 / len(task.class_names)
        assert all("{}" in template for template in task.templates) and task.about, name


def test_known_numbers_of_classes(tasks):
    expected = {"unseen-typeface-digits": 10, "latin-capitals": 26, "latin-small-letters": 26, "chess": 12, "dice": 6,
                "card-suits": 8, "zodiac": 12, "braille": 255, "trigrams": 8, "box-drawing": 128, "block-elements": 32,
                "hebrew-letters": 22, "planets": 9, "playing-cards": 56, "dominoes": 98, "handwritten-digits": 10}  # fmt: skip
    assert {name: len(tasks[name].class_names) for name in expected} == expected


def test_unseen_names_were_never_trained_on_and_unseen_typefaces_only_names_that_were(tasks, atlas):
    trained = set(atlas.training().name)
    unseen, known = set(tasks["unseen-names"].class_names), set(tasks["unseen-typeface"].class_names)
    assert len(unseen) > 650 and not unseen & trained
    assert len(known) > 4000 and known <= trained
    validation = set(validation_task(atlas).class_names)
    assert len(validation) > 600 and not validation & (trained | unseen)


def test_pictures_of_the_typeface_tasks_come_from_faces_never_trained_on(tasks, atlas):
    unseen_faces = keys(atlas.select(atlas.of_faces("unseen")).pictures())
    for name in (*NAMED, "unseen-typeface", "script", "weight", "slant"):
        assert keys(tasks[name].images) <= unseen_faces, name


def test_class_names_match_the_pictures(tasks, atlas):
    capitals = tasks["latin-capitals"]
    by_name = {name: keys(atlas.select(atlas.name == name).pictures()) for name in capitals.class_names}
    for image, label in zip(capitals.images, capitals.labels):
        assert image.tobytes() in by_name[capitals.class_names[label]]


def test_script_letters_have_names_never_trained_on(tasks, atlas):
    task, trained = tasks["script"], keys(atlas.select(atlas.split == "test").pictures())
    assert keys(task.images) <= trained
    greek = task.images[task.labels == task.class_names.index("greek letter")]
    assert keys(greek) <= keys(atlas.select(atlas.script == "Greek").pictures())


def test_bold_letters_have_more_ink(tasks):
    task = tasks["weight"]
    ink = (255 - task.images.astype(int)).sum(axis=(1, 2, 3))
    assert ink[task.labels == 1].mean() > 1.2 * ink[task.labels == 0].mean()
    assert np.bincount(task.labels).min() > 40


@pytest.mark.parametrize("where", ["ink", "paper"])
def test_colour_tasks_show_the_colour_they_name(tasks, where):
    task = tasks[f"{where}-colour"]
    for image, label in zip(task.images, task.labels):
        named = np.array(COLOURS[task.class_names[label]])
        if where == "paper":
            assert (image[0, 0] == named).all()
        else:
            assert (np.abs(image.reshape(-1, 3).astype(int) - named).sum(axis=1) <= 60).any()
            assert (image[0, 0] != named).any()
    assert task.class_names == list(COLOURS)


def test_handwriting_is_the_scans_dark_on_white(tasks):
    task, scans = tasks["handwritten-digits"], load_digits()
    assert (task.labels == scans.target).all() and task.class_names[7] == "digit seven"
    ink = 255 - task.images[..., 0].astype(float)
    assert (task.images[:, 0] == 255).all() and (task.images[:, -4:] == 255).all()  # around it, paper
    assert np.corrcoef(ink.sum(axis=(1, 2)), scans.images.sum(axis=(1, 2)))[0, 1] > 0.99
    right = ink[:, :, 16:].sum(axis=(1, 2)) - ink[:, :, :16].sum(axis=(1, 2))
    lean = scans.images[:, :, 4:].sum(axis=(1, 2)) - scans.images[:, :, :4].sum(axis=(1, 2))
    assert np.corrcoef(right, lean)[0, 1] > 0.95  # not mirrored, nor turned


def test_a_digit_stands_where_printed_ones_do(atlas):
    printed = atlas.select((atlas.name == "digit eight") & (atlas.of_faces("typeface") == "DejaVu Sans"))
    rows = np.flatnonzero(printed.ink.any(axis=(0, 2)))
    written = np.flatnonzero((digit_pictures([np.full((8, 8), 16)], 32)[0, :, :, 0] < 255).any(axis=1))
    assert abs(rows[0] - written[0]) <= 2 and abs(rows[-1] - written[-1]) <= 2


def test_patterns_take_whole_names(tasks):
    for name in ("unseen-typeface-digits", "dice", "chess"):
        assert all(re.fullmatch(NAMED[name], text) for text in tasks[name].class_names)
    assert "latin capital letter ae" not in tasks["latin-capitals"].class_names


def test_a_task_without_pictures_is_refused(atlas):
    with pytest.raises(MinclipError, match="No glyph belongs to the task 'none'"):
        named_task("none", atlas.select(np.zeros(len(atlas), bool)), "nothing")


@pytest.mark.parametrize("task, other, plain", [("weight", "slant", "upright"), ("slant", "weight", "regular")])
def test_one_style_varies_and_the_other_is_plain(tasks, atlas, task, other, plain):
    held_out = atlas.select(atlas.of_faces("unseen"))
    assert keys(tasks[task].images) <= keys(held_out.select(held_out.of_faces(other) == plain).pictures())


def test_colours_are_asked_for_as_captions_name_them(tasks, atlas):
    assert tasks["ink-colour"].templates[0] == "{} latin capital letter a"
    assert tasks["paper-colour"].templates[25] == "latin capital letter z on {}"
    for where in ("ink", "paper"):  # each drawing once in each colour
        assert len(tasks[f"{where}-colour"]) == len(COLOURS) * len(tasks["latin-capitals"])
