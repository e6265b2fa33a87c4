"""Zero-shot against linear probes (paper, sections 3.1.5, 3.2, 3.3 and A.3): what labels add, and what they cost.

The paper found that a probe gains 9.2 points on ImageNet over zero-shot, that zero-shot equals a probe of
some 4 labelled pictures a class, and that the probe's gain does not carry over to shifts of ImageNet.

Tasks. Pictures to fit to are drawn in the faces that CLIP trained on, in black on white, and for the tasks of
names painted as its training pictures were; test pictures are the zero-shot task's own, in the faces that
nothing trained on. So probe and zero-shot are asked about the same pictures. Some faces held out draw a
symbol as one trained on does, to the pixel: dominoes, Braille, playing cards, box drawings and trigrams all of
them, letters none. How many is told, and the gain without these tasks. Handwriting has one collection: 1,000 of
its scans are fitted to, the other 797 tested on. Of a task with more classes than CLASSES, so many are taken,
for both.

Shifts. A probe is fitted to the training pictures of the benchmark of `data/shifts.py` and tested on
its test pictures and its shifts; zero-shot is asked about the same. Notebook 07.
"""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from ..data import shifts
from ..data.glyphs import Atlas, load_atlas
from ..data.images import preprocess
from ..data.tasks import NAMED, PLAIN, Task, glyph_tasks, script_task, style_task
from ..errors import MinclipError
from ..evaluation import HANDWRITTEN_FOR_TRAINING
from ..plots import BLUE, GREY, VERMILION
from ..probe import linear_probe, probe_features
from ..robustness import shifted_accuracy
from ..zeroshot import accuracy, encode_images, zero_shot_classifier
from .common import Setting, claim, claims_as_text, percent, spread, table, trained_models

SHOTS = (1, 2, 4, 8, 16)
EACH = 24  # pictures of a class that the whole probe is fitted to, and shots are drawn from
CLASSES = 24
QUICK_TASKS = ("unseen-typeface-digits", "latin-capitals", "chess", "operators", "dice", "handwritten-digits", "slant")


def some_classes(task: Task, most: int = CLASSES) -> Task:
    """The task with at most so many of its classes, evenly spaced in the order of their names."""
    if len(task.class_names) <= most:
        return task
    kept = np.linspace(0, len(task.class_names) - 1, most).round().astype(int)
    rows = np.isin(task.labels, kept)
    names = [task.class_names[k] for k in kept]
    return Task(
        task.name, task.images[rows], np.searchsorted(kept, task.labels[rows]), names, task.templates, task.about
    )


def labelled(test: Task, trained_faces: Atlas, seed: int) -> tuple[Task, Task]:
    """Pictures to fit a probe of the task to, and those to test it on.

    Raises MinclipError for a task without labelled pictures in the faces that were trained on.
    """
    random = np.random.default_rng(seed)
    if test.name in NAMED:
        glyphs = trained_faces.select(np.isin(trained_faces.name, test.class_names))
        known = np.isin(test.class_names, glyphs.name)  # one or two symbols stand in the unseen faces alone
        test = among(test, known)
        return shifts.painted_task(test.name, glyphs, EACH, test.about, seed=seed), test
    if test.name == "handwritten-digits":
        fit_to, rest = train_test_split(
            np.arange(len(test)), train_size=HANDWRITTEN_FOR_TRAINING, stratify=test.labels, random_state=seed
        )
        return test.select(fit_to), test.select(rest)
    if test.name == "script":
        source = script_task(trained_faces)
    elif test.name in ("weight", "slant"):
        source = style_task(trained_faces, test.name)
    else:
        raise MinclipError(f"The task {test.name!r} has no labelled training pictures.")
    rows = np.concatenate([few(source.labels, k, EACH, random) for k in np.unique(source.labels)])
    return source.select(rows), test


def drawn_alike(test: Task, trained_faces: Atlas) -> float:
    """The share of the test pictures that a face trained on has, too, of the same character and to the pixel."""
    same = trained_faces.select(np.isin(trained_faces.name, test.class_names))
    known = {(name, picture.tobytes()) for name, picture in zip(same.name, same.pictures())}
    named = (test.class_names[label] for label in test.labels)
    return float(np.mean([(name, image.tobytes()) in known for name, image in zip(named, test.images)]))


