"""Class design (paper, sections 7.1 and 7.2): whoever writes the list of classes decides the errors.

In the paper faces were put into classes such as "animal" or "thief"; adding one class, "child", took most of
such errors from pictures of children (ages 3 to 9: 35.0 to 4.3%) and hardly moved those of adults. And a
close distractor beside each right answer took a classifier from 91.8% to 51.1%.

A missing class. Letters of several scripts are sorted into kinds of character, among them things that are no
letters at all; then "greek letter" is added to the list. A kind is no caption that anybody wrote, so its
weights are the mean of the names that belong to it, as an ensemble's are. Close distractors. Small Latin letters are
classified by their names; then wrong names are added, of letters that differ by a mark, or, for comparison,
as many of characters of other scripts. Notebook 11.
"""

import re

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

from ..clip import CLIP
from ..data.glyphs import Atlas, load_atlas
from ..data.images import preprocess
from ..data.tasks import Task, glyph_tasks
from ..plots import BLUE, ORANGE, POSITIVE
from ..tokenizer import CLIPTokenizer
from ..zeroshot import encode_images, encode_texts, zero_shot_classifier
from .common import Setting, claim, claims_as_text, percent, table, trained_models

LETTERS = {  # class -> the trained names that it stands for
    "latin letter": r"latin (small|capital) letter .*",
    "cyrillic letter": r"cyrillic (small|capital) letter .*",
    "arabic letter": r"arabic letter .*",
    "hebrew letter": r"hebrew letter .*",
}
OTHER_THINGS = {
    "arrow": r".*arrow.*",
    "box drawing": r"box drawings .*",
    "playing card": r"playing card .*",
    "operator": r".*(plus|minus|equal|less-than|greater-than|integral|subset|superset).*",
    "braille pattern": r"braille pattern .*",
    "domino tile": r"domino tile .*",
}
ADDED = {"greek letter": r"greek (small|capital) letter .*"}
MARKS_EACH = 4  # close distractors a letter, at most
NAMES_EACH = 40  # names that a class is the mean of
SHOWN = ("Greek", "Latin", "Cyrillic", "Arabic", "Hebrew", "Armenian")  # whose letters are sorted


def classifier_of(model: CLIP, tokenizer: CLIPTokenizer, kinds: dict[str, str], names: list[str]) -> torch.Tensor:
    """(E, K): for each kind the mean of at most NAMES_EACH of the names that match its pattern, unit columns."""
    columns = []
    for pattern in kinds.values():
        own = [name for name in names if re.fullmatch(pattern, name)]
        own = np.random.default_rng(0).permutation(own)[:NAMES_EACH].tolist()
        columns.append(encode_texts(model, tokenizer, own).mean(dim=0))
    return F.normalize(torch.stack(columns), dim=1).T


def put_into(model: CLIP, pictures: np.ndarray, classifier: torch.Tensor) -> np.ndarray:
    """(N,) the class, as its column in the classifier (E, K), of each of the pictures (N, S, S, 3)."""
    features = encode_images(model, preprocess(pictures, model.config))
    return (features @ classifier).argmax(dim=1).cpu().numpy()


def with_and_without(model: CLIP, tokenizer: CLIPTokenizer, atlas: Atlas) -> dict[str, dict[str, list[float]]]:
    """-> {"before" / "after" the class is added: {script: share of its letters put in each class}}, the
    added class last; letters whose names were never trained on."""
    unseen, names, shares = atlas.unseen_names(), np.unique(atlas.training().name).tolist(), {}
    letters = unseen.select(np.array([" letter " in name for name in unseen.name]) & np.isin(unseen.script, SHOWN))
    for when, kinds in (("before", LETTERS | OTHER_THINGS), ("after", LETTERS | OTHER_THINGS | ADDED)):
        put = put_into(model, letters.pictures(), classifier_of(model, tokenizer, kinds, names))
        shares[when] = {
            script: (np.bincount(put[letters.script == script], minlength=len(kinds))
                     / (letters.script == script).sum()).tolist()
            for script in SHOWN
        }  # fmt: skip
    return shares


def not_letters(shares: list[float]) -> float:
    """The share put into things that are no letters."""
    return sum(shares[len(LETTERS) : len(LETTERS) + len(OTHER_THINGS)])


def distractors(names: list[str], atlas: Atlas) -> tuple[list[str], list[str]]:
    """Names to add to "latin small letter a" and the like: trained names of the same letters with a mark, and
    as many of characters of other scripts. -> close names, far names."""
    trained = np.unique(atlas.training().name).tolist()
    close = []
    for name in names:
        marked = [other for other in trained if re.fullmatch(re.escape(name) + r" with [\w ]+", other)]
        close += marked[:MARKS_EACH]
    others = [n for n in trained if re.fullmatch(r"(cyrillic capital|arabic|georgian|hebrew|lao) letter \w+", n)]
    far = np.random.default_rng(0).permutation(others)[: len(close)].tolist()
    return close, far


