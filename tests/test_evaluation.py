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
    images = np.random.default_rng(0).integers(256, size=(5, 32, 32, 3), dtype=np.uint8)
    task = Task("known", images, np.arange(5) % 2, ["a cat", "two dogs"], ("{}",), "")
    result = evaluate_task(tiny, tokenizer, task)
    with torch.no_grad():
        images, texts, scale = tiny.eval()(preprocess(task.images, tiny.config), tokenizer(task.class_names))
    torch.testing.assert_close(result.logits, scale * images @ texts.T)
    assert result.accuracy == (result.logits.argmax(1).numpy() == task.labels).mean()
    torch.nn.init.constant_(tiny.visual.proj, math.nan)
    with pytest.raises(MinclipError, match="NaN"):
        evaluate_task(tiny, tokenizer, task)


def test_retrieval_is_among_names_never_trained_on(tiny, tokenizer, atlas, monkeypatch):
    read, encode = [], evaluation.encode_texts
    monkeypatch.setattr(evaluation, "encode_texts", lambda *how: read.extend(how[2]) or encode(*how))
    candidates = evaluate_retrieval(tiny, tokenizer, atlas)["candidates"]
    assert candidates == len(read) == len(np.unique(atlas.unseen_names().name))
    assert not set(read) & set(atlas.training().name)


def test_scans_that_are_fitted_to_are_not_tested_on(tiny, monkeypatch):
    asked = []

    def probe(features, labels, test_features, test_labels, seed):
        asked.append((features[:, 0], test_features[:, 0], labels))
        return SimpleNamespace(accuracy=0.1 * len(asked))

    monkeypatch.setattr(evaluation, "probe_features", lambda model, images: np.arange(len(images))[:, None])
    monkeypatch.setattr(evaluation, "linear_probe", probe)
    assert probe_handwriting(tiny) == {"linear_probe": 0.1, "raw_pixels": 0.2}
    fitted, tested, labels = asked[0]
    assert sorted([*fitted, *tested]) == list(range(1797)) and len(fitted) == 1000
    assert np.ptp(np.bincount(labels)) <= 6  # of each digit as many, nearly
    probe_handwriting(tiny)
    assert np.array_equal(asked[2][0], fitted)


def test_the_tables_say_which_is_which():
    recalls = {f"{way}_R@{k}": k / 100 for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
    shares = {"zero_shot": 0.3, "chance": 0.1, "ceiling": 0.9}
    figures = {name: {"handwritten-digits": share} for name, share in shares.items()}
    figures |= {"retrieval": recalls | {"candidates": 7}, "linear_probe": 0.8, "raw_pixels": 0.7}
    lines = [" ".join(line.split()) for line in figures_as_text(figures).split("\n")]
    assert lines[1] == "handwritten-digits 30.0% 10.0% 90.0%" and "text to image 1.0% 5.0% 10.0%" in lines
    assert lines[-3:] == ["zero-shot 30.0%", "linear probe 80.0%", "linear probe, raw pixels 70.0%"]


def test_the_ceiling_is_of_pictures_alike():
    task = Task("alike", np.zeros((4, 2, 2, 3), np.uint8), np.array([0, 0, 1, 2]), list("abc"), ("{}",), "")
    assert evaluation.TaskResult(task, torch.zeros(4, 3)).ceiling == 0.5
