"""Architectures (paper, section 3.2, Figure 10): Vision Transformers against ResNets at equal training compute.

The paper found CLIP's Vision Transformers about 3 times as compute-efficient as its ResNets, on the
average of linear probes, and notes that Dosovitskiy et al. (2020) saw that "when trained on sufficiently
large datasets". Here three sizes of each family, matched in training FLOPs by PyTorch's counter, learn
the glyphs from equally many pictures. The factor is read off two parallel lines, accuracy against
the logarithm of FLOPs.

Where the ResNet wins, its knowledge of what lies next to what may be why: a convolution has it built in,
a ViT must learn it from data. Two tests. Train for longer: does the lead shrink? And move the pixels of
each picture by one fixed permutation, of the patches and within them. To a ViT, whose first layer and positions
start at random, that is exactly the same problem; to a ResNet neighbours are then no neighbours. Notebook 09.
"""

import math
import statistics
from dataclasses import asdict, dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange
from tqdm import tqdm

from ..clip import CLIP
from ..data.glyphs import Atlas, load_atlas
from ..data.images import preprocess
from ..data.painting import GlyphPairs, Paint
from ..data.tasks import NAMED, Task, glyph_tasks, validation_task
from ..evaluation import evaluate_task
from ..measure import flops
from ..plots import BLUE, VERMILION
from ..presets import Preset, find_preset
from ..probe import linear_probe, probe_features
from .common import Setting, claim, claims_as_text, percent, spread, table, times, trained_model, trained_on

# layers, width, patch, heads: the rest of the model, text encoder included, is the demo's for all.
ENCODERS = {
    "ResNet": {
        "small": ((1, 1, 1, 1), 8, None, 4),
        "medium": ((1, 2, 1, 1), 16, None, 4),  # the demo's
        "large": ((1, 1, 1, 1), 24, None, 4),
    },
    "ViT": {"small": (2, 64, 8, 2), "medium": (3, 104, 8, 4), "large": (4, 128, 8, 4)},
    "ViT, patches of 4": {"medium": (3, 48, 4, 2)},
}
COLOURS = {"ResNet": VERMILION, "ViT": BLUE}
PROBED = (
    "unseen-typeface-digits", "latin-small-letters", "greek-small-letters", "chess", "operators", "roman-numerals",
)  # fmt: skip
SHOTS = 12  # painted pictures a class that a probe is fitted to, in faces trained on
PATCH = 8  # of the permutation, in pixels


@dataclass(frozen=True)
class Plan:
    """What is trained at a scale.

    sizes: of each family, on `pictures` pictures; lengths: pictures seen by the medium ones besides
    rates: learning rates to choose from
    """

    sizes: tuple[str, ...]
    pictures: int
    lengths: tuple[int, ...]
    rates: tuple[float, ...]


def plan(setting: Setting) -> Plan:
    if setting.scale == "quick":
        return Plan(("small", "medium"), 9_600, (), (1.5e-3,))
    return Plan(("small", "medium", "large"), 24_000, (150_000,), (7.5e-4, 1.5e-3, 3e-3))


def recipe(family: str, size: str, pictures: int, lr: float) -> Preset:
    """The demo's recipe with another image encoder."""
    preset, (layers, width, patch, heads) = find_preset("cpu"), ENCODERS[family][size]
    model = replace(preset.model, vision_layers=layers, vision_width=width, vision_patch_size=patch, vision_heads=heads)
    return replace(preset, model=model, train=replace(preset.train, images_seen=pictures, lr=lr))


def training_flops(model: CLIP, tokens: torch.Tensor) -> dict[str, float]:
    """Floating-point operations a pair costs in training, forward and backward: {"image": ..., "text": ...}.

    tokens: (B, L), captions as a batch has them
    """
    side, counts = model.config.image_resolution, {}
    for part, encode, batch in (
        ("image", model.visual, torch.zeros(len(tokens), 3, side, side, device=tokens.device)),
        ("text", model.read, tokens),
    ):
        counts[part] = flops(lambda encode=encode, batch=batch: encode(batch).sum().backward()) / len(tokens)
    model.zero_grad()
    return counts


