"""Where generalisation ends (paper, section 6): pictures unlike the training data.

The paper's zero-shot CLIP reads rendered text well and handwritten digits (MNIST) at 88%, below logistic
regression on raw pixels: it had seen next to nothing like them. Large data do not generalise further; they
make more of the world part of the training data.

Distance. Digits printed in the faces trained on, in a typeface held out, in outline, and by hand, classified by
names, by a probe fitted to printed digits, and by logistic regression on the pixels of the same; then by both
fitted to handwriting itself. (The names of three digits, zero, two and seven, are held out of training.) Kind.
Emoji, where the system has a colour font, and photographs, where labelled ones are given, by names; photographs
by both fits, too. Rarity. Which unseen names are wrong, by how often the rarest of their words occurs among the
training names. Notebook 11.
"""

import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.font_manager
import matplotlib.pyplot as plt
import numpy as np
from einops import rearrange
from sklearn.model_selection import train_test_split

from ..clip import CLIP
from ..data.glyphs import Atlas, load_atlas
from ..data.hub import load_pictures
from ..data.images import preprocess
from ..data.shifts import PRINT, outlined, painted_task
from ..data.sources import captions_of
from ..data.tasks import PLAIN, Task, glyph_tasks, named_task
from ..errors import MinclipError
from ..evaluation import HANDWRITTEN_FOR_TRAINING, TaskResult, evaluate_task
from ..plots import BLUE, GREY, ORANGE
from ..probe import linear_probe, probe_features
from ..tokenizer import CLIPTokenizer
from .common import Setting, claim, claims_as_text, percent, table, trained_models

EACH = 32  # painted pictures of each printed digit
PHOTOGRAPHS = {"train": 5_000, "test": 10_000}  # at most, to fit to and to test on
RARITY = (0, 3, 10, 30, 100, 10_000)  # training names that hold a name's rarest word: edges of the bins


def digit_domains(atlas: Atlas, seed: int) -> tuple[dict[str, Task], dict[str, Task]]:
    """-> what to fit to, {"print", "handwriting"}, and what to test on, from near to far; no picture in both."""
    digits = atlas.select(np.array([name.startswith("digit ") for name in atlas.name]))
    known, unknown = digits.select(~digits.of_faces("unseen")), digits.select(digits.of_faces("unseen"))
    hands = glyph_tasks(atlas)["handwritten-digits"]
    fit_to, rest = train_test_split(
        np.arange(len(hands)), train_size=HANDWRITTEN_FOR_TRAINING, stratify=hands.labels, random_state=seed
    )
    fits = {
        "print": painted_task("print", known, EACH, "printed digits", PRINT, 2 * seed + 1),
        "handwriting": hands.select(fit_to),
    }
    tests = {
        "print, faces trained on": painted_task("print", known, EACH, "printed digits", PRINT, 2 * seed),
        "a typeface held out": painted_task("held out", unknown, EACH, "printed digits", PRINT, 2 * seed),
        "outlines": painted_task("outlines", outlined(known), EACH, "outlined digits", PRINT, 2 * seed),
        "handwriting": hands.select(rest),
    }
    return fits, tests


def named_labels(task: Task) -> np.ndarray:
    """(N,) str: tasks number their classes in different orders."""
    return np.array(task.class_names)[task.labels]


def pixels(model: CLIP, task: Task) -> np.ndarray:
    """(N, S * S) grey levels in [0, 1]: what needs no model."""
    return task.images.mean(axis=-1).reshape(len(task), -1) / 255


def features(model: CLIP, task: Task) -> np.ndarray:
    return probe_features(model, preprocess(task.images, model.config))


def by_distance(model: CLIP, tokenizer: CLIPTokenizer, atlas: Atlas, seed: int) -> dict[str, dict[str, float]]:
    """-> {way of classifying: {domain: accuracy}}."""
    fits, tests = digit_domains(atlas, seed)
    accuracy = {"zero-shot": {name: evaluate_task(model, tokenizer, task).accuracy for name, task in tests.items()}}
    for fitted, task in fits.items():
        for what, read in (("probe", features), ("pixels", pixels)):
            on = {name: test for name, test in tests.items() if fitted == "print" or name == "handwriting"}
            given, labels = read(model, task), named_labels(task)
            accuracy[f"{what} fitted to {fitted}"] = {
                name: float(linear_probe(given, labels, read(model, test), named_labels(test), seed=seed).accuracy)
                for name, test in on.items()
            }
    return accuracy


def rarest_word(names: list[str], training_names: list[str]) -> np.ndarray:
    """(K,) for each name how many training names hold its rarest word."""
    counts = Counter(word for name in training_names for word in set(name.split()))
    return np.array([min(counts[word] for word in name.split()) for name in names])


def by_rarity(result: TaskResult, rarity: np.ndarray) -> list[dict[str, float]]:
    """For each bin of RARITY: the share of the pictures whose names fall into it, their accuracy, and the
    share of all errors that are theirs."""
    right = result.predicted == result.task.labels
    of_picture = np.digitize(rarity[result.task.labels], RARITY[1:])
    return [
        {
            "pictures": float((of_picture == b).mean()),
            "accuracy": float(right[of_picture == b].mean()) if (of_picture == b).any() else float("nan"),
            "errors": float((of_picture[~right] == b).mean()),
        }
        for b in range(len(RARITY) - 1)
    ]


