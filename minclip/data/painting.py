"""The atlas painted: an endless stream of captioned pictures, each fixed by (seed, index).

A glyph is drawn in a named ink on a named paper, turned, scaled, shifted and speckled, and a caption
says what can be seen. Names, inks, papers, styles, typefaces and wordings compose into millions of
distinct captions; how often two in a batch agree is up to the shares in `Paint`. A batch is painted in
one expression on whatever device holds the atlas: no worker processes, no files. Notebook 01.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

from ..errors import MinclipError
from .glyphs import Atlas
from .images import to_device

# Named colours a reader would name the same way, dark ones and light ones (RGB, 0 to 255).
DARK = {
    "black": (0, 0, 0), "red": (200, 20, 20), "green": (10, 120, 40), "blue": (20, 50, 200),
    "purple": (110, 20, 140), "brown": (110, 60, 20), "navy": (10, 20, 90), "grey": (90, 90, 90),
}  # fmt: skip
LIGHT = {
    "white": (255, 255, 255), "yellow": (255, 240, 60), "pink": (255, 190, 210), "cyan": (120, 240, 250),
    "cream": (250, 240, 210), "silver": (205, 205, 210), "lime": (190, 250, 80), "orange": (255, 180, 60),
}  # fmt: skip
COLOURS = DARK | LIGHT
BLACK, WHITE = list(COLOURS).index("black"), list(COLOURS).index("white")

# What people write under pictures. The bare name is the commonest caption by far; a picture in colour
# often has its colours named, one in black on white its style or typeface.
BARE = "{name}"
STYLED = (
    "the character {name}",
    "a picture of {name}",
    "{style} {name}",
    "{name} in {typeface}",
    "{style} {name} in {typeface}",
)
COLOURED = (
    "{ink} {name}",
    "{name} on {paper}",
    "{ink} {name} on {paper}",
    "{style} {name} in {typeface}, {ink} on {paper}",
)

UNIFORMS = 16  # random numbers a picture consumes: four blocks of the Philox counter


@dataclass(frozen=True)
class Paint:
    """How far painted pictures stray from black print on white paper. 0 everywhere is the atlas itself."""

    rotation: float = 3.0  # degrees either way
    zoom: float = 0.06  # scale factor between 1 / (1 + zoom) and 1 + zoom
    shift: float = 0.03  # of the picture's side, either way
    noise: float = 0.02  # standard deviation of the speckle, at most
    coloured: float = 0.25  # share of pictures in coloured ink and paper
    colours_named: float = 0.6  # share of the coloured pictures whose captions name the colours
    described: float = 0.25  # share of the black ones on white whose captions say more than the name

    def __post_init__(self):
        for name, value in asdict(self).items():
            most = 1 if name in ("coloured", "colours_named", "described") else math.inf
            if not (0 <= value <= most and math.isfinite(value)):
                raise MinclipError(
                    f"paint.{name} is {value}; give {'a share in [0, 1]' if most == 1 else '0 or more'}."
                )


class GlyphPairs:
    """Training pairs painted from an atlas, dealt name by name.

    An epoch deals every name once, in an order drawn from (seed, epoch), and leaves to chance which
    of its faces draws it. So no batch within an epoch holds one name twice (two identical captions
    would be each other's negatives), and a rare name counts as much as a common one.

    atlas: which glyphs; usually `load_atlas().training()`
    device: where to paint; the atlas is held there, one byte a pixel
    """

    def __init__(self, atlas: Atlas, paint: Paint = Paint(), device: str | torch.device = "cpu"):
        if len(atlas) == 0:
            raise MinclipError("The atlas holds no glyph; select fewer conditions, or add fonts.")
        self.atlas, self.paint, self.device = atlas, paint, torch.device(device)
        self.names, name_of = np.unique(atlas.name, return_inverse=True)
        # Glyphs sorted by name: those of name k are rows[first[k] : first[k] + count[k]].
        self.rows = np.argsort(name_of, kind="stable")
        self.count = np.bincount(name_of)
        self.first = np.cumsum(self.count) - self.count
        self.typeface, self.style = atlas.of_faces("typeface"), atlas.of_faces("style")
        self.ink = torch.from_numpy(atlas.ink).to(self.device)
        self.palette = torch.tensor(list(COLOURS.values()), device=self.device) / 255
        self.coloured_rows = torch.full((len(atlas),), -1)
        self.coloured_rows[list(atlas.colour)] = torch.arange(len(atlas.colour))
        self.colours = torch.from_numpy(np.stack(list(atlas.colour.values()))) if atlas.colour else None

    def __len__(self) -> int:
        """Pictures in an epoch: one of each name."""
        return len(self.names)

    def batches(
        self, batch_size: int, seed: int = 0, start: int = 0, stride: int | None = None
    ) -> Iterator[tuple[torch.Tensor, list[str]]]:
        """Yield (images (B, 3, S, S) float in [0, 1], B captions) for ever, from picture `start` on.

        Each batch begins `stride` pictures after the one before; None: where that one ended.
        """
        while True:
            yield self.batch(batch_size, seed, start)
            start += stride or batch_size

    def batch(self, batch_size: int, seed: int = 0, start: int = 0) -> tuple[torch.Tensor, list[str]]:
        """Pictures `start` to `start + batch_size` of the stream, whatever the batch size before."""
        rows, ink, paper, uniforms = self.draw(batch_size, seed, start)
        pictures = self.paint_pictures(rows, ink, paper, uniforms[:, 6:], seed)
        return pictures, self.write_captions(rows, ink, paper, uniforms[:, 4:6])

    def captions(self, count: int, seed: int = 0) -> list[str]:
        """The captions alone of the stream's first `count` pictures."""
        rows, ink, paper, uniforms = self.draw(count, seed, start=0)
        return self.write_captions(rows, ink, paper, uniforms[:, 4:6])

    def draw(self, count: int, seed: int, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Row of the atlas, ink, paper (count,) and random numbers (count, UNIFORMS) of a stretch of the stream."""
        uniforms = uniforms_of(seed, start, count)
        rows = self.deal(seed, np.arange(start, start + count), uniforms[:, 0])
        return rows, *choose_colours(uniforms[:, 1:4], self.paint.coloured), uniforms

    def deal(self, seed: int, index: np.ndarray, chance: np.ndarray) -> np.ndarray:
        """(B,) rows of the atlas for the given places in the stream."""
        epoch, place = np.divmod(index, len(self))
        name = np.empty_like(index)
        for e in np.unique(epoch):
            order = np.random.default_rng([seed, e]).permutation(len(self))
            name[epoch == e] = order[place[epoch == e]]
        return self.rows[self.first[name] + (chance * self.count[name]).astype(np.int64)]

    def write_captions(self, rows: np.ndarray, ink: np.ndarray, paper: np.ndarray, chance: np.ndarray) -> list[str]:
        """A caption for each picture, in a wording drawn by `chance` (B, 2), true of what is seen."""
        colour_names = list(COLOURS)
        black_on_white = (ink == BLACK) & (paper == WHITE)
        described = chance[:, 0] < np.where(black_on_white, self.paint.described, self.paint.colours_named)
        captions = []
        for i, row in enumerate(rows.tolist()):
            wordings = STYLED if black_on_white[i] else COLOURED
            wording = wordings[int(chance[i, 1] * len(wordings))] if described[i] else BARE
            captions.append(
                wording.format(
                    name=self.atlas.name[row], style=self.style[row], typeface=self.typeface[row].lower(),
                    ink="coloured" if row in self.atlas.colour else colour_names[ink[i]], paper=colour_names[paper[i]],
                )
            )  # fmt: skip
        return captions

    def paint_pictures(
        self, rows: np.ndarray, ink: np.ndarray, paper: np.ndarray, chance: np.ndarray, seed: int
    ) -> torch.Tensor:
        """(B, 3, S, S) float in [0, 1]: the glyphs of `rows`, placed by `chance` (B, at least 7)."""
        paint, size = self.paint, self.atlas.size
        chance = to_device(torch.from_numpy(chance).float(), self.device)
        position = to_device(torch.from_numpy(rows), self.device)
        spread = 2 * chance - 1  # uniform in [-1, 1]
        angle = torch.deg2rad(paint.rotation * spread[:, 0])
        zoom = (1 + paint.zoom) ** spread[:, 1]
        # Where each output pixel is read from: the inverse of turn, zoom, shift.
        cos, sin, shift = angle.cos() / zoom, angle.sin() / zoom, 2 * paint.shift * spread[:, 2:4]
        place = torch.stack([cos, sin, shift[:, 0], -sin, cos, shift[:, 1]], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(place, (len(rows), 1, size, size), align_corners=False)

        front = rearrange(self.palette[to_device(torch.from_numpy(ink), self.device)], "b c -> b c 1 1")
        back = rearrange(self.palette[to_device(torch.from_numpy(paper), self.device)], "b c -> b c 1 1")
        cover = F.grid_sample(self.ink[position].unsqueeze(1) / 255, grid, align_corners=False)
        if self.colours is not None:
            front = self.own_colours(front, torch.from_numpy(rows), grid)
        pictures = back + (front - back) * cover
        if paint.noise:
            # One sheet of speckle a seed; each picture lays it down at an offset of its own.
            offset = (chance[:, 4:6] * size).long()
            strength = rearrange(paint.noise * chance[:, 6], "b -> b 1 1 1")
            pictures = pictures + strength * self.speckle(seed, offset)
        return pictures.clamp(0, 1)

    def own_colours(self, front: torch.Tensor, rows: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S): glyphs that bring their own colours (emoji) keep them; the rest take the ink's."""
        which = self.coloured_rows[rows]
        front = front.expand(-1, -1, self.atlas.size, self.atlas.size).clone()
        own = (which >= 0).nonzero().flatten()
        pictures = to_device(rearrange(self.colours[which[own]], "b h w c -> b c h w"), self.device) / 255
        own = to_device(own, self.device)
        front[own] = F.grid_sample(pictures, grid[own], align_corners=False)
        return front

    def speckle(self, seed: int, offset: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) unit noise, read from a fixed sheet at `offset` (B, 2) pixels."""
        size = self.atlas.size
        if getattr(self, "_sheet_seed", None) != seed:
            generator = torch.Generator().manual_seed(seed)
            sheet = torch.randn(3, 2 * size, 2 * size, generator=generator).to(self.device)
            self._windows, self._sheet_seed = sheet.unfold(1, size, 1).unfold(2, size, 1), seed
        return rearrange(self._windows[:, offset[:, 0], offset[:, 1]], "c b h w -> b c h w")


def uniforms_of(seed: int, start: int, count: int) -> np.ndarray:
    """(count, UNIFORMS) numbers in [0, 1) that depend on (seed, place in the stream) alone.

    Philox turns a counter into random bits, so place i's numbers can be had without drawing the
    ones before it.
    """
    philox = np.random.Philox(key=seed).advance(start * UNIFORMS // 4)
    return np.random.Generator(philox).random((count, UNIFORMS))


def choose_colours(chance: np.ndarray, coloured: float) -> tuple[np.ndarray, np.ndarray]:
    """(B,) ink and (B,) paper as places in COLOURS: one dark and one light, black on white by default."""
    dark = (chance[:, 0] * len(DARK)).astype(int)
    light = len(DARK) + (chance[:, 1] * len(LIGHT)).astype(int)
    plain = chance[:, 2] >= coloured
    dark[plain], light[plain] = BLACK, WHITE
    # A third of the coloured pictures are light on dark, as chalk on a blackboard.
    inverted = chance[:, 2] < coloured / 3
    return np.where(inverted, light, dark), np.where(inverted, dark, light)
