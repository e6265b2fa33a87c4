"""Bias (paper, section 7.1): what is rare in the data is served worse, and what goes together in it is repeated.

Coverage. Fonts cover scripts as unevenly as the web covers languages. Accuracy on names never trained on,
script by script, is fitted against the script's share of the training names. A slope may be coverage, or
scripts may differ in difficulty for another reason; so coverage is changed by hand: nine in ten of the Greek
names are taken from the training pictures, and the same model is trained without them.

Inheritance. A spurious correlation of known size is planted: in training, a letter of one script takes red
ink, one of another blue, with a given probability; no caption says so. A zero-shot classifier of the scripts
(each the mean of its trained names) is then shown letters in the wrong ink, and arrows, of no script at all. Notebook 11.
"""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

from ..clip import CLIP
from ..data.glyphs import Atlas, load_atlas
from ..data.images import preprocess
from ..data.painting import COLOURS, WHITE, GlyphPairs, Paint
from ..data.tasks import named_task
from ..evaluation import evaluate_task
from ..plots import BLUE, GREY, ORANGE, VERMILION
from ..presets import find_preset
from ..tokenizer import CLIPTokenizer
from ..zeroshot import encode_images
from .class_design import classifier_of
from .common import Setting, claim, claims_as_text, percent, spread, table, trained_models, trained_on

LABELLED_LEFT = ("Greek", "Cyrillic")  # whose points others would strike through their names
THINNED, LEFT = "Greek", 0.1  # the script whose names are taken away, and the share that stays
PLANTED = {"Greek": "red", "Cyrillic": "blue"}  # script -> the ink it takes
STRENGTHS = (0.0, 0.3, 0.6, 0.9)
FEWEST = 4  # test names of a script, for its accuracy to count
NO_SCRIPT = ("Common", "Inherited")  # Unicode's words for symbols and digits, and for marks put on letters


# Coverage


def accuracy_by_script(model: CLIP, tokenizer: CLIPTokenizer, atlas: Atlas) -> dict[str, float]:
    """Zero-shot accuracy among all unseen names, for each script with at least FEWEST of them."""
    unseen = atlas.unseen_names()
    result = evaluate_task(model, tokenizer, named_task("unseen-names", unseen, ""))
    right = result.predicted == result.task.labels
    scripts = [s for s in np.unique(unseen.script) if s not in NO_SCRIPT]
    scripts = [s for s in scripts if len(np.unique(unseen.name[unseen.script == s])) >= FEWEST]
    return {str(script): float(right[unseen.script == script].mean()) for script in scripts}


def training_shares(atlas: Atlas) -> dict[str, float]:
    """Each script's share of the names that are trained on."""
    training = atlas.training()
    names, first = np.unique(training.name, return_index=True)
    scripts, counts = np.unique(training.script[first], return_counts=True)
    return {str(script): count / len(names) for script, count in zip(scripts, counts)}


def fitted_slope(shares: dict[str, float], accuracy: dict[str, float]) -> float:
    """Points of accuracy in [0, 1] for a tenfold share, by least squares over the scripts."""
    scripts = [script for script in accuracy if script in shares]
    return float(np.polyfit([np.log10(shares[s]) for s in scripts], [accuracy[s] for s in scripts], 1)[0])


def without_most(atlas: Atlas, script: str, left: float) -> Atlas:
    """The training glyphs with so small a share of the script's names left, the same for every seed."""
    training = atlas.training()
    names = np.unique(training.name[training.script == script])
    gone = np.random.default_rng(0).permutation(names)[round(left * len(names)) :]
    return training.select(~np.isin(training.name, gone))


# Inheritance


class PlantedPairs(GlyphPairs):
    """Training pairs in which scripts take inks: with probability `strength` a letter of a script in `inks`
    is painted in that ink on white. Captions stay as they were."""

    def __init__(self, atlas: Atlas, paint: Paint, inks: dict[str, str], strength: float, device="cpu"):
        super().__init__(atlas, paint, device)
        self.strength = strength
        place = {script: list(COLOURS).index(ink) for script, ink in inks.items()}
        self.own_ink = np.array([place.get(script, -1) for script in atlas.script])

    def draw(self, count: int, seed: int, start: int):
        rows, ink, paper, uniforms = super().draw(count, seed, start)
        planted = (self.own_ink[rows] >= 0) & (uniforms[:, -1] < self.strength)  # a number that nothing else uses
        return rows, np.where(planted, self.own_ink[rows], ink), np.where(planted, WHITE, paper), uniforms