def scramble(images: torch.Tensor) -> torch.Tensor:
    """(B, C, S, S) -> the same pixels elsewhere: patches change places, and pixels within each patch, always in
    the same way. A ViT with patches of `PATCH` pixels may undo it by reordering weights that start at random."""
    side = images.shape[-1] // PATCH
    draw = torch.Generator().manual_seed(0)
    patches, pixels = torch.randperm(side**2, generator=draw), torch.randperm(PATCH**2, generator=draw)
    cut = rearrange(images, "b c (y h) (x w) -> b c (y x) (h w)", h=PATCH, w=PATCH)[:, :, patches][..., pixels]
    return rearrange(cut, "b c (y x) (h w) -> b c (y h) (x w)", y=side, h=PATCH)


class ScrambledPairs(GlyphPairs):
    """Painted as ever, then scrambled; the captions stay."""

    def paint_pictures(self, *arguments) -> torch.Tensor:
        return scramble(super().paint_pictures(*arguments))


def scrambled_task(task: Task) -> Task:
    images = scramble(rearrange(torch.from_numpy(task.images), "b h w c -> b c h w"))
    return replace(task, images=rearrange(images, "b c h w -> b h w c").numpy())


def probe_accuracy(model: CLIP, task: Task, glyphs: Atlas) -> float:
    """A probe fitted to `SHOTS` painted pictures a class of training glyphs, scored in a typeface never seen."""
    pairs = GlyphPairs(glyphs.select(np.isin(glyphs.name, task.class_names)), Paint(coloured=0))
    count = SHOTS * len(pairs)
    images, _ = pairs.batch(count)
    labels = pairs.atlas.name[pairs.draw(count, 0, 0)[0]]
    test_labels = np.array(task.class_names)[task.labels]
    known = np.isin(test_labels, pairs.names)  # some names are held out of training
    test = probe_features(model, preprocess(task.images[known], model.config))
    features = probe_features(model, preprocess(images, model.config))
    return linear_probe(features, labels, test, test_labels[known]).accuracy


def measure(model: CLIP, tokenizer, tasks: dict[str, Task], glyphs: Atlas | None) -> dict:
    """Zero-shot on each task, and their mean; and, if there are `glyphs` to fit them to, probes on a few."""
    zero_shot = {name: evaluate_task(model, tokenizer, task).accuracy for name, task in tasks.items()}
    found = {"zero_shot": zero_shot, "zero-shot": statistics.fmean(zero_shot.values())}
    if glyphs is not None:
        found["probes"] = {name: probe_accuracy(model, tasks[name], glyphs) for name in PROBED}
        found["probe"] = statistics.fmean(found["probes"].values())
    return found


def choose_rate(family: str, how: Plan, setting: Setting) -> tuple[float, dict[str, float]]:
    """The learning rate with the best accuracy on names held out to tune on: the medium size, one seed of its own."""
    task, scores = validation_task(load_atlas()), {}
    for lr in how.rates if len(how.rates) > 1 else ():
        model, tokenizer = trained_model(recipe(family, "medium", how.pictures, lr), 100, setting)
        scores[f"{lr:g}"] = evaluate_task(model, tokenizer, task).accuracy
    return float(max(scores, key=scores.get, default=how.rates[0])), scores


def run(setting: Setting) -> dict:
    """-> every run's sizes, FLOPs and accuracies, the sweep of learning rates, the factors, and the claims."""
    how, atlas = plan(setting), load_atlas()
    tasks = {name: task for name, task in glyph_tasks(atlas).items() if name in {*NAMED, "unseen-names"}}
    tasks["unseen-names"] = tasks.pop("unseen-names")
    elsewhere = {name: scrambled_task(task) for name, task in tasks.items()}
    captions = GlyphPairs(atlas.training()).captions(find_preset("cpu").train.batch_size)
    chosen = {family: choose_rate(family, how, setting) for family in ("ResNet", "ViT")}
    rates = {family: lr for family, (lr, _) in chosen.items()} | {"ViT, patches of 4": chosen["ViT"][0]}

    cases = {(family, size, how.pictures) for family in COLOURS for size in how.sizes}
    cases |= {(family, "medium", pictures) for family in COLOURS for pictures in how.lengths}
    cases |= {("ViT, patches of 4", "medium", how.pictures)} if setting.scale == "recorded" else set()
    runs = []
    for seed in range(setting.seeds):
        for family, size, pictures in tqdm(sorted(cases), desc=f"seed {seed}", unit="model", leave=False):
            preset = recipe(family, size, pictures, rates[family])
            about = {"family": family, "size": size, "pictures": pictures, "seed": seed}
            model, tokenizer = trained_model(preset, seed, setting)
            found = measure(model, tokenizer, tasks, atlas.training())
            flops = training_flops(model, tokenizer(captions).to(setting.device))
            runs.append({**about, "scrambled": False, "flops": flops, **found})
            if size == "medium" and pictures == how.pictures and family in COLOURS:
                pairs = ScrambledPairs(atlas.training(), preset.paint, setting.device)
                preset = replace(preset, train=replace(preset.train, seed=seed))
                model, tokenizer = trained_on(pairs, preset, "scrambled", setting)
                runs.append({**about, "scrambled": True, "flops": flops, **measure(model, tokenizer, elsewhere, None)})
    return summary(runs) | {"plan": asdict(how), "rates": rates, "sweep": {f: s for f, (_, s) in chosen.items()}}


