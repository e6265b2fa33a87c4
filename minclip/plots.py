"""The course's pictures: one style, and the drawings that notebooks share.

Colours are Okabe and Ito's, which readers with any kind of colour vision can tell apart; quantities
that have a sign are drawn blue through white to orange-brown, those that have none from light to dark.
A function draws on the axes it is given, or makes its own, and returns nothing, so that a notebook
cell which ends in one shows the picture alone.
"""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from .checkpoint import write_atomically
from .errors import MinclipError

# Okabe & Ito (2008), "Color universal design".
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, BLACK, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#000000", "#7F7F7F"
PALETTE = [BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW]

SIGNED = LinearSegmentedColormap.from_list("signed", [BLUE, "#FFFFFF", VERMILION])  # minus, nothing, plus
POSITIVE = LinearSegmentedColormap.from_list("positive", ["#FFFFFF", SKY, BLUE, "#001B3A"])  # nothing to much


def use_style() -> None:
    """Set matplotlib's defaults for every figure that follows."""
    plt.rcParams.update(
        {
            "figure.figsize": (7.0, 3.6), "figure.dpi": 90, "savefig.dpi": 90, "figure.constrained_layout.use": True,
            "figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white",
            "font.size": 11, "axes.titlesize": 12, "axes.labelsize": 11, "legend.fontsize": 10,
            "xtick.labelsize": 10, "ytick.labelsize": 10, "axes.titlelocation": "left",
            "axes.prop_cycle": plt.cycler(color=PALETTE), "lines.linewidth": 2.0,
            "axes.spines.top": False, "axes.spines.right": False,
            "axes.grid": True, "grid.color": "#E4E4E4", "grid.linewidth": 0.8, "axes.axisbelow": True,
            "legend.frameon": False, "image.interpolation": "nearest",
        }
    )  # fmt: skip


def write(draw: Callable, results, path: Path) -> None:
    """Let `draw(results)` make a figure, and write it to a file (.png, .pdf, .svg) in the course's style.

    Raises MinclipError where nothing can be written.
    """
    with plt.rc_context():
        use_style()
        draw(results)
        write_atomically(path, lambda file: plt.savefig(file, format=path.suffix[1:]))
        plt.close()