def emoji_task(size: int) -> Task | None:
    """The system's coloured emoji, each by its name; None where it has no such font."""
    found = [Path(path) for path in matplotlib.font_manager.findSystemFonts() if "emoji" in Path(path).name.lower()]
    for font in sorted(found):
        with TemporaryDirectory() as folder:
            shutil.copy(font, folder)
            glyphs = load_atlas(size, folder)
        coloured = glyphs.select(np.array(list(glyphs.colour), dtype=np.int64))
        if len(coloured):
            return named_task("emoji", coloured, f"drawn by {font.stem}")
    return None


def photograph_tasks(source: str, size: int) -> tuple[Task, Task]:
    """-> what to fit to and what to test on, its splits "train" and "test"; the classes are its captions or labels.

    Raises MinclipError where the source cannot be opened, or has more classes than a probe can be fitted to.
    """
    parts = {split: load_pictures(source, split, resolution=size) for split in PHOTOGRAPHS}
    texts, label_names = parts["train"].texts, parts["train"].label_names
    names = sorted({name.lower() for text in texts for name in captions_of(text, label_names)})
    if not 2 <= len(names) <= len(texts) / 10:
        raise MinclipError(
            f"{source} names {len(names):,} classes on {len(texts):,} training pictures. Give photographs of two classes "
            "or more, with ten of each, and a class's name as the caption or label of each."
        )
    tasks = []
    for split, most in PHOTOGRAPHS.items():
        places, labels = parts[split].labels(names)
        some = np.random.default_rng(0).permutation(len(places))[:most]
        images = rearrange(parts[split].images[places[some]], "b c h w -> b h w c").numpy()
        tasks.append(Task("photographs", images, labels[some], names, PLAIN, f"from {source}"))
    return tasks[0], tasks[1]


def by_kind(model: CLIP, tokenizer: CLIPTokenizer, fit_to: Task, task: Task, seed: int) -> dict[str, float]:
    """-> {way of classifying: accuracy}, of photographs."""
    accuracy = {"zero-shot": evaluate_task(model, tokenizer, task).accuracy}
    for what, read in (("probe", features), ("pixels", pixels)):
        probe = linear_probe(read(model, fit_to), fit_to.labels, read(model, task), task.labels, seed=seed)
        accuracy[what] = float(probe.accuracy)
    return accuracy


def run(setting: Setting) -> dict:
    """-> for each model accuracy by distance, by rarity, on emoji and on photographs, where there are any, and claims."""
    atlas = load_atlas()
    unseen, emoji = named_task("unseen-names", atlas.unseen_names(), ""), emoji_task(atlas.size)
    photographs = photograph_tasks(setting.photographs, atlas.size) if setting.photographs else None
    rarity = rarest_word(unseen.class_names, np.unique(atlas.training().name).tolist())
    models = [
        {
            "distance": by_distance(model, tokenizer, atlas, seed),
            "rarity": by_rarity(evaluate_task(model, tokenizer, unseen), rarity),
            "emoji": emoji and evaluate_task(model, tokenizer, emoji).accuracy,
            "photographs": photographs and by_kind(model, tokenizer, *photographs, seed),
        }
        for seed, (model, tokenizer) in enumerate(trained_models(setting))
    ]

    def at(way: str, domain: str) -> str:
        return percent([model["distance"][way][domain] for model in models])

    def photographed(way: str) -> str:
        return percent([model["photographs"][way] for model in models])

    rare = [sum(b["errors"] for b in model["rarity"][:2]) for model in models]
    seldom = sum(b["pictures"] for b in models[0]["rarity"][:2])
    claims = [
        claim("zero-shot ends where the data end", "MNIST 88.4% zero-shot, 92.5% by raw pixels, 99.2% probe",
              f"digits in print {at('zero-shot', 'print, faces trained on')}, handwritten {at('zero-shot', 'handwriting')}; "
              f"fitted to handwriting: pixels {at('pixels fitted to handwriting', 'handwriting')}, probe "
              f"{at('probe fitted to handwriting', 'handwriting')}"),
        claim("and so does a probe that saw print alone", "not measured",
              f"fitted to print, read on handwriting: probe {at('probe fitted to print', 'handwriting')}, pixels "
              f"{at('pixels fitted to print', 'handwriting')}"),
        claim("what was rare in training is where it fails", "not measured",
              f"names with a word of fewer than {RARITY[2]} training names are {seldom:.0%} of the test and "
              f"{percent(rare)} of the errors"),
    ]  # fmt: skip
    results = {"models": models}
    if emoji is not None:
        results["emoji_classes"] = len(emoji.class_names)
        measured = percent([model["emoji"] for model in models])
        claims.append(claim("drawings of another kind are hardly named", "not measured",
                            f"emoji by their names {measured} of {len(emoji):,}, chance {emoji.chance:.2%}"))  # fmt: skip
    if photographs is not None:
        task = photographs[1]
        results["photographs"] = {"pictures": len(task), "classes": len(task.class_names), "chance": task.chance}
        claims.append(claim("and photographs not at all", "CLIP was trained on them",
                            f"{len(task):,} photographs in {len(task.class_names)} classes {photographed('zero-shot')}, chance "
                            f"{task.chance:.0%}; fitted to {len(photographs[0]):,} others: probe {photographed('probe')}, "
                            f"pixels {photographed('pixels')}"))  # fmt: skip
    return {**results, "claims": claims}