def factor(costs_a, accuracies_a, costs_b, accuracies_b) -> float:
    """How many times what A costs B costs at equal accuracy, by two parallel lines of accuracy over log(cost)."""
    costs, accuracies = [*costs_a, *costs_b], [*accuracies_a, *accuracies_b]
    of_a = np.repeat([1.0, 0.0], [len(costs_a), len(costs_b)])
    (_, lead, slope), *_ = np.linalg.lstsq(np.stack([np.ones_like(of_a), of_a, np.log(costs)], 1), accuracies)
    return math.exp(lead / slope)


def cost(run: dict, of: str) -> float:
    """Training FLOPs of the whole run: of the image encoder, or of the whole model."""
    return run["pictures"] * (run["flops"]["image"] + (run["flops"]["text"] if of == "model" else 0))


def choose(runs: list[dict], **about) -> list[dict]:
    return [run for run in runs if all(run[key] == value for key, value in about.items())]


def summary(runs: list[dict]) -> dict:
    """-> the factors (one a seed), the ResNet's lead by pictures seen, what scrambling costs, and the claims."""
    seeds, lengths = sorted({run["seed"] for run in runs}), sorted({run["pictures"] for run in runs})
    plain = choose(runs, scrambled=False)
    pictures = choose(plain, size="small")[0]["pictures"]  # of the families; the small ones have no other

    def family(name: str, seed: int) -> list[dict]:
        return choose(plain, family=name, seed=seed, pictures=pictures)

    def factors(score: str, of: str) -> list[float]:
        pairs = [(family("ResNet", seed), family("ViT", seed)) for seed in seeds]
        return [factor(*(x for f in pair for x in ([cost(r, of) for r in f], [r[score] for r in f]))) for pair in pairs]

    def medium(name: str, seen: int = pictures, scrambled: bool = False, score: str = "zero-shot") -> list[float]:
        chosen = choose(runs, family=name, size="medium", pictures=seen, scrambled=scrambled)
        return [run[score] for run in chosen]

    def lead(score: str) -> dict[str, list[float]]:
        return {
            str(seen): [a - b for a, b in zip(medium("ResNet", seen, score=score), medium("ViT", seen, score=score))]
            for seen in lengths
        }

    found = {
        # Zero-shot accuracy hardly grows with size after so few pictures: the lines are flat, and no factor is read off.
        "factors": {"probe": {of: factors("probe", of) for of in ("image", "model")}},
        "leads": {score: lead(score) for score in ("zero-shot", "probe")},
        "scrambled": {name: {"as drawn": medium(name), "scrambled": medium(name, scrambled=True)} for name in COLOURS},
    }
    return {**found, "claims": claims(found, pictures), "pictures": pictures, "runs": runs}


def points(differences: list[float]) -> str:
    return spread([100 * difference for difference in differences], "+.1f")


def claims(found: dict, pictures: int) -> list[dict]:
    leads, scrambled = found["leads"], found["scrambled"]
    lengths = [f"{int(seen):,}" for seen in leads["zero-shot"]]
    at_each = ", ".join(points(lead) for lead in leads["zero-shot"].values())
    first = next(iter(leads["zero-shot"].values()))
    return [
        claim(
            "at equal accuracy a ViT costs a third of a ResNet's compute", "a third, on the average of probes",
            f"{times(found['factors']['probe']['image'])} times that of a ResNet, on the average of probes, after {pictures:,} pictures; "
            f"zero-shot the ResNet leads by {points(first)} points at equal FLOPs",
        ),
        claim(
            "a ViT wants more pictures than a ResNet", "ahead at 400 million pairs",
            f"lead of the ResNet after {', '.join(lengths)} pictures: {at_each} points of zero-shot",
        ),
        claim(
            "the ResNet is ahead because it knows what lies next to what", "not measured",
            "pixels moved by a permutation that a ViT cannot notice: ResNet "
            + " to ".join(percent(shares) for shares in scrambled["ResNet"].values())
            + ", ViT " + " to ".join(percent(shares) for shares in scrambled["ViT"].values()),
        ),
    ]  # fmt: skip


