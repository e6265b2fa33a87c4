"""Objectives (paper, section 2.3, Figure 2): what to ask of a picture that came with a caption.

The paper tried to predict captions word for word with a transformer, found that predicting their bag
of words reached the same zero-shot accuracy with a third of the pictures, and that matching captions,
still as bags of words, needed a quarter of those. "4x to 10x" is the wording of OpenAI's article.

Here one image encoder learns the glyphs by each of the three objectives, and by CLIP's own, which
matches captions read by a transformer. Each point of a curve is a run of its own, whose learning rate
has come down to zero. Each objective gets the learning rate that does best on validation names in a
sweep over the same values; bags of words the better of two vocabularies (word pieces, or whole words),
and captioning the better of two ways to score a class name. The factor is how many times the pictures the slower of two objectives needs to
get as far, on names that were never trained on; on most tasks a captioner is at chance after as many
pictures as we can afford. Notebook 08.
"""

import hashlib
import json
import math
import statistics
import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch

from .. import baselines
from ..baselines import BagOfWordsCLIP
from ..checkpoint import write_atomically
from ..clip import CLIP, CLIPConfig
from ..data.glyphs import Atlas, load_atlas
from ..data.images import preprocess
from ..data.painting import GlyphPairs
from ..data.tasks import NAMED, Task, glyph_tasks, validation_task
from ..measure import flops
from ..plots import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION
from ..tokenizer import CLIPTokenizer
from ..train import TrainConfig
from .common import Setting, claim, claims_as_text, percent, table, times


@dataclass(frozen=True)
class Objective:
    """A kind of model, its loss, and how it scores class names: (model, images, tokens) -> (N, K)."""

    kind: type[CLIP]
    loss: baselines.Objective
    scores: Callable
    colour: str
    marker: str


CAPTIONING, WORDS, BAGS, MATCHING = (
    "captioning", "bag-of-words prediction", "contrastive, bag of words", "contrastive, transformer",
)  # fmt: skip
OBJECTIVES = {
    CAPTIONING: Objective(CLIP, baselines.write_captions, baselines.caption_scores, BLUE, "s"),
    WORDS: Objective(BagOfWordsCLIP, baselines.predict_words, baselines.word_scores, ORANGE, "D"),
    BAGS: Objective(BagOfWordsCLIP, baselines.match_captions, baselines.similarities, GREEN, "o"),
    MATCHING: Objective(CLIP, baselines.match_captions, baselines.similarities, VERMILION, "^"),
}
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
PIECES, WHOLE = 1024, 4096  # most entries of a vocabulary; the second holds every word of the training captions
NAMES, PICTURES = 128, 2  # names of a task of held-out names, and pictures of each
LARGEST = 64  # classes of a task: a captioner reads every name anew for every picture


@dataclass(frozen=True)
class Recipe:
    """All that a run depends on, but for its seed."""

    objective: str
    images_seen: int
    lr: float
    vocabulary: int

    def config(self, vocab_size: int) -> CLIPConfig:
        return CLIPConfig(
            embed_dim=64, image_resolution=32, vision_layers=(1, 1, 1, 1), vision_width=8, vision_patch_size=None,
            vision_heads=4, context_length=48, vocab_size=vocab_size, transformer_width=64, transformer_heads=2,
            transformer_layers=1,
        )  # fmt: skip


# What the recorded sweep chose: learning rate and vocabulary. The quick scale takes it from here.
CHOSEN = {CAPTIONING: (1e-2, PIECES), WORDS: (3e-3, PIECES), BAGS: (1e-2, PIECES), MATCHING: (3e-3, PIECES)}
K = 1000  # pictures
LENGTHS = {CAPTIONING: (8, 32, 64), WORDS: (8, 16, 32), BAGS: (2, 4, 8, 16), MATCHING: (2, 4, 8, 16)}
QUICK = {CAPTIONING: (4, 16), WORDS: (8, 16), BAGS: (4, 8), MATCHING: (4, 8)}
SWEPT = {CAPTIONING: 16, WORDS: 16, BAGS: 8, MATCHING: 8}  # the slow ones show too little before