def few(labels: np.ndarray, label: int, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` of the rows that bear the label, at random; all, where there are no more."""
    rows = random.permutation(np.flatnonzero(labels == label))
    return rows[:count]


def among(task: Task, known: np.ndarray) -> Task:
    """The task without the classes (K,) that are not known."""
    place = np.cumsum(known) - 1
    kept = task.select(known[task.labels])
    names = [name for name, is_known in zip(task.class_names, known) if is_known]
    return Task(task.name, kept.images, place[kept.labels], names, task.templates, task.about)


def compare(model, tokenizer, fit_to: Task, test: Task, seed: int) -> dict[str, float | list[float]]:
    """-> accuracies of zero-shot, of the whole probe, and of probes of 1, 2, 4, 8, 16 pictures a class."""
    features, test_features = (probe_features(model, preprocess(task.images, model.config)) for task in (fit_to, test))
    classifier = zero_shot_classifier(model, tokenizer, test.class_names, test.templates)
    right = accuracy(
        encode_images(model, preprocess(test.images, model.config)), classifier, torch.from_numpy(test.labels)
    )
    random, shots = np.random.default_rng(seed), []
    for count in SHOTS:
        rows = np.concatenate([few(fit_to.labels, k, count, random) for k in np.unique(fit_to.labels)])
        shots.append(linear_probe(features[rows], fit_to.labels[rows], test_features, test.labels, seed=seed).accuracy)
    whole = linear_probe(features, fit_to.labels, test_features, test.labels, seed=seed)
    return {"zero_shot": right, "probe": float(whole.accuracy), "shots": [float(share) for share in shots]}


def worth(zero_shot: float, shots: list[float]) -> float:
    """How many labelled pictures a class a probe needs to equal zero-shot, between points by the logarithm.

    0.5 where one picture is already enough, 32 where sixteen are not.
    """
    if zero_shot <= shots[0]:
        return 0.5
    if zero_shot > max(shots):
        return 32.0
    best = np.maximum.accumulate(shots)
    reached = int(np.argmax(best >= zero_shot))  # the first: where a curve is level, the fewest shots
    around = slice(reached - 1, reached + 1)
    return float(2 ** np.interp(zero_shot, best[around], np.log2(SHOTS)[around]))


def under_shift(model, tokenizer, atlas: Atlas, seed: int) -> dict[str, dict[str, float]]:
    """-> {shift: {"zero_shot", "probe"}} for a probe fitted to the benchmark's training pictures."""
    training, home = shifts.benchmark(atlas, EACH, seed)
    tests = {"benchmark": home} | shifts.natural_shifts(atlas)
    tests |= {f"{kind}, strength 3": shifts.corrupted(home, kind, 3) for kind in shifts.CORRUPTIONS}
    names = training.class_names
    features = probe_features(model, preprocess(training.images, model.config))
    home_features = probe_features(model, preprocess(home.images, model.config))
    probe = linear_probe(features, training.labels, home_features, home.labels, seed=seed)
    classifier = zero_shot_classifier(model, tokenizer, names, PLAIN)

    def by_names(images):
        return encode_images(model, preprocess(images, model.config)) @ classifier

    def by_labels(images):
        return torch.from_numpy(probe.scores(probe_features(model, preprocess(images, model.config))))

    return {
        shift: {
            "zero_shot": shifted_accuracy(by_names, names, task),
            "probe": shifted_accuracy(by_labels, names, task),
        }
        for shift, task in tests.items()
    }


def run(setting: Setting) -> dict:
    """-> for each seed the tasks and the shifts, the number of shots zero-shot is worth, and the claims."""
    atlas = load_atlas()
    trained_faces = atlas.select(~atlas.of_faces("unseen"))
    names = QUICK_TASKS if setting.scale == "quick" else (*NAMED, "handwritten-digits", "script", "weight", "slant")
    tests = {name: task for name, task in glyph_tasks(atlas).items() if name in names}
    tasks, moved = [], []
    for seed, (model, tokenizer) in enumerate(trained_models(setting)):
        of_seed = {}
        for name, test in tqdm(tests.items(), desc="tasks", unit="task", leave=False):
            of_seed[name] = compare(model, tokenizer, *labelled(some_classes(test), trained_faces, seed), seed)
        tasks.append(of_seed)
        moved.append(under_shift(model, tokenizer, atlas, seed))
    worths = {
        name: worth(*(np.mean([of_seed[name][kind] for of_seed in tasks], axis=0) for kind in ("zero_shot", "shots")))
        for name in tests
    }
    known = {name: drawn_alike(some_classes(test), trained_faces) for name, test in tests.items() if name in NAMED}
    results = {"tasks": tasks, "worth": worths, "shifts": moved, "drawn_alike": known}
    return results | {"claims": claims(results)}


def gain(tasks: dict[str, dict], names: Iterable[str]) -> float:
    """Mean points that the probe is ahead of zero-shot, on some of one seed's tasks."""
    return 100 * float(np.mean([tasks[name]["probe"] - tasks[name]["zero_shot"] for name in names]))


def claims(results: dict) -> list[dict[str, str]]:
    tasks, moved, names = results["tasks"], results["shifts"], list(results["worth"])
    new = [name for name in names if results["drawn_alike"].get(name, 0) < 1]
    gains, of_new = ([gain(of_seed, some) for of_seed in tasks] for some in (names, new))
    beaten = [sum(t["zero_shot"] > t["probe"] for t in of_seed.values()) for of_seed in tasks]
    medians = [float(np.median([worth(t["zero_shot"], t["shots"]) for t in of_seed.values()])) for of_seed in tasks]
    losses = {
        shift: [100 * (of_seed[shift]["probe"] - of_seed[shift]["zero_shot"]) for of_seed in moved]
        for shift in moved[0]
    }
    known = len(names) - len(new)
    without = f" ({spread(of_new, '+.1f')} without {known} whose drawings the probe knew)" if known else ""
    return [
        claim("a probe on labelled pictures beats zero-shot", "+9.2 points on ImageNet",
              f"{spread(gains, '+.1f')} points, mean of {len(names)} tasks{without}; zero-shot is ahead on "
              f"{spread(beaten)} of them"),
        claim("zero-shot is worth so many labels a class", "4 on average, 16 on ImageNet",
              f"{spread(medians) if max(medians) >= 1 else 'less than one'}, median of {len(names)} tasks"),
        claim("the probe's gain is lost under shift", "ImageNet +9.2, while -R -4.7, ObjectNet -3.8, Sketch -2.8, "
              "-A -1.9", ", ".join(f"{shift} {spread(points, '+.1f')}" for shift, points in losses.items())),
    ]  # fmt: skip


def as_text(results: dict) -> str:
    """A line for each task, one for each shift, and the claims."""
    rows = [
        (name, *(percent([of_seed[name][kind] for of_seed in results["tasks"]]) for kind in ("zero_shot", "probe")),
         "under 1" if shots < 1 else "over 16" if shots > 16 else f"{shots:.1f}")
        for name, shots in results["worth"].items()
    ]  # fmt: skip
    moved = [
        (shift, *(percent([of_seed[shift][kind] for of_seed in results["shifts"]]) for kind in ("zero_shot", "probe")), "")
        for shift in results["shifts"][0]
    ]  # fmt: skip
    first = table(("task", "zero-shot", "probe", "shots it is worth"), rows)
    second = table(("benchmark and shifts", "zero-shot", "probe", ""), moved)
    return f"{first}\n\n{second}\n\n{claims_as_text(results['claims'])}"


def plot(results: dict) -> None:
    """Left, accuracy against shots, mean over tasks, zero-shot dashed; right, probe less zero-shot under shift."""
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=(1, 1.1))
    tasks = [t for of_seed in results["tasks"] for t in of_seed.values()]
    curves = 100 * np.array([t["shots"] for t in tasks])
    left.plot(SHOTS, curves.mean(0), marker="o", color=BLUE, label="probe, mean over tasks")
    left.fill_between(
        SHOTS, *np.percentile(curves, (25, 75), axis=0), color=BLUE, alpha=0.15, label="half of the tasks"
    )
    names = 100 * np.mean([t["zero_shot"] for t in tasks])
    left.axhline(names, color=VERMILION, linestyle="--", label="zero-shot, mean over tasks")
    left.set_xscale("log", base=2)
    left.set_xticks(SHOTS, SHOTS)
    left.set(xlabel="labelled pictures a class", ylabel="accuracy, %", ylim=(0, 100), title="What a name is worth")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    moved = list(results["shifts"][0])[::-1]
    points = {
        shift: [100 * (of_seed[shift]["probe"] - of_seed[shift]["zero_shot"]) for of_seed in results["shifts"]]
        for shift in moved
    }
    means = [np.mean(points[shift]) for shift in moved]
    right.barh(moved, means, color=[BLUE if mean > 0 else GREY for mean in means], height=0.6)
    for shift in moved:
        right.scatter(points[shift], [shift] * len(points[shift]), color="black", s=10, zorder=3)
    right.axvline(0, color=VERMILION, linestyle="--")
    right.set(xlabel="probe less zero-shot, points (dots: seeds)", title="A probe fitted to the benchmark")
    right.grid(axis="y", visible=False)
