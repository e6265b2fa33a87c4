"""Robustness (paper, section 3.3): what a benchmark foretells of a stress test, and for whom.

The paper found that ImageNet models lose far more under natural shifts than zero-shot CLIP does at the
same ImageNet accuracy: it closes up to 75% of the gap. Here the benchmark is 62 letters and digits
printed in one typeface. Supervised models, image encoders like CLIP's in several widths under a linear
head, learn it from pieces of its training pictures. Zero-shot CLIPs, of several lengths of training, are
told its classes by name alone; its typeface is one of the 16 faces they learned from, as the web that
CLIP read holds pictures like ImageNet's. All are scored on the benchmark and under its shifts.

The paper leaves open whether the names or the breadth of the pictures is what helps. Both can be had
apart: supervised models trained on the same classes in all of CLIP's 16 faces and its colours (broad,
without names), and CLIPs trained on the benchmark's typeface alone (names, without breadth). Notebook 10.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

from ..data import shifts
from ..data.glyphs import Atlas, load_atlas
from ..data.images import preprocess
from ..data.painting import GlyphPairs, Paint
from ..data.tasks import PLAIN, Task
from ..plots import BLUE, GREEN, GREY, ORANGE, VERMILION
from ..presets import find_preset
from ..pretrained import load
from ..robustness import expit, fit_line, gap_closed, logit, shifted_accuracy
from ..supervised import SupervisedClassifier, classify, fit_classifier
from ..train import TrainConfig
from ..zeroshot import encode_images, zero_shot_classifier
from .common import Setting, claim, claims_as_text, percent, table, trained_model, trained_on

EACH = 64  # training pictures of each class in the whole benchmark
# Streams of paint that the benchmark and its shifts have not: a picture of the same glyph, painted by the same
# random numbers, would be in training and test alike.
BROAD, POOL = 1_000_000, 2_000_000
NATURAL = ("new-typeface", "outlines", "handwriting", "hard, picked by a supervised model", "hard, picked by a CLIP")
SHIFTS = (*NATURAL, "corruption")
GROUPS = {  # name: colour, marker
    "supervised": (BLUE, "o"),
    "zero-shot CLIP": (VERMILION, "*"),
    "supervised, broad pictures": (GREEN, "s"),
    "CLIP, narrow pictures": (ORANGE, "D"),
}


@dataclass(frozen=True)
class Sizes:
    """How much is trained.

    widths, pieces: of the supervised models, and the training pictures of each class they are given
    pictures: that each supervised model sees, over and over again
    lengths: pictures seen by the zero-shot CLIPs, beside the whole length of the preset
    narrow: pictures seen by the narrow ones: the preset's length, too, so that nothing but the pictures differs
    """

    widths: tuple[int, ...] = (4, 8, 16)
    pieces: tuple[int, ...] = (4, 16, EACH)
    pictures: int = 12_800
    lengths: tuple[int, ...] = (9_600, 24_000)
    narrow: int = 150_000


QUICK = Sizes(widths=(4, 8), pieces=(8, EACH), pictures=9_600, lengths=(), narrow=19_200)


@dataclass(frozen=True)
class Model:
    """One model to score: (N, 3, S, S) uint8 -> (N, K) logits of the benchmark's classes."""

    group: str
    about: str
    logits_of: Callable[[torch.Tensor], torch.Tensor]


def zero_shot(group: str, about: str, model, tokenizer, class_names: list[str]) -> Model:
    """A CLIP that is told the benchmark's classes by name."""
    classifier = zero_shot_classifier(model, tokenizer, class_names, PLAIN)
    return Model(group, about, lambda images: encode_images(model, preprocess(images, model.config)) @ classifier)


def supervised(group: str, about: str, task: Task, width: int, sizes: Sizes, device: torch.device, seed: int) -> Model:
    """A model trained on a task's pictures and labels."""
    torch.manual_seed(seed)
    model = SupervisedClassifier(len(task.class_names), width).to(device)
    config = TrainConfig(images_seen=sizes.pictures, batch_size=64, lr=3e-3, seed=seed)
    fit_classifier(model, shifts.as_tensor(task), torch.from_numpy(task.labels), config)
    return Model(group, about, lambda images: classify(model, images))


def supervised_models(training: Task, broad: Task, sizes: Sizes, device: torch.device, seed: int) -> Iterator[Model]:
    """On pieces of the benchmark, and on as many pictures in every face and colour that CLIP saw."""
    classes = len(training.class_names)
    for width in sizes.widths:
        for each in sizes.pieces:  # dealt class by class, so that a piece has as many of each
            piece = training.select(slice(each * classes))
            yield supervised("supervised", f"width {width}, {each} a class", piece, width, sizes, device, seed)
        yield supervised("supervised, broad pictures", f"width {width}", broad, width, sizes, device, seed)