def distracted(model: CLIP, tokenizer: CLIPTokenizer, task: Task, atlas: Atlas) -> dict[str, float]:
    """Accuracy on the task: among its own names, with far distractors added, and with close ones."""
    close, far = distractors(task.class_names, atlas)
    accuracy = {}
    for kind, added in (("own names", []), ("far distractors", far), ("close distractors", close)):
        names = [*task.class_names, *added]
        put = put_into(model, task.images, zero_shot_classifier(model, tokenizer, names, task.templates))
        accuracy[kind] = float((put == task.labels).mean())
    return accuracy


def run(setting: Setting) -> dict:
    """-> for each model where letters were put, before and after; accuracies among distractors; claims."""
    atlas = load_atlas()
    task = glyph_tasks(atlas)["latin-small-letters"]
    sorted_letters, accuracies = [], []
    for model, tokenizer in trained_models(setting):
        sorted_letters.append(with_and_without(model, tokenizer, atlas))
        accuracies.append(distracted(model, tokenizer, task, atlas))

    def lost(when: str, script: str) -> str:
        return percent([not_letters(of_seed[when][script]) for of_seed in sorted_letters])

    def right(kind: str) -> str:
        return percent([of_seed[kind] for of_seed in accuracies])

    added = len(distractors(task.class_names, atlas)[0])
    others = [script for script in SHOWN if script != "Greek"]
    rest = [
        percent([np.mean([not_letters(of_seed[when][s]) for s in others]) for of_seed in sorted_letters])
        for when in ("before", "after")
    ]
    claims = [
        claim("one class added moves one group's errors", 'with "child": ages 3 to 9 35.0 to 4.3% crime-related or non-human, adults hardly',
              f'with "greek letter": Greek letters called no letter {lost("before", "Greek")} to {lost("after", "Greek")}, '
              f"those of {len(others)} other scripts {rest[0]} to {rest[1]}"),
        claim("names close to the right ones cost the most", "91.8 to 51.1%",
              f"26 letters {right('own names')}; {added} far names added {right('far distractors')}, {added} close ones "
              f"{right('close distractors')}"),
    ]  # fmt: skip
    classes = [*LETTERS, *OTHER_THINGS, *ADDED]
    return {"classes": classes, "sorted": sorted_letters, "accuracies": accuracies, "claims": claims}


def as_text(results: dict) -> str:
    """Shares of each script's letters called no letter, before and after; accuracies; the claims."""
    rows = [
        (script, *(percent([not_letters(s[when][script]) for s in results["sorted"]]) for when in ("before", "after")))
        for script in SHOWN
    ]
    kinds = [(kind, percent([a[kind] for a in results["accuracies"]])) for kind in results["accuracies"][0]]
    return "\n\n".join(
        [
            table(("letters called no letter", "before", 'with "greek letter"'), rows),
            table(("small latin letters", "accuracy"), kinds) + "\n\n" + claims_as_text(results["claims"]),
        ]
    )


def plot(results: dict) -> None:
    """Where each script's letters are put before and after the class is added, and accuracy among distractors."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), width_ratios=(1, 1, 0.62))
    for ax, when in zip(axes, ("before", "after")):
        shares = 100 * np.mean([[s[when][script] for script in SHOWN] for s in results["sorted"]], axis=0)
        names = results["classes"][: shares.shape[1]]
        ax.imshow(shares, cmap=POSITIVE, vmin=0, vmax=100, aspect="auto")
        for (i, j), share in np.ndenumerate(shares):
            ax.text(j, i, f"{share:.0f}", ha="center", va="center", fontsize=9, color="w" if share > 50 else "k")
        ax.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(len(SHOWN)), [f"{script} letters" for script in SHOWN])
        ax.axvline(len(LETTERS) - 0.5, color="k", linewidth=1)
        ax.grid(False)
        ax.set_title({"before": "Without a Greek class", "after": "With one"}[when] + ": where letters are put, %")
    kinds = list(results["accuracies"][0])
    values = np.array([[100 * a[kind] for kind in kinds] for a in results["accuracies"]])
    error = values.std(axis=0, ddof=1) if len(values) > 1 else None
    axes[2].bar(kinds, values.mean(axis=0), yerr=error, color=[BLUE, BLUE, ORANGE], width=0.6)
    axes[2].set_xticks(range(len(kinds)), [kind.replace(" ", "\n") for kind in kinds])
    axes[2].set(ylabel="accuracy, %", ylim=(0, 100), title="26 small letters, names added")
    axes[2].grid(axis="x", visible=False)
