"""A benchmark, and the same classes as its training pictures never showed them (paper, section 3.3).

ImageNet is one way of collecting pictures; ImageNetV2, -Sketch, -R, -A and -C are others, of the same
classes. Here the benchmark is the 62 Latin letters and digits printed in one typeface, and its shifts
are another typeface, outlines, handwriting, hard examples picked by another model, and corruption in
five strengths. Notebook 10.
"""

import re
from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, maximum_filter

from ..errors import MinclipError
from .glyphs import UNSEEN_TYPEFACE, Atlas
from .painting import GlyphPairs, Paint
from .tasks import PLAIN, Task, handwritten_digits

TYPEFACE = "STIX"  # the benchmark's
CLASSES = r"digit \w+|latin (capital|small) letter [a-z]"
PRINT = Paint(coloured=0)  # black on white, as little turned and speckled as what the demo trains on
HARD = Paint(rotation=15, zoom=0.25, shift=0.1, noise=0.15, coloured=0)
# Five strengths of each corruption, in units of its own.
CORRUPTIONS = {
    "noise": (0.1, 0.15, 0.2, 0.3, 0.4),  # standard deviation; white less black is 1
    "blur": (0.6, 0.9, 1.2, 1.6, 2.0),  # pixels, standard deviation
    "contrast": (0.8, 0.6, 0.4, 0.25, 0.15),  # share of the difference between ink and paper that is left
    "patch": (5, 7, 9, 11, 13),  # pixels, side of a grey square laid on the picture
}


def benchmark_glyphs(atlas: Atlas) -> Atlas:
    """The benchmark's classes in its typeface. Raises MinclipError where there are none."""
    return in_typeface(alphanumerics(atlas), TYPEFACE)


def alphanumerics(atlas: Atlas) -> Atlas:
    """The benchmark's 62 classes, in every face."""
    return atlas.select(np.array([re.fullmatch(CLASSES, name) is not None for name in atlas.name], dtype=bool))


def in_typeface(glyphs: Atlas, typeface: str) -> Atlas:
    """The glyphs of one typeface, in all its weights and slants. Raises MinclipError where there are none."""
    glyphs = glyphs.select(glyphs.of_faces("typeface") == typeface)
    if len(glyphs) == 0:
        raise MinclipError(f"The atlas holds no glyph in {typeface!r}; take the whole atlas, load_atlas().")
    return glyphs


def painted_task(name: str, glyphs: Atlas, each: int, about: str, paint: Paint = PRINT, seed: int = 0) -> Task:
    """`each` painted pictures of every name, whose classes are the names; the stream is fixed by the seed."""
    pairs = GlyphPairs(glyphs, paint)
    rows, ink, paper, chance = pairs.draw(each * len(pairs), seed, start=0)
    pictures = pairs.paint_pictures(rows, ink, paper, chance[:, 6:], seed)  # (N, 3, S, S) in [0, 1]
    images = (255 * pictures).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return Task(name, images, np.searchsorted(pairs.names, glyphs.name[rows]), pairs.names.tolist(), PLAIN, about)


def benchmark(atlas: Atlas, each: int, seed: int = 0) -> tuple[Task, Task]:
    """Training and test pictures of the benchmark: the same drawings, differently placed and speckled."""
    glyphs = benchmark_glyphs(atlas)
    about = f"letters and digits printed in {TYPEFACE}"
    return (
        painted_task("benchmark-training", glyphs, each, about, seed=2 * seed + 1),
        painted_task("benchmark", glyphs, 16, about, seed=2 * seed),
    )


def natural_shifts(atlas: Atlas) -> dict[str, Task]:
    """The benchmark's classes collected otherwise: {"new-typeface", "outlines", "handwriting"}.

    Handwriting has the digits alone, as ImageNet-R and -A have 200 of ImageNet's 1,000 classes.
    """
    typeface = painted_task(
        "new-typeface", in_typeface(alphanumerics(atlas), UNSEEN_TYPEFACE), 16, f"printed in {UNSEEN_TYPEFACE}", seed=3
    )
    outlines = painted_task("outlines", outlined(benchmark_glyphs(atlas)), 16, "the outline alone", seed=4)
    hands = replace(handwritten_digits(atlas.size), name="handwriting", about="digits written by other hands")
    return {task.name: task for task in (typeface, outlines, hands)}


def outlined(glyphs: Atlas) -> Atlas:
    """Each glyph's contour, a pixel wide, around where its ink was."""
    grown = np.stack([maximum_filter(ink, size=3) for ink in glyphs.ink])
    return replace(glyphs, ink=grown - glyphs.ink)


def hard_pictures(atlas: Atlas, each: int = 48, seed: int = 5) -> Task:
    """The pool that hard examples are picked from: the benchmark's glyphs, turned, scaled and speckled more."""
    return painted_task("hard", benchmark_glyphs(atlas), each, "turned, scaled and speckled more", HARD, seed)


def hard_examples(pool: Task, predicted: np.ndarray, name: str) -> Task:
    """The pictures of the pool that a model got wrong, as ImageNet-A was picked with a ResNet-50.

    predicted: (N,) the class that the picking model gave each picture

    Raises MinclipError where the model made no mistake.
    """
    wrong = np.asarray(predicted) != pool.labels
    if not wrong.any():
        raise MinclipError("The model that picks got every picture right; give it a larger or harder pool.")
    return replace(pool.select(wrong), name=name)


def corrupted(task: Task, kind: str, strength: int, seed: int = 0) -> Task:
    """The task's pictures, corrupted in one of CORRUPTIONS' kinds, with a strength from 1 to 5.

    Raises MinclipError for another kind or strength.
    """
    if kind not in CORRUPTIONS or strength not in range(1, 6):
        raise MinclipError(
            f"Corruption {kind!r} in strength {strength} does not exist; there are {', '.join(CORRUPTIONS)}, 1 to 5."
        )
    amount, random = CORRUPTIONS[kind][strength - 1], np.random.default_rng([seed, strength])
    images = task.images / 255  # (N, S, S, 3)
    if kind == "noise":
        images = images + amount * random.standard_normal(images.shape)
    elif kind == "blur":
        images = gaussian_filter(images, (0, amount, amount, 0))
    elif kind == "contrast":
        images = 0.5 + amount * (images - 0.5)
    else:
        corners = random.integers(0, images.shape[1] - amount + 1, (len(images), 2))
        for image, (top, left) in zip(images, corners):
            image[top : top + amount, left : left + amount] = 0.5
    images = np.round(255 * images.clip(0, 1)).astype(np.uint8)
    return replace(task, name=f"{kind}-{strength}", images=images)


def every_corruption(task: Task) -> dict[str, Task]:
    """Four kinds in five strengths, {"noise-1": ..., "patch-5": ...}."""
    tasks = [corrupted(task, kind, strength) for kind in CORRUPTIONS for strength in range(1, 6)]
    return {task.name: task for task in tasks}


def as_tensor(task: Task) -> torch.Tensor:
    """(N, 3, S, S) uint8, what `normalize` and `preprocess` take."""
    return torch.from_numpy(task.images).permute(0, 3, 1, 2)