def in_ink(glyphs: Atlas, ink: str) -> np.ndarray:
    """(N, S, S, 3) uint8: the glyphs in a named ink on white."""
    cover = glyphs.ink[..., None] / 255
    return np.round(255 * (1 - cover) + np.array(COLOURS[ink]) * cover).astype(np.uint8)


def repeated(model: CLIP, tokenizer: CLIPTokenizer, atlas: Atlas) -> dict[str, float]:
    """How far the zero-shot classifier of the planted scripts follows the ink.

    -> accuracy on letters never trained on, in their script's own ink and in the other's (the mean of the
    scripts), and of arrows, which belong to none, the share called by the script of their ink (0.5: at random).
    """
    scripts, inks = list(PLANTED), list(PLANTED.values())
    kinds = {script: rf"{script.lower()} (small|capital) letter .*" for script in scripts}
    classifier = classifier_of(model, tokenizer, kinds, np.unique(atlas.training().name).tolist())

    def called(glyphs: Atlas, ink: str) -> np.ndarray:
        features = encode_images(model, preprocess(in_ink(glyphs, ink), model.config))
        return (features @ classifier).argmax(dim=1).cpu().numpy()

    unseen = atlas.unseen_names()
    arrows = unseen.select(np.array(["arrow" in name for name in unseen.name]))
    letters = [unseen.select(unseen.script == script) for script in scripts]
    own = [(called(glyphs, inks[k]) == k).mean() for k, glyphs in enumerate(letters)]
    other = [(called(glyphs, inks[1 - k]) == k).mean() for k, glyphs in enumerate(letters)]
    followed = [(called(arrows, ink) == k).mean() for k, ink in enumerate(inks)]
    return {"own_ink": float(np.mean(own)), "other_ink": float(np.mean(other)), "arrows": float(np.mean(followed))}


# Both


def run(setting: Setting) -> dict:
    """-> accuracies by script and shares; the same with a script thinned; what is repeated at each strength; claims."""
    quick, atlas = setting.scale == "quick", load_atlas()
    strengths = (0.0, 0.9) if quick else STRENGTHS
    covered = [accuracy_by_script(*model, atlas) for model in trained_models(setting)]
    shares = training_shares(atlas)

    base = find_preset("cpu")
    seen = {"thinned": 12_000 if quick else 45_000, "planted": 12_000 if quick else 30_000}
    thinned: dict[str, list[dict]] = {"all names": [], f"{LEFT:.0%} of {THINNED}": []}
    planted: dict[str, list[dict]] = {str(strength): [] for strength in strengths}
    progress = tqdm(total=setting.seeds * (2 + len(strengths)), desc="models", unit="model", leave=False)
    for seed in range(setting.seeds):
        train = replace(base.train, images_seen=seen["thinned"], seed=seed)
        for kind, glyphs in zip(thinned, (atlas.training(), without_most(atlas, THINNED, LEFT))):
            pairs = GlyphPairs(glyphs, base.paint, setting.device)
            model = trained_on(pairs, replace(base, train=train), f"{len(pairs)}-names", setting)
            thinned[kind].append(accuracy_by_script(*model, atlas))
            progress.update()
        paint = Paint(coloured=1.0, colours_named=0.0)
        preset = replace(base, train=replace(train, images_seen=seen["planted"]), paint=paint)
        for strength in strengths:
            pairs = PlantedPairs(atlas.training(), paint, PLANTED, strength, setting.device)
            model = trained_on(pairs, preset, f"planted-{strength}", setting)
            planted[str(strength)].append(repeated(*model, atlas))
            progress.update()
    progress.close()
    results = {"shares": shares, "covered": covered, "thinned": thinned, "planted": planted, "pictures": seen}
    return results | {"claims": claims(results)}


def claims(results: dict) -> list[dict[str, str]]:
    slopes = [100 * fitted_slope(results["shares"], accuracy) for accuracy in results["covered"]]
    full, thin = (percent([a[THINNED] for a in of_kind]) for of_kind in results["thinned"].values())
    rest = [
        spread([100 * np.mean([v for s, v in a.items() if s != THINNED]) for a in of_kind]) + "%"
        for of_kind in results["thinned"].values()
    ]
    strongest = max(results["planted"], key=float)
    at = {key: percent([r[key] for r in results["planted"][strongest]]) for key in ("own_ink", "other_ink", "arrows")}
    none = {key: percent([r[key] for r in results["planted"]["0.0"]]) for key in ("own_ink", "other_ink", "arrows")}
    return [
        claim("what is rare in the data is recognised less", "groups differ",
              f"{spread(slopes, '+.1f')} points of accuracy for ten times the share of the training names, over "
              f"{len(results['covered'][0])} scripts"),
        claim("and it is the data that make it so", "not measured",
              f"{THINNED} with {LEFT:.0%} of its names: {full} to {thin}; the other scripts: {rest[0]} to {rest[1]}"),
        claim("a correlation in the data is repeated", "social biases inherited from the web",
              f"ink planted in {float(strongest):.0%} of letters: right script in its own ink {at['own_ink']}, in the other's "
              f"{at['other_ink']} (unplanted {none['own_ink']}, {none['other_ink']}); arrows called by their ink {at['arrows']}"),
    ]  # fmt: skip


