"""One model, all the glyph world's tests: what the demo prints and `python -m minclip evaluate` repeats."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from .clip import CLIP
from .data.glyphs import Atlas, ceiling
from .data.images import preprocess
from .data.painting import GlyphPairs, Paint
from .data.tasks import Task, glyph_tasks, handwritten_digits
from .probe import linear_probe, probe_features
from .tokenizer import CLIPTokenizer
from .zeroshot import check_finite, encode_images, encode_pictures, encode_texts, retrieval, zero_shot_classifier

HANDWRITTEN_FOR_TRAINING = 1000  # of the 1,797 scans; probes are tested on the rest


@dataclass
class TaskResult:
    """How a zero-shot classifier did on a task.

    logits: (N, K) cosines times the logit scale
    ceiling: the best accuracy anybody could have, since some classes are drawn alike to the pixel
    """

    task: Task
    logits: torch.Tensor

    @property
    def predicted(self) -> np.ndarray:
        return self.logits.argmax(dim=1).numpy()

    @property
    def accuracy(self) -> float:
        return float((self.predicted == self.task.labels).mean())

    @property
    def ceiling(self) -> float:
        return ceiling(self.task.images, self.task.labels)


def evaluate_task(model: CLIP, tokenizer: CLIPTokenizer, task: Task) -> TaskResult:
    """Classify the task's pictures by its class names alone. Raises MinclipError for features that are not finite."""
    classifier = zero_shot_classifier(model, tokenizer, task.class_names, task.templates)
    features = encode_pictures(model, task.images)
    return TaskResult(task, check_finite(model.logit_scale.detach().exp() * features @ classifier).cpu())


def evaluate_tasks(model: CLIP, tokenizer: CLIPTokenizer, tasks: dict[str, Task]) -> dict[str, TaskResult]:
    """`evaluate_task` for each, under a progress bar."""
    progress = tqdm(tasks.items(), desc="zero-shot", unit="task", leave=False)
    return {name: evaluate_task(model, tokenizer, task) for name, task in progress}


def evaluate_retrieval(model: CLIP, tokenizer: CLIPTokenizer, atlas: Atlas) -> dict[str, float]:
    """Recall both ways among painted pairs, one of each name that was never trained on."""
    pairs = GlyphPairs(atlas.unseen_names(), Paint())
    images, captions = pairs.batch(len(pairs))
    image_features = encode_images(model, preprocess(images, model.config))
    return {"candidates": len(pairs), **retrieval(image_features, encode_texts(model, tokenizer, captions))}


def probe_handwriting(model: CLIP, seed: int = 0) -> dict[str, float]:
    """Handwritten digits by a linear probe on the model's features, and by one on the raw 8 x 8 pixels."""
    digits = load_digits()
    images = handwritten_digits(model.config.image_resolution).images
    train, test = train_test_split(
        np.arange(len(images)), train_size=HANDWRITTEN_FOR_TRAINING, stratify=digits.target, random_state=seed
    )
    accuracy = {}
    for name, features in (
        ("linear_probe", probe_features(model, preprocess(images, model.config))),
        ("raw_pixels", digits.data),
    ):
        probe = linear_probe(features[train], digits.target[train], features[test], digits.target[test], seed=seed)
        accuracy[name] = probe.accuracy
    return accuracy


def evaluate_glyphs(model: CLIP, tokenizer: CLIPTokenizer, atlas: Atlas) -> tuple[dict, dict[str, TaskResult]]:
    """Everything: -> the figures as plain data (`zero_shot`, `chance`, `ceiling`, `retrieval`,
    `linear_probe`, `raw_pixels`; accuracies in [0, 1]), and each task's result in full."""
    results = evaluate_tasks(model, tokenizer, glyph_tasks(atlas))
    figures = {
        "zero_shot": {name: result.accuracy for name, result in results.items()},
        "chance": {name: result.task.chance for name, result in results.items()},
        "ceiling": {name: result.ceiling for name, result in results.items()},
        "retrieval": evaluate_retrieval(model, tokenizer, atlas),
        **probe_handwriting(model),
    }
    return figures, results


def figures_as_text(figures: dict) -> str:
    """The tables that the command line prints."""
    lines = [f"{'zero-shot task':<26}{'accuracy':>9}{'chance':>9}{'ceiling':>9}"]
    for name, accuracy in figures["zero_shot"].items():
        lines.append(f"{name:<26}{accuracy:>9.1%}{figures['chance'][name]:>9.1%}{figures['ceiling'][name]:>9.1%}")
    recalls = figures["retrieval"]
    lines += ["", f"{'retrieval among ' + str(recalls['candidates']):<26}{'R@1':>9}{'R@5':>9}{'R@10':>9}"]
    for direction in ("image_to_text", "text_to_image"):
        row = "".join(f"{recalls[f'{direction}_R@{k}']:>9.1%}" for k in (1, 5, 10))
        lines.append(f"{direction.replace('_', ' '):<26}{row}")
    lines += ["", f"{'handwritten digits':<26}{'accuracy':>9}"]
    for name, accuracy in (
        ("zero-shot", figures["zero_shot"]["handwritten-digits"]),
        ("linear probe", figures["linear_probe"]),
        ("linear probe, raw pixels", figures["raw_pixels"]),
    ):
        lines.append(f"{name:<26}{accuracy:>9.1%}")
    return "\n".join(lines)