def as_array(values) -> np.ndarray:
    """A tensor (on any device, of any float type), array or list as a NumPy array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
        return values.numpy()
    return np.asarray(values)


def as_picture(image) -> np.ndarray:
    """One picture as matplotlib shows it: (3, H, W) or (H, W, 3) or (H, W), in [0, 1] or uint8."""
    picture = as_array(image)
    if picture.ndim == 3 and picture.shape[0] == 3 and picture.shape[2] != 3:
        picture = picture.transpose(1, 2, 0)
    if picture.ndim not in (2, 3):
        raise MinclipError(f"A picture has shape {picture.shape}; expected (3, H, W), (H, W, 3) or (H, W).")
    if picture.dtype == np.uint8:
        return picture / 255
    return picture.clip(0, 1)


def matrix(
    values,
    ax: Axes | None = None,
    *,
    rows: Sequence | None = None,
    columns: Sequence[str] | None = None,
    title: str = "",
    label: str = "",
    numbers: str | None = None,
    limit: float | None = None,
    signed: bool | None = None,
    diagonal: bool = True,
) -> None:
    """Draw a matrix (N, M): pictures down, captions across, the matching pairs outlined.

    rows: a picture or a string for each row; columns: a string for each column
    label: what the colours measure, with its unit
    numbers: a format such as ".2f" to print each entry
    limit: the largest magnitude the colours tell apart; that of the values if not given
    signed: whether colours run both ways from zero; if not given, whether a value is negative
    diagonal: outline the entries (i, i)
    """
    values = as_array(values)
    count, width = values.shape
    if ax is None:
        words = max(map(len, rows)) if rows is not None and isinstance(rows[0], str) else 8
        ax = plt.subplots(figsize=(1.3 + 0.08 * words + 0.52 * width, 1.6 + 0.52 * count))[1]
    signed = bool((values < 0).any()) if signed is None else signed
    limit = limit or float(np.abs(values[np.isfinite(values)]).max()) or 1.0
    drawn = ax.imshow(values, cmap=SIGNED if signed else POSITIVE, vmin=-limit if signed else 0, vmax=limit)
    ax.figure.colorbar(drawn, ax=ax, label=label, fraction=0.046, pad=0.03)
    ax.set_title(title)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    label_columns(ax, columns, width)
    label_rows(ax, rows, count)
    if diagonal:
        for i in range(min(count, width)):
            ax.add_patch(plt.Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=BLACK, linewidth=1.3))
    if numbers is not None:
        for (i, j), value in np.ndenumerate(values):
            strong = abs(value) > (0.62 if signed else 0.5) * limit
            ax.text(
                j, i, format(float(value), "z" + numbers), ha="center", va="center", fontsize=8,
                color="w" if strong else "k",
            )  # fmt: skip


def label_columns(ax: Axes, names: Sequence[str] | None, count: int) -> None:
    """Names along the bottom, slanted so that long ones do not collide."""
    if names is None:
        ax.set_xticks([])
    else:
        ax.set_xticks(range(count), names, rotation=40, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)


class Thumbnail(OffsetImage):
    """A picture beside a row of a matrix: 24 points high, or as high as the row, so that none covers its neighbour.

    Smoothed when it is drawn in fewer pixels than it has: "nearest" would leave out rows, and thin strokes with them.
    """

    def __init__(self, picture: np.ndarray, matrix: Axes):
        super().__init__(picture, cmap="gray", norm=plt.Normalize(0, 1), resample=True)
        self.matrix = matrix

    def get_zoom(self) -> float:
        to_pixels = self.matrix.transData.transform
        row = abs(to_pixels((0, 1))[1] - to_pixels((0, 0))[1]) * 72 / self.matrix.figure.dpi  # in points
        return min(24, 0.95 * row) / len(self.get_data())

    def draw(self, renderer) -> None:
        shrinks = self.get_zoom() * renderer.points_to_pixels(1) < 1
        self.image.set_interpolation("hanning" if shrinks else "nearest")
        super().draw(renderer)


def label_rows(ax: Axes, rows: Sequence | None, count: int) -> None:
    """Names, or small pictures, along the left."""
    if rows is None:
        ax.set_yticks([])
    elif isinstance(rows[0], str):
        ax.set_yticks(range(count), rows)
    else:
        ax.set_yticks(range(count), [" " * 7] * count)  # room for the pictures
        for i, image in enumerate(rows):
            place = AnnotationBbox(
                Thumbnail(as_picture(image), ax), (0, i), xybox=(-18, 0), xycoords=("axes fraction", "data"), boxcoords="offset points",
                frameon=False, annotation_clip=False,
            )  # fmt: skip
            ax.add_artist(place)


def pictures(
    images: Sequence, captions: Sequence[str] | None = None, *, columns: int = 8, side: float = 1.1, size: int = 9
) -> None:
    """A sheet of pictures, `columns` in a row, each `side` inches wide, captions of `size` points below."""
    columns = min(columns, len(images))
    lines = -(-len(images) // columns)
    letters = int(side * 72 / (0.58 * size))  # that fit across
    captions = ["\n".join(textwrap.wrap(caption, letters)) for caption in captions or [""] * len(images)]
    below = max(caption.count("\n") + bool(caption) for caption in captions) * size * 1.5 / 72
    _, axes = plt.subplots(lines, columns, figsize=(columns * side, lines * (0.85 * side + below)), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, caption in zip(axes.flat, images, captions):
        ax.imshow(as_picture(image), cmap="gray", vmin=0, vmax=1)
        ax.text(0.5, -0.04, caption, transform=ax.transAxes, ha="center", va="top", fontsize=size)


def training_curves(records: Sequence[dict], batch_size: int) -> None:
    """Loss and logit scale of `fit`'s records against pictures seen; ln N, the loss of guessing, marked."""
    seen = [record["images_seen"] / 1000 for record in records]
    _, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4))
    left.plot(seen, [record["loss"] for record in records])
    left.axhline(np.log(batch_size), color=GREY, linestyle="--", linewidth=1.2)
    left.annotate(
        f"ln {batch_size}: guessing", (seen[-1], np.log(batch_size)), (0, -4), textcoords="offset points",
        ha="right", va="top", color=GREY,
    )  # fmt: skip
    left.set(xlabel="pictures seen, thousands", ylabel="contrastive loss, nats", ylim=(0, None))
    right.plot(seen, [record["logit_scale"] for record in records], color=VERMILION)
    right.set(xlabel="pictures seen, thousands", ylabel="logit scale (1 / temperature)", ylim=(0, None))


def task_accuracies(accuracy: dict[str, float], chance: dict[str, float]) -> None:
    """A bar a task, the best on top, chance as a tick across it."""
    names = sorted(accuracy, key=accuracy.get)
    ax = plt.subplots(figsize=(8, 0.9 + 0.24 * len(names)))[1]
    ax.barh(names, [100 * accuracy[name] for name in names], color=SKY, height=0.7)
    ax.scatter([100 * chance[name] for name in names], names, marker="|", s=90, color=BLACK, label="chance", zorder=3)
    ax.set(xlabel="zero-shot accuracy, %", xlim=(0, 100), ylim=(-0.7, len(names) - 0.3))
    ax.grid(axis="y", visible=False)
    ax.legend(loc="lower right")


def token_strips(strips: Sequence[Sequence[str]], labels: Sequence[str] | None = None, title: str = "") -> None:
    """Texts cut into tokens, a line each: one box a token, neighbours in different shades.

    strips: for each text its tokens; labels: what to write on the left of each
    """
    unit, gap = 0.105, 0.06  # inches a letter, and between boxes
    widths = [[unit * (len(token) + 1.2) for token in strip] for strip in strips]
    longest = max(sum(line) + gap * len(line) for line in widths)
    _, ax = plt.subplots(figsize=(longest + 0.09 * max(map(len, labels or [""])) + 0.3, 0.36 * len(strips) + 0.4))
    for place, (strip, line) in enumerate(zip(strips, widths)):
        left = 0.0
        for i, (token, width) in enumerate(zip(strip, line)):
            shade = ["#CFE6F5", "#FBE3B5"][i % 2]
            ax.add_patch(
                plt.Rectangle((left, place - 0.36), width, 0.72, facecolor=shade, edgecolor=GREY, linewidth=0.6)
            )
            ax.text(left + width / 2, place, token, ha="center", va="center", fontsize=9.5, family="monospace")
            left += width + gap
    ax.set(xlim=(-0.02, longest), ylim=(len(strips) - 0.5, -0.5), xticks=[], title=title)
    ax.set_yticks(range(len(strips)), labels or [""] * len(strips))
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