def as_text(results: dict) -> str:
    """Accuracy by distance and by rarity, what was left out, and the claims."""
    models = results["models"]
    domains = list(models[0]["distance"]["zero-shot"])
    rows = [
        (way, *(percent([m["distance"][way][d] for m in models]) if d in on else "" for d in domains))
        for way, on in models[0]["distance"].items()
    ]
    bins = [
        (f"{low} to {high - 1}" if high < RARITY[-1] else f"{low} and more",
         *(percent([m["rarity"][b][key] for m in models]) for key in ("pictures", "accuracy", "errors")))
        for b, (low, high) in enumerate(zip(RARITY, RARITY[1:]))
    ]  # fmt: skip
    header = ("training names with the rarest word", "of the pictures", "accuracy", "of the errors")
    left_out = {"emoji_classes": "Emoji are left out: no colour font was found on this system.",
                "photographs": "Photographs are left out: --photographs was not given."}  # fmt: skip
    notes = [note for key, note in left_out.items() if key not in results]
    return "\n\n".join(
        [table(("digits", *domains), rows), table(header, bins), *notes, claims_as_text(results["claims"])]
    )


def plot(results: dict) -> None:
    """Accuracy on four kinds of digits, on names by how common their rarest word is, and on other kinds."""
    others = "emoji_classes" in results or "photographs" in results
    _, (left, right, *last) = plt.subplots(
        1, 2 + others, figsize=(12.5 + 4 * others, 4.3), width_ratios=(1.25, 1, 0.8)[: 2 + others]
    )
    models = results["models"]
    domains = list(models[0]["distance"]["zero-shot"])
    colours = {"zero-shot": BLUE, "probe": ORANGE, "pixels": GREY}
    for way, on in models[0]["distance"].items():
        values = 100 * np.array([[m["distance"][way][d] for d in on] for m in models])
        error = values.std(axis=0, ddof=1) if len(values) > 1 else None
        places = [domains.index(d) for d in on]
        marker, line = ("*", "none") if "to handwriting" in way else ("o", "-")
        left.errorbar(places, values.mean(axis=0), yerr=error, color=colours[way.split()[0]], marker=marker,
                      markersize=12 if marker == "*" else 6, linestyle=line, label=way)  # fmt: skip
    left.set_xticks(range(len(domains)), [d.replace(" ", "\n", 1) for d in domains])
    left.set(ylabel="accuracy on digits, %", ylim=(0, 103), title="Digits unlike those of the training")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    values = 100 * np.array([[b["accuracy"] for b in m["rarity"]] for m in models])
    error = values.std(axis=0, ddof=1) if len(values) > 1 else None
    right.bar(range(len(RARITY) - 1), values.mean(axis=0), yerr=error, color=BLUE, width=0.7)
    labels = [f"{low}–{high - 1}" if high < RARITY[-1] else f"{low}+" for low, high in zip(RARITY, RARITY[1:])]
    right.set_xticks(range(len(labels)), labels)
    right.set(xlabel="training names that hold the name's rarest word", ylabel="unseen names recognised, %",
              ylim=(0, 100), title="Rarer words, more errors")  # fmt: skip
    right.grid(axis="x", visible=False)
    if others:
        plot_other_kinds(results, last[0], colours)


def plot_other_kinds(results: dict, ax, colours: dict[str, str]) -> None:
    """Into one axis: accuracy on photographs by each way of classifying, and on emoji, beside chance."""
    models, bars = results["models"], []  # what is classified and how, the accuracies, chance, the colour
    if "photographs" in results:
        ways = [(way, [m["photographs"][way] for m in models]) for way in ("pixels", "probe", "zero-shot")]
        chance = results["photographs"]["chance"]
        bars += [(f"photographs\n{way}", shares, chance, colours[way]) for way, shares in ways]
    if "emoji_classes" in results:
        shares = [m["emoji"] for m in models]
        bars.append(("emoji\nzero-shot", shares, 1 / results["emoji_classes"], colours["zero-shot"]))
    for place, (_, shares, chance, colour) in enumerate(bars):
        error = 100 * np.std(shares, ddof=1) if len(shares) > 1 else None
        ax.barh(place, 100 * np.mean(shares), xerr=error, color=colour, height=0.6)
        ax.plot([100 * chance] * 2, [place - 0.38, place + 0.38], color="black", linewidth=1.5)
    ax.set_yticks(range(len(bars)), [name for name, *_ in bars])
    ax.set(xlabel="accuracy, % (black line: chance)", xlim=(0, 103), title="Pictures of another kind")
    ax.grid(axis="y", visible=False)
