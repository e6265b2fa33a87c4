"""`pretrain --data` and `evaluate --data`: from files on disk to figures, and back out of every mistake."""

import json

import datasets
import numpy as np
import pytest
from PIL import Image

from minclip.cli import main

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 50, 220), "yellow": (240, 230, 40)}
TINY = [
    "--model.vision-layers",
    "1",
    "--model.vision-width",
    "16",
    "--model.vision-patch-size",
    "8",
    "--model.vision-heads",
    "2",
    "--model.image-resolution",
    "16",
    "--model.embed-dim",
    "16",
    "--model.transformer-width",
    "16",
    "--model.transformer-heads",
    "2",
    "--model.vocab-size",
    "600",
    "--model.context-length",
    "16",
    "--train.images-seen",
    "1600",
    "--train.batch-size",
    "32",
    "--train.lr",
    "1e-2",
    "--device",
    "cpu",
    "--workers",
    "0",
]


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Squares of four colours, speckled; a Parquet file of captions, and the class names beside it."""
    folder = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    names = [list(COLOURS)[i % 4] for i in range(80)]
    speckled = [np.clip(rng.normal(COLOURS[name], 20, (20, 24, 3)), 0, 255).astype(np.uint8) for name in names]
    rows = {
        "image": [Image.fromarray(pixels) for pixels in speckled],
        "caption": [f"a {name} square" for name in names],
    }
    rows |= {"label": [i % 4 for i in range(80)]}
    datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).to_parquet(folder / "squares.parquet")
    (folder / "classes.txt").write_text("\n".join(f"A {name} square" for name in COLOURS) + "\n\n")
    (folder / "short.txt").write_text("\n".join(COLOURS))
    return folder


@pytest.fixture(scope="module")
def run(colours):
    """A run trained from the command line on that file."""
    arguments = ["pretrain", "--data", str(colours / "squares.parquet"), "--run", str(colours / "run"), *TINY]
    assert main([*arguments, "--json", str(colours / "trained.json")]) == 0
    return str(colours / "run")


def evaluate(run, colours, *options) -> dict:
    data = ["--data", str(colours / "squares.parquet"), "--workers", "0", "--json", str(colours / "figures.json")]
    assert main(["evaluate", run, *data, *options]) == 0
    return json.loads((colours / "figures.json").read_text())


def test_what_was_trained_on_files_is_named_zero_shot(run, colours, capsys):
    trained = json.loads((colours / "trained.json").read_text())
    assert trained["images_seen"] == 1600 and trained["skipped_pictures"] == {}
    figures = evaluate(run, colours, "--classes", str(colours / "classes.txt"))["zero_shot"]
    assert (figures["pictures"], figures["classes"], figures["chance"]) == (80, 4, 0.25) and figures["top_1"] > 0.9
    assert "chance" in capsys.readouterr().out
    short = ["--classes", str(colours / "short.txt"), "--caption-column", "label", "--templates", "a {} square", "{}"]
    assert evaluate(run, colours, *short)["zero_shot"]["top_1"] > 0.9


def test_retrieval_without_class_names(run, colours, capsys):
    figures = evaluate(run, colours)["retrieval"]
    assert figures["different_captions"] == 4 and "Only 4 of 80 captions differ" in capsys.readouterr().err
    # Twenty pictures share each caption, so R@10 of a perfect model is about a half; chance is 1/8.
    assert figures["pictures"] == 80 and figures["image_to_text_R@10"] > 0.3


@pytest.mark.parametrize(
    "options, words",
    [
        (["--classes", "{}/short.txt"], "Make the names agree"),
        (["--classes", "{}/nowhere.txt"], "cannot be read"),
        (["--caption-column", "label"], "have no caption"),
        (["--caption-column", "colour"], "no column 'colour'. Its columns: image"),
        (["--data", "{}/squares.docx"], "no file or folder"),
    ],
)
def test_mistakes_end_in_one_sentence(run, colours, options, words, capsys):
    data = ["--data", str(colours / "squares.parquet"), "--workers", "0"]
    assert main(["evaluate", run, *data, *(option.format(colours) for option in options)]) == 1
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_class_names_want_data(run, colours, capsys):
    assert main(["evaluate", run, "--classes", str(colours / "classes.txt")]) == 1
    assert "--data" in capsys.readouterr().err