def some_names(task: Task, names: int = NAMES, pictures: int = PICTURES, seed: int = 0) -> Task:
    """The task of some of the classes, drawn at random, and of at most so many pictures of each."""
    draw = np.random.default_rng(seed)
    kept = draw.permutation(len(task.class_names))[:names]
    rows = [draw.permutation(np.flatnonzero(task.labels == old))[:pictures] for old in kept]
    labels = np.repeat(np.arange(len(kept)), [len(row) for row in rows])
    class_names = [task.class_names[old] for old in kept]
    return Task(task.name, task.images[np.concatenate(rows)], labels, class_names, task.templates, task.about)


def tests(atlas: Atlas) -> dict[str, Task]:
    """Held-out names to tune on and to report, and the tasks of lesson 06 with few enough classes."""
    tasks = glyph_tasks(atlas)
    chosen = {"validation-names": some_names(validation_task(atlas)), "unseen-names": some_names(tasks["unseen-names"])}
    small = [name for name in NAMED if len(tasks[name].class_names) <= LARGEST]
    return chosen | {name: some_names(tasks[name], pictures=1) for name in small}


def accuracies(objective: Objective, model: CLIP, tokenizer: CLIPTokenizer, task: Task) -> dict[str, float]:
    """By the bare class names: {way to score: accuracy}. A long caption is less likely than a short one, so
    log-probabilities can be divided by the number of tokens, too; nothing else has two ways."""
    device = model.logit_scale.device
    tokens, labels = tokenizer(task.class_names).to(device), torch.from_numpy(task.labels).to(device)
    scores = objective.scores(model, preprocess(task.images, model.config).to(device), tokens)
    ways = {"whole": scores}
    if objective.scores is baselines.caption_scores:
        ways["per token"] = scores / tokens.argmax(dim=1)
    return {way: (found.argmax(dim=1) == labels).float().mean().item() for way, found in ways.items()}


def training_flops(objective: Objective, model: CLIP, tokenizer: CLIPTokenizer, pairs: GlyphPairs) -> float:
    """FLOPs of forward and backward a picture."""
    images, captions = pairs.batch(256)
    images, tokens = preprocess(images, model.config), tokenizer(captions).to(images.device)
    return flops(lambda: objective.loss(model, images, tokens).backward()) / len(images)


class Laboratory:
    """Trains and tests; keeps each run's figures in a file, so that a killed experiment goes on."""

    def __init__(self, setting: Setting):
        self.folder, self.device, self.trained, self.found = setting.runs / "objectives", setting.device, 0, 0
        atlas = load_atlas()
        self.pairs = GlyphPairs(atlas.training(), device=self.device)
        self.tests, self.tokenizers = tests(atlas), {}

    def tokenizer(self, vocabulary: int) -> CLIPTokenizer:
        if vocabulary not in self.tokenizers:
            captions = [*self.pairs.names, *self.pairs.captions(20_000)]
            self.tokenizers[vocabulary] = CLIPTokenizer.train(captions, vocabulary, 48)
        return self.tokenizers[vocabulary]

    def measure(self, recipe: Recipe, seed: int, tasks: list[str]) -> dict:
        """-> {"accuracy": {task: {way: share}}, "flops": of the whole training, "loss": at its end}"""
        # What a run depends on, as a name for its file.
        about = json.dumps([asdict(recipe), asdict(recipe.config(recipe.vocabulary)), seed, tasks]).encode()
        path = self.folder / f"{hashlib.sha256(about).hexdigest()[:12]}.json"
        if path.exists():
            self.found += 1
            return json.loads(path.read_text())
        self.trained += 1
        objective, tokenizer = OBJECTIVES[recipe.objective], self.tokenizer(recipe.vocabulary)
        torch.manual_seed(seed)
        model = objective.kind(recipe.config(tokenizer.vocab_size)).to(self.device)
        config = TrainConfig(images_seen=recipe.images_seen, batch_size=64, lr=recipe.lr, seed=seed)
        losses = baselines.train(model, objective.loss, tokenizer, self.pairs, config)
        found = {
            "accuracy": {name: accuracies(objective, model, tokenizer, self.tests[name]) for name in tasks},
            "flops": training_flops(objective, model, tokenizer, self.pairs) * recipe.images_seen,
            "loss": statistics.fmean(losses[-50:]),
        }
        write_atomically(path, lambda file: file.write(json.dumps(found).encode()))
        return found


