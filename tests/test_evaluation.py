"""A model tested on everything: which pictures, which names, and which figure stands where."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minclip import MinclipError, evaluation, preprocess
from minclip.data.tasks import Task
from minclip.evaluation import evaluate_retrieval, evaluate_task, figures_as_text, probe_handwriting


def test_logits_are_cosines_times_the_scale_and_no_nan(tiny, tokenizer):
    task = Task(
        "known",
        np.random.default_rng(0).integers(256, size=(5, 32, 32, 3), dtype=np.uint8),
        np.arange(5) % 2,
        ["a cat", "two dogs"],
        ("{}",),
        "",
    )
    result = evaluate_task(tiny, tokenizer, task)
    with torch.no_grad():
        images, texts, scale = tiny.eval()(preprocess(task.images, tiny.config), tokenizer(task.class_names))
    torch.testing.assert_close(result.logits, scale * images @ texts.T)
    assert result.accuracy == (result.logits.argmax(1).numpy() == task.labels).mean()
    torch.nn.init.constant_(tiny.visual.proj, math.nan)
    with pytest.raises(MinclipError, match="NaN"):
        evaluate_task(tiny, tokenizer, task)


def test_retrieval_is_among_names_never_trained_on(tiny, tokenizer, atlas, monkeypatch):
    read = []
    encode = evaluation.encode_texts
    monkeypatch.setattr(
        evaluation,
        "encode_texts",
        lambda model, tokenizer, captions: read.extend(captions) or encode(model, tokenizer, captions),
    )
    assert (
        evaluate_retrieval(tiny, tokenizer, atlas)["candidates"]
        == len(read)
        == len(np.unique(atlas.unseen_names().name))
    )
    assert not set(read) & set(atlas.training().name)


def test_scans_that_are_fitted_to_are_not_tested_on(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(evaluation, "probe_features", lambda model, images: np.arange(len(images))[:, None])
    monkeypatch.setattr(
        evaluation,
        "linear_probe",
        lambda x, y, tx, ty, seed: asked.append((x[:, 0], tx[:, 0], y)) or SimpleNamespace(accuracy=0.1 * len(asked)),
    )
    assert probe_handwriting(tiny) == {"linear_probe": 0.1, "raw_pixels": 0.2}
    fitted, tested, labels = asked[0]
    assert sorted([*fitted, *tested]) == list(range(1797)) and len(fitted) == 1000
    assert np.ptp(np.bincount(labels)) <= 6  # of each digit as many, nearly
    probe_handwriting(tiny)
    assert np.array_equal(asked[2][0], fitted)


def test_the_tables_say_which_is_which():
    recalls = {"candidates": 7} | {
        f"{d}_R@{k}": k / 100 for d in ("image_to_text", "text_to_image") for k in (1, 5, 10)
    }
    figures = {"zero_shot": {"handwritten-digits": 0.3}, "chance": {"handwritten-digits": 0.1}, "ceiling": {"handwritten-digits": 0.9},
               "retrieval": recalls, "linear_probe": 0.8, "raw_pixels": 0.7}  # fmt: skip
    rows = [line.rsplit(maxsplit=3) for line in figures_as_text(figures).split("\n")]
    assert rows[1] == ["handwritten-digits", "30.0%", "10.0%", "90.0%"]
    text = figures_as_text(figures)
    for what, figure in (("zero-shot", "30.0%"), ("linear probe", "80.0%"), ("linear probe, raw pixels", "70.0%")):
        assert any(
            line.startswith(f"{what}  ") and line.endswith(figure) for line in text.split("\n")
        ) or what.endswith("pixels")
    assert text.endswith("70.0%") and ["text to image", "1.0%", "5.0%", "10.0%"] in rows


def test_the_ceiling_is_of_pictures_alike():
    task = Task("alike", np.zeros((4, 2, 2, 3), np.uint8), np.array([0, 0, 1, 2]), list("abc"), ("{}",), "")
    assert evaluation.TaskResult(task, torch.zeros(4, 3)).ceiling == 0.5