def zero_shot_models(atlas: Atlas, class_names: list[str], sizes: Sizes, setting: Setting, seed: int):
    """Along training, the last the best; and of the benchmark's typeface alone."""
    preset = find_preset("cpu")
    lengths = (*sizes.lengths, preset.train.images_seen)
    if setting.scale == "quick":
        yield zero_shot("zero-shot CLIP", "bundled", *load("glyphs-tiny", device=setting.device), class_names)
    else:
        for seen in lengths:
            recipe = replace(preset, train=replace(preset.train, images_seen=seen))
            pair = trained_model(recipe, seed, setting)
            yield zero_shot("zero-shot CLIP", f"{seen:,} pictures", *pair, class_names)
    recipe = replace(
        preset,
        paint=replace(preset.paint, coloured=0),
        train=replace(preset.train, images_seen=sizes.narrow, seed=seed),
    )
    pairs = GlyphPairs(shifts.in_typeface(atlas, shifts.TYPEFACE).training(), recipe.paint, setting.device)
    pair = trained_on(pairs, recipe, "narrow", setting)
    yield zero_shot("CLIP, narrow pictures", f"{sizes.narrow:,} pictures", *pair, class_names)


def stress_tests(
    atlas: Atlas, training: Task, home: Task, sizes: Sizes, device: torch.device, seed: int
) -> dict[str, dict[str, Task]]:
    """{shift: {task's name: task}}; those of hard examples are picked by models that are not compared."""
    natural = {name: {name: task} for name, task in shifts.natural_shifts(atlas).items()}
    pool = shifts.hard_pictures(atlas, seed=POOL)
    pickers = {
        NATURAL[3]: supervised("", "", training, sizes.widths[-1], sizes, device, seed + 1000),
        NATURAL[4]: zero_shot("", "", *load("glyphs-vit", device=device), training.class_names),
    }
    for name, picker in pickers.items():
        predicted = picker.logits_of(shifts.as_tensor(pool)).argmax(dim=1).cpu().numpy()
        natural[name] = {name: shifts.hard_examples(pool, predicted, name)}
    return natural | {"corruption": shifts.every_corruption(home.select(slice(None, None, 2)))}


def score(model: Model, class_names: list[str], home: Task, tests: dict[str, dict[str, Task]]) -> dict:
    """-> {"home": {shift: accuracy on the benchmark's pictures of the same classes}, "shifted", "corruptions"}."""
    scores = {"group": model.group, "about": model.about, "home": {}, "shifted": {}}
    for shift, tasks in tests.items():
        first = next(iter(tasks.values()))
        each = {name: shifted_accuracy(model.logits_of, class_names, task) for name, task in tasks.items()}
        scores["home"][shift] = shifted_accuracy(model.logits_of, class_names, first, home)
        scores["shifted"][shift] = statistics.fmean(each.values())
    scores["corruptions"] = each  # corruption is the last
    return scores


def broad_pictures(atlas: Atlas, seed: int) -> Task:
    """The benchmark's classes as CLIP saw them: in all of its faces, and in colour."""
    trained_faces = shifts.alphanumerics(atlas.select(~atlas.of_faces("unseen")))
    return shifts.painted_task("broad", trained_faces, EACH, "in every face and colour", Paint(), BROAD + seed)


def measure(setting: Setting, sizes: Sizes, seed: int) -> list[dict]:
    """Every model of one seed, scored."""
    atlas = load_atlas()
    training, home = shifts.benchmark(atlas, EACH, seed)
    broad = broad_pictures(atlas, seed)
    tests = stress_tests(atlas, training, home, sizes, setting.device, seed)
    models = [
        *supervised_models(training, broad, sizes, setting.device, seed),
        *zero_shot_models(atlas, training.class_names, sizes, setting, seed),
    ]
    return [score(model, training.class_names, home, tests) for model in tqdm(models, desc="models", leave=False)]


def closed(models: list[dict], group: str, shift: str) -> float:
    """The share of the gap that the last model of a group closes, the line fitted through the supervised ones."""
    line = fit_line(*([m[where][shift] for m in models if m["group"] == "supervised"] for where in ("home", "shifted")))
    last = [m for m in models if m["group"] == group][-1]
    return float(gap_closed(last["home"][shift], last["shifted"][shift], line))


def last_of(models: list[dict], group: str, where: str, shift: str) -> float:
    return [m for m in models if m["group"] == group][-1][where][shift]