def sweep(laboratory: Laboratory) -> list[dict]:
    """Each objective with each learning rate, bags of words with both vocabularies, on validation names."""
    runs = []
    for name, objective in OBJECTIVES.items():
        for vocabulary in (PIECES, WHOLE) if objective.kind is BagOfWordsCLIP else (PIECES,):
            for lr in RATES:
                found = laboratory.measure(Recipe(name, SWEPT[name] * K, lr, vocabulary), 0, ["validation-names"])
                for way, accuracy in found["accuracy"]["validation-names"].items():
                    runs.append(dict(objective=name, lr=lr, vocabulary=vocabulary, way=way, accuracy=accuracy))
    return runs


def pictures_needed(seen: list[float], accuracy: list[float], level: float) -> float:
    """Pictures after which a curve first reaches the level, straight between points over log(pictures).

    A curve that begins above the level needed no more than its first point; nan if it never gets there.
    """
    if accuracy[0] >= level:
        return seen[0]
    for (a, before), (b, after) in zip(zip(seen, accuracy), zip(seen[1:], accuracy[1:])):
        if after >= level:
            return math.exp(math.log(a) + (level - before) / (after - before) * math.log(b / a))
    return math.nan


def factor(slow: tuple[list, list], fast: tuple[list, list]) -> float:
    """How many times the pictures `slow` needs, to get as far as both get. Each: (pictures, accuracies).

    Less than 1 where `slow` is the faster one.
    """
    level = min(max(slow[1]), max(fast[1]))
    return pictures_needed(*slow, level) / pictures_needed(*fast, level)


# The slower, the faster, and how many times the pictures the paper's slower one needed.
PAIRS = {
    "a bag of words for captioning": (CAPTIONING, WORDS, 3),
    "contrast for prediction": (WORDS, BAGS, 4),
    "both": (CAPTIONING, BAGS, 12),
    "a bag of words for a transformer": (MATCHING, BAGS, None),
}


def factors(curves: dict, seeds: int, along: str) -> dict[str, list[float]]:
    """-> {what is put for what: a factor for each seed}, on names never seen, in pictures or FLOPs."""

    def curve(name: str, seed: int) -> tuple[list, list]:
        points = [p for p in curves[name] if p["seed"] == seed]
        return [p[along] for p in points], [p["unseen names"] for p in points]

    return {what: [factor(curve(a, s), curve(b, s)) for s in range(seeds)] for what, (a, b, _) in PAIRS.items()}


def shared_bags(class_names: list[str]) -> int:
    """How many of the names have the same words as another, in another order: a bag cannot tell them apart."""
    bags = Counter(tuple(sorted(name.replace("-", " ").split())) for name in class_names)
    return sum(count for count in bags.values() if count > 1)


def run(setting: Setting) -> dict:
    """-> the sweep, what it chose, a curve for each objective, factors a seed, and the claims."""
    laboratory = Laboratory(setting)
    quick = setting.scale == "quick"
    swept, chosen, ways = [], dict(CHOSEN), dict.fromkeys(OBJECTIVES, "whole")
    if not quick:
        swept = sweep(laboratory)
        for name in OBJECTIVES:
            best = max((r for r in swept if r["objective"] == name), key=lambda r: r["accuracy"])
            chosen[name], ways[name] = (best["lr"], best["vocabulary"]), best["way"]
    seen_names = [name for name in laboratory.tests if name in NAMED]
    curves: dict[str, list[dict]] = {name: [] for name in OBJECTIVES}
    for seed in range(setting.seeds):
        for name in OBJECTIVES:
            for thousands in (QUICK if quick else LENGTHS)[name]:
                recipe = Recipe(name, thousands * K, *chosen[name])
                found = laboratory.measure(recipe, seed, ["unseen-names", *seen_names])
                share = {task: by_way[ways[name]] for task, by_way in found["accuracy"].items()}
                curves[name].append({
                    "seed": seed, "pictures": recipe.images_seen, "flops": found["flops"], "loss": found["loss"],
                    "unseen names": share["unseen-names"],
                    "tasks": statistics.fmean(share[task] for task in seen_names),
                })  # fmt: skip
    results = {
        "sweep": swept, "chosen": chosen, "ways": ways, "curves": curves, "tasks": len(seen_names),
        "chance": {"unseen names": 1 / NAMES, "tasks": statistics.fmean(laboratory.tests[t].chance for t in seen_names)},
        "factors": {along: factors(curves, setting.seeds, along) for along in ("pictures", "flops")},
        "runs": {"trained": laboratory.trained, "found from before": laboratory.found},
        "shared_bags": {t: shared_bags(laboratory.tests[t].class_names) for t in laboratory.tests},
    }  # fmt: skip
    return results | {"claims": claims(results)}


