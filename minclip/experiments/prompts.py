"""Prompts (paper, section 3.1.4): what the words around a class name, and the name itself, are worth.

The paper found "A photo of a {label}." worth 1.3 points on ImageNet and 80 templates, averaged in
embedding space, 3.5 more; editing class names is worth some 1.5 more in OpenAI's notebook. Here each
of the glyph world's tasks is classified with the bare class names, with one template, with ensembles
of a few and of many, and with its classes called by other names.

A template should help because captions in the wild are sentences, so that a bare word is a text the
model hardly knows. Most captions of the demo's recipe are bare names. So the explanation can be put
to the test: a model is trained on captions that always say more. Notebook 06.
"""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

from ..data.glyphs import load_atlas
from ..data.images import preprocess
from ..data.painting import BARE, STYLED, Paint
from ..data.tasks import NAMED, PLAIN, Task, glyph_tasks
from ..plots import BLUE, ORANGE
from ..presets import find_preset
from ..zeroshot import accuracy, encode_images, zero_shot_classifier
from .common import Setting, claim, claims_as_text, percent, spread, table, trained_model, trained_models

STYLES, TYPEFACES = ("regular", "bold", "italic", "bold italic"), ("dejavu sans", "dejavu serif", "stix")


def many_templates() -> tuple[str, ...]:
    """Wordings of the training captions that a black glyph on white can have, with three of their six typefaces."""
    wordings = {
        wording.format(name="{}", style=style, typeface=typeface)
        for wording in (BARE, *STYLED)
        for style in STYLES
        for typeface in TYPEFACES
    }
    return tuple(sorted(wordings))


TEMPLATES = {
    "the bare name": ("{}",),
    "one template": (PLAIN[1],),
    "three templates": PLAIN,
    "many templates": many_templates(),
    "words never trained on": ("a low resolution photo of the {}.",),
}


def last_words(name: str) -> str:
    """What sets a name apart: "greek small letter alpha" -> "alpha", "digit one" -> "one"."""
    return name.split(" letter ")[-1].removeprefix("digit ")


def turned_round(name: str) -> str:
    """The same words in an order that Unicode does not use: "alpha greek small letter"."""
    words = name.split()
    return " ".join(words[-1:] + words[:-1])


def shouted(name: str) -> str:
    """Capitals, which the tokenizer does not see."""
    return name.upper()


RENAMINGS = {"last words": last_words, "turned round": turned_round, "in capitals": shouted}


def task_accuracy(model, tokenizer, features: torch.Tensor, task: Task, class_names, templates) -> float:
    """Zero-shot accuracy of pictures already embedded, the task's classes called `class_names`."""
    classifier = zero_shot_classifier(model, tokenizer, class_names, templates)
    return accuracy(features, classifier, torch.from_numpy(task.labels))


def measure(model, tokenizer, tasks: dict[str, Task]) -> dict[str, dict[str, float]]:
    """-> {way of naming: {task: accuracy in [0, 1]}} for one model.

    The last way gives each class another class's name, drawn at random: what a name is worth is lost.
    """
    results: dict[str, dict[str, float]] = {way: {} for way in (*TEMPLATES, *RENAMINGS, "names exchanged")}
    for name, task in tqdm(tasks.items(), desc="tasks", unit="task", leave=False):
        features = encode_images(model, preprocess(task.images, model.config))
        for way, templates in TEMPLATES.items():
            results[way][name] = task_accuracy(model, tokenizer, features, task, task.class_names, templates)
        for way, rename in RENAMINGS.items():
            renamed = [rename(class_name) for class_name in task.class_names]
            results[way][name] = task_accuracy(model, tokenizer, features, task, renamed, PLAIN)
        exchanged = np.random.default_rng(0).permutation(task.class_names).tolist()
        results["names exchanged"][name] = task_accuracy(model, tokenizer, features, task, exchanged, PLAIN)
    return results


def wordy_models(setting: Setting):
    """Models of the same recipe, shorter, whose captions never were the bare name."""
    preset = find_preset("cpu")
    seen = 20_000 if setting.scale == "quick" else 75_000
    preset = replace(
        preset, paint=Paint(described=1.0, colours_named=1.0), train=replace(preset.train, images_seen=seen)
    )
    return (trained_model(preset, seed, setting) for seed in range(setting.seeds))


def mean_over_tasks(accuracies: list[dict[str, dict[str, float]]]) -> dict[str, list[float]]:
    """-> {way of naming: a mean for each seed}."""
    return {way: [float(np.mean(list(of_seed[way].values()))) for of_seed in accuracies] for way in accuracies[0]}


def run(setting: Setting) -> dict:
    """-> accuracies (one dictionary a seed), their means over tasks, the same of wordy models, and the claims."""
    tasks = {name: task for name, task in glyph_tasks(load_atlas()).items() if name in NAMED}
    accuracies = [measure(model, tokenizer, tasks) for model, tokenizer in trained_models(setting)]
    wordy = [measure(model, tokenizer, tasks) for model, tokenizer in wordy_models(setting)]
    means, wordy_means = mean_over_tasks(accuracies), mean_over_tasks(wordy)

    def gain(after: str, before: str, means: dict = means) -> str:
        return spread([100 * (b - a) for a, b in zip(means[before], means[after])], "+.1f") + " points"

    claims = [
        claim("one template beats the bare class name", "+1.3 points on ImageNet",
              f"{gain('one template', 'the bare name')}; trained on captions that always say more than the name: "
              + gain("one template", "the bare name", wordy_means)),
        claim("an ensemble of templates beats one", "+3.5 points on ImageNet, 80 templates",
              gain("many templates", "one template") + f", {len(TEMPLATES['many templates'])} templates"),
        claim("how classes are called matters", "+1.5 points by editing names",
              f"calling a class by its last words alone {gain('last words', 'three templates')}"),
    ]  # fmt: skip
    return {"accuracies": accuracies, "means": means, "wordy_means": wordy_means, "claims": claims}


def as_text(results: dict) -> str:
    """A line for each way of naming, then the claims."""
    rows = [(way, percent(shares), percent(results["wordy_means"][way])) for way, shares in results["means"].items()]
    header = ("classes named by", "mean accuracy", "trained on longer captions")
    return table(header, rows) + "\n\n" + claims_as_text(results["claims"])


def plot(results: dict) -> None:
    """Mean accuracy for each way of naming the classes, of models raised on bare names and on longer captions."""
    ways = list(results["means"])[::-1]
    ax = plt.subplots(figsize=(8, 4.6))[1]
    for means, colour, raised, shift in (
        (results["means"], BLUE, "trained mostly on bare names", 0.19),
        (results["wordy_means"], ORANGE, "never trained on a bare name, and on fewer pictures", -0.19),
    ):
        center = [100 * np.mean(means[way]) for way in ways]
        error = [100 * np.std(means[way], ddof=1) if len(means[way]) > 1 else 0 for way in ways]
        ax.barh(np.arange(len(ways)) + shift, center, 0.36, xerr=error, color=colour, label=raised)
    ax.set_yticks(range(len(ways)), ways)
    ax.set(xlabel="zero-shot accuracy, mean over tasks, %", title="What the words around a class name are worth")
    ax.grid(axis="y", visible=False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, -0.14), ncols=2)