def run(setting: Setting) -> dict:
    """-> every model's accuracies (a list a seed), the share of the gap each group closes, and the claims."""
    sizes = QUICK if setting.scale == "quick" else Sizes()
    models = [measure(setting, sizes, seed) for seed in range(setting.seeds)]
    gaps = {
        group: {shift: [closed(of_seed, group, shift) for of_seed in models] for shift in SHIFTS}
        for group in list(GROUPS)[1:]
    }

    def shares(group: str) -> str:
        return ", ".join(f"{shift} {percent(gaps[group][shift])}" for shift in SHIFTS)

    def fall(group: str, shift: str) -> str:
        home, shifted = ([last_of(m, group, where, shift) for m in models] for where in ("home", "shifted"))
        return f"{percent(home)} to {percent(shifted)}"

    claims = [
        claim("benchmark against stress test: models that studied the benchmark fall", "76.2 to 25.2% on Sketch where "
              "zero-shot has 60.2 (Fig. 13)", "new typeface: supervised " + fall("supervised", "new-typeface")
              + ", zero-shot " + fall("zero-shot CLIP", "new-typeface")),
        claim("zero-shot closes the robustness gap", "by up to 75%", shares("zero-shot CLIP")),
        claim("names, or the breadth of the pictures?", "left open", "labels on broad pictures close: "
              + shares("supervised, broad pictures") + "; names on the benchmark's typeface alone: "
              + shares("CLIP, narrow pictures")),
    ]  # fmt: skip
    return {"models": models, "gap_closed": gaps, "claims": claims}


def as_text(results: dict) -> str:
    """Mean accuracies over seeds, a line a model, then the claims."""
    rows = []
    for of_seeds in zip(*results["models"]):
        one = of_seeds[0]
        figures = [percent([m["home"]["new-typeface"] for m in of_seeds])]
        figures += [percent([m["shifted"][shift] for m in of_seeds]) for shift in SHIFTS]
        rows.append((f"{one['group']}: {one['about']}", *figures))
    header = ("", "benchmark", "typeface", "outlines", "handwriting", "hard (superv.)", "hard (CLIP)", "corruption")
    return table(header, rows) + "\n\n" + claims_as_text(results["claims"])


def plot(results: dict) -> None:
    """Accuracy under each shift against accuracy on the benchmark, on logit axes, and the supervised models' line."""
    _, axes = plt.subplots(2, 3, figsize=(10, 7.2))
    models = [model for of_seed in results["models"] for model in of_seed]
    for ax, shift in zip(axes.flat, SHIFTS):
        draw_shift(ax, models, shift)
        ax.set_title(shift.replace("-", " "), fontsize=11)
    axes[0, 0].figure.supxlabel("accuracy on the benchmark, %", fontsize=11)
    axes[0, 0].figure.supylabel("accuracy under the shift, %", fontsize=11)
    axes[0, 0].figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)


def draw_shift(ax, models: list[dict], shift: str) -> None:
    """One panel: a mark a model, y = x, and the line through the supervised ones."""
    home, shifted = (np.array([m[where][shift] for m in models]) for where in ("home", "shifted"))
    group = np.array([m["group"] for m in models])
    line = fit_line(home[group == "supervised"], shifted[group == "supervised"])
    ticks = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.995])
    low, high = home.min() * 0.9, min(0.9995, 1 - (1 - home.max()) / 1.5)  # `logit` draws a perfect score there
    x = expit(np.linspace(logit(low), logit(high), 50))
    ax.plot(logit(x), logit(x), color=GREY, linestyle=":", linewidth=1.5, label="as good as on the benchmark")
    ax.plot(logit(x), logit(line.expected(x)), color=BLUE, linewidth=1.2, label="line through the supervised models")
    for name, (colour, marker) in GROUPS.items():
        of = group == name
        size = 90 if marker == "*" else 28
        ax.scatter(
            logit(home[of]),
            logit(shifted[of]),
            color=colour,
            marker=marker,
            s=size,
            label=name,
            zorder=3,
            clip_on=False,
        )
    bottom = max(0.004, min(shifted.min(), line.expected(low)) * 0.7)
    for set_ticks, set_limits, limits in ((ax.set_xticks, ax.set_xlim, (low, high)),
                                          (ax.set_yticks, ax.set_ylim, (bottom, high))):  # fmt: skip
        inside = ticks[(ticks >= limits[0]) & (ticks <= limits[1])]
        set_ticks(logit(inside), [f"{100 * tick:g}" for tick in inside])
        set_limits(*logit(np.array(limits)))