def claims(results: dict) -> list[dict]:
    def measured(what: str) -> str:
        return f"{times(results['factors']['pictures'][what])}x; in FLOPs {times(results['factors']['flops'][what])}x"

    return [
        claim("predicting a bag of words needs fewer pictures than captioning", "3x", measured("a bag of words for captioning")),
        claim("matching bags of words needs fewer pictures than predicting them", "4x", measured("contrast for prediction")),
        claim("matching bags of words needs fewer pictures than captioning", "12x", measured("both")),
    ]  # fmt: skip


def as_text(results: dict) -> str:
    """What was chosen, a line for each point of each curve, then the claims."""
    rows = []
    for name, points in results["curves"].items():
        lr, vocabulary = results["chosen"][name]
        for pictures in sorted({p["pictures"] for p in points}):
            of = [p for p in points if p["pictures"] == pictures]
            rows.append((name, f"{lr:g}", f"{vocabulary:,}", f"{pictures:,}", f"{of[0]['flops'] / 1e12:.2f}",
                         percent([p["tasks"] for p in of]), percent([p["unseen names"] for p in of])))  # fmt: skip
    header = ("objective", "lr", "vocabulary", "pictures", "TFLOPs", f"{results['tasks']} tasks", "unseen names")
    return table(header, rows) + "\n\n" + claims_as_text(results["claims"])


def plot(results: dict) -> None:
    """Zero-shot accuracy against pictures seen and against training FLOPs, and the factors beside the paper's."""
    figure, (*axes, right) = plt.subplots(1, 3, figsize=(12, 4), width_ratios=(1, 1, 0.9))
    for ax, along in zip(axes, ("pictures", "flops")):
        for name, points in results["curves"].items():
            places = sorted({p[along] for p in points})
            values = [[100 * p["unseen names"] for p in points if p[along] == place] for place in places]
            error = [np.std(v, ddof=1) if len(v) > 1 else 0 for v in values]
            objective = OBJECTIVES[name]
            scaled = [place / (K if along == "pictures" else 1e12) for place in places]
            ax.errorbar(scaled, [np.mean(v) for v in values], error, capsize=3, label=name, color=objective.colour,
                        marker=objective.marker)  # fmt: skip
        ax.axhline(100 * results["chance"]["unseen names"], color=GREY, linestyle="--", linewidth=1)
        ax.set_xscale("log")
        ax.set(ylim=(0, None), xlabel="pictures seen, thousands" if along == "pictures" else "training FLOPs, 10¹²")
        ticks = [2, 4, 8, 16, 32, 64] if along == "pictures" else [0.02, 0.05, 0.1, 0.2, 0.5, 1]
        ax.set_xticks(ticks, ticks)
        ax.minorticks_off()
    axes[0].set_ylabel("accuracy on names never seen, %\n(dashes: chance)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
    for place, (what, (*_, paper)) in enumerate(PAIRS.items()):
        found = results["factors"]["pictures"][what]
        mean = statistics.geometric_mean(found)
        below, above = max(0, mean - min(found)), max(0, max(found) - mean)  # of one seed both are 0, but for rounding
        right.errorbar(mean, place, xerr=[[below], [above]], color=BLACK, marker="o", capsize=4,
                       label=None if place else "here: mean and range of seeds")  # fmt: skip
        if paper is not None:
            right.plot(paper, place, color=PURPLE, marker="*", markersize=13, linestyle="",
                       label=None if place else "the paper, on ImageNet")  # fmt: skip
    right.axvline(1, color=GREY, linestyle="--", linewidth=1)
    right.set_xscale("log")
    right.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"], minor=False)
    right.minorticks_off()
    right.set_yticks(range(len(PAIRS)), [textwrap.fill(what, 16) for what in PAIRS])
    right.set(xlim=(0.8, 20), ylim=(len(PAIRS) - 0.5, -0.5), xlabel="times fewer pictures")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right")