def as_text(results: dict) -> str:
    """Scripts from the most to the least covered, then what is repeated at each strength, then the claims."""
    shares, scripts = results["shares"], list(results["covered"][0])
    kinds = list(results["thinned"])
    rows = [
        (script, f"{shares.get(script, 0):.1%}", percent([a[script] for a in results["covered"]]),
         *(percent([a[script] for a in results["thinned"][kind]]) for kind in kinds))
        for script in sorted(scripts, key=lambda s: -shares.get(s, 0))
    ]  # fmt: skip
    header = ("script", "share of names", "unseen names right", *(f"shorter, {kind}" for kind in kinds))
    ink = [
        (f"{float(strength):.0%} planted",
         *(percent([r[key] for r in of_seeds]) for key in ("own_ink", "other_ink", "arrows")))
        for strength, of_seeds in results["planted"].items()
    ]  # fmt: skip
    ink_header = (" and ".join(f"{s} in {c}" for s, c in PLANTED.items()), "own ink", "other's ink", "arrows by ink")
    return table(header, rows) + "\n\n" + table(ink_header, ink) + "\n\n" + claims_as_text(results["claims"])


def plot(results: dict) -> None:
    """Accuracy against coverage, a script a point; the thinned script's fall; and the planted ink repeated."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.4), width_ratios=(1.35, 0.7, 1))
    shares = results["shares"]
    scripts = [s for s in results["covered"][0] if s in shares]
    mean = {s: 100 * float(np.mean([a[s] for a in results["covered"]])) for s in scripts}
    left.scatter([100 * shares[s] for s in scripts], list(mean.values()), color=BLUE, zorder=3)
    for script in scripts:
        beside = dict(xytext=(-5, -3), ha="right", va="top") if script in LABELLED_LEFT else dict(xytext=(5, 3))
        left.annotate(script, (100 * shares[script], mean[script]), textcoords="offset points", fontsize=8, **beside)
    slope, at_one = np.polyfit([np.log10(100 * shares[s]) for s in scripts], list(mean.values()), 1)
    span = 100 * np.array([min(shares[s] for s in scripts), max(shares[s] for s in scripts)])
    left.plot(span, at_one + slope * np.log10(span), color=GREY, linestyle="--")
    left.set(xscale="log", xlabel="share of the training names, %", ylabel="unseen names recognised, %", ylim=(0, 100),
             title="Coverage, as it is found")  # fmt: skip
    left.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    left.minorticks_off()
    for place, (of_kind, colour) in enumerate(zip(results["thinned"].values(), (BLUE, ORANGE))):
        groups = [[100 * a[THINNED] for a in of_kind],
                  [100 * np.mean([v for s, v in a.items() if s != THINNED]) for a in of_kind]]  # fmt: skip
        middle.bar(np.array([0, 1]) + 0.38 * place - 0.19, [np.mean(g) for g in groups], 0.36, color=colour,
                   yerr=[np.std(g, ddof=1) if len(g) > 1 else 0 for g in groups],
                   label=list(results["thinned"])[place])  # fmt: skip
    middle.set_xticks([0, 1], [THINNED, "other scripts"])
    middle.set(ylabel="unseen names recognised, %", title="Changed by hand")
    middle.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=1)
    strengths = [100 * float(s) for s in results["planted"]]
    for key, colour, label in (
        ("own_ink", BLUE, "letters in their script's ink: right"),
        ("other_ink", VERMILION, "letters in the other's ink: right"),
        ("arrows", GREY, "arrows: called by their ink"),
    ):
        shares_of_seeds = np.array([[100 * r[key] for r in of_seeds] for of_seeds in results["planted"].values()])
        error = shares_of_seeds.std(axis=1, ddof=1) if shares_of_seeds.shape[1] > 1 else None
        right.errorbar(strengths, shares_of_seeds.mean(axis=1), yerr=error, color=colour, marker="o", label=label)
    right.axhline(50, color=GREY, linewidth=1, linestyle=":", label="two scripts told apart by chance")
    right.set(xlabel="letters whose ink was planted in training, %", ylabel="share of pictures, %", ylim=(0, 102),
              title="A correlation, planted and repeated")  # fmt: skip
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14))