def as_text(results: dict) -> str:
    """A line for each kind of run, then the claims."""
    kinds = {(r["family"], r["size"], r["pictures"], r["scrambled"]): None for r in results["runs"]}
    rows = []
    for family, size, pictures, scrambled in kinds:
        runs = choose(results["runs"], family=family, size=size, pictures=pictures, scrambled=scrambled)
        flops = runs[0]["flops"]
        probe = percent([run["probe"] for run in runs]) if "probe" in runs[0] else ""
        name = f"{family}, {size}" + ", scrambled" * scrambled
        rows.append((name, f"{pictures:,}", f"{flops['image'] / 1e6:.1f}", f"{(flops['image'] + flops['text']) / 1e6:.1f}",
                     percent([run["zero-shot"] for run in runs]), probe))  # fmt: skip
    header = ("image encoder", "pictures", "MFLOPs a pair", "with text", "zero-shot", "probe")
    return table(header, rows) + "\n\n" + claims_as_text(results["claims"])


def plot(results: dict) -> None:
    """Accuracy against training compute for both families; against pictures seen; and with the pixels moved."""
    _, axes = plt.subplots(1, 3, figsize=(13, 3.9), width_ratios=(1.15, 1, 0.8))
    plot_accuracy(results, axes[0], axes[1])
    plot_scrambled(results, axes[2])


def plot_accuracy(results: dict, by_cost, by_pictures) -> None:
    """Into two axes: accuracy against training compute, and of the medium size against pictures seen."""
    plain = choose(results["runs"], scrambled=False)

    def line(ax, runs, across, score, **style):
        places = sorted({across(run) for run in runs})
        values = [[100 * run[score] for run in runs if across(run) == place] for place in places]
        error = [np.std(v, ddof=1) if len(v) > 1 else 0 for v in values]
        ax.errorbar(places, [np.mean(v) for v in values], error, capsize=3, **style)

    for family, colour in COLOURS.items():
        runs = choose(plain, family=family)
        for score, marker, dashes in (("probe", "s", "--"), ("zero-shot", "o", "-")):
            line(by_cost, choose(runs, pictures=results["pictures"]), lambda run: cost(run, "image") / 1e12, score,
                 color=colour, marker=marker, linestyle=dashes, label=f"{family}, {score}")  # fmt: skip
        line(by_pictures, choose(runs, size="medium"), lambda run: run["pictures"], "zero-shot", color=colour,
             marker="o", label=f"{family}, zero-shot")  # fmt: skip
    costs = {cost(run, "image") / 1e12 for run in choose(plain, family="ResNet", pictures=results["pictures"])}
    for ax, ticks, label in (
        (by_cost, {x: f"{x:.2g}" for x in costs}, "training FLOPs of the image encoder, 10¹²"),
        (by_pictures, {run["pictures"]: f"{run['pictures']:,}" for run in plain}, "pictures seen"),
    ):
        ax.set_xscale("log")
        ax.set_xticks(list(ticks), ticks.values())
        ax.minorticks_off()
        ax.set(xlabel=label, ylim=(0, None))
    by_cost.set(title="equally many pictures", ylabel="accuracy, mean over tasks, %")
    by_pictures.set(title="medium size, longer", ylabel="zero-shot accuracy, %")
    by_cost.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def plot_scrambled(results: dict, ax) -> None:
    """Into one axis: zero-shot accuracy of both families on pictures as drawn, and with their pixels moved about."""
    for place, (family, scores) in enumerate(results["scrambled"].items()):
        for shift, (how, shares) in zip((-0.2, 0.2), scores.items()):
            error = 100 * np.std(shares, ddof=1) if len(shares) > 1 else 0
            ax.bar(place + shift, 100 * np.mean(shares), 0.38, yerr=error, color=COLOURS[family],
                   alpha=1 if how == "as drawn" else 0.45)  # fmt: skip
            ax.annotate(how.replace(" ", "\n"), (place + shift, 0), (0, -4), textcoords="offset points", ha="center",
                        va="top", fontsize=9, annotation_clip=False)  # fmt: skip
    ax.set_xticks(range(2), [f"\n\n{family}" for family in COLOURS])
    ax.tick_params(length=0)
    ax.grid(axis="x", visible=False)
    ax.set(title="pixels moved about", ylabel="zero-shot accuracy, %", ylim=(0, None))
