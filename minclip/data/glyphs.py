"""Fonts are captioned pictures: every character a font can draw has a name in plain English.

Unicode named them (GREEK SMALL LETTER ALPHA WITH PSILI), type designers drew them, and nobody did
either to train a model: it is natural language supervision, found and not annotated (paper,
section 2.1). This module renders every named character of matplotlib's fonts, and of any folder of
fonts you add, into one `Atlas` of pictures, and splits it by name and by face so that a test shows
what was never seen. `painting.py` turns the atlas into training pairs. Notebook 01.
"""

import hashlib
import logging
import unicodedata
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from fontTools import unicodedata as scripts
from fontTools.ttLib import TTCollection, TTFont
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tqdm import tqdm

from ..errors import MinclipError

logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns of STIX's odd creation dates
FONT_SUFFIXES = {".ttf", ".otf", ".ttc", ".otc"}
# The faces no training picture comes from: a whole typeface, and for the characters it lacks
# (Hebrew, playing cards, dominoes) one weight-and-slant combination of another.
UNSEEN_TYPEFACE = "DejaVu Sans Mono"
UNSEEN_FACE = "DejaVu Sans Bold Oblique"


@dataclass(frozen=True)
class Face:
    """One font: a typeface (the family) in one weight and slant."""

    path: str
    index: int  # position inside a .ttc collection
    typeface: str
    weight: str  # "regular" or "bold"
    slant: str  # "upright" or "italic"
    full_name: str
    coloured: bool = False  # an emoji font
    strike: int = 0  # the largest size in pixels at which a font of bitmaps exists; 0 for outlines

    @property
    def unseen(self) -> bool:
        """Held out: no training picture is drawn with this face."""
        return self.typeface == UNSEEN_TYPEFACE or self.full_name == UNSEEN_FACE

    @property
    def style(self) -> str:
        """What one would say aloud: "bold italic", "bold", "italic" or "regular"."""
        words = [self.weight] * (self.weight == "bold") + [self.slant] * (self.slant == "italic")
        return " ".join(words) or "regular"


@dataclass
class Atlas:
    """Pictures of N glyphs, S pixels square, with what is known of each.

    ink: (N, S, S) uint8, how much of each pixel is covered, 0 to 255
    colour: {row: (S, S, 3) uint8} for the glyphs that bring their own colours (emoji fonts)
    code_point, face: (N,) int64, the character and the index into `faces`
    skipped: {file: reason} for fonts that could not be read
    """

    ink: np.ndarray
    code_point: np.ndarray
    face: np.ndarray
    faces: list[Face]
    colour: dict[int, np.ndarray]
    skipped: dict[str, str]

    def __len__(self) -> int:
        return len(self.ink)

    @property
    def size(self) -> int:
        """Pixels along one side."""
        return self.ink.shape[1]

    @cached_property
    def name(self) -> np.ndarray:
        """(N,) str: each glyph's Unicode name in lower case."""
        points, inverse = np.unique(self.code_point, return_inverse=True)
        return np.array([character_name(p) for p in points])[inverse]

    @cached_property
    def script(self) -> np.ndarray:
        """(N,) str: the writing system, "Latin", "Greek", ...; "Common" for symbols and digits."""
        points, inverse = np.unique(self.code_point, return_inverse=True)
        return np.array([scripts.script_name(scripts.script(chr(p))) for p in points])[inverse]

    @cached_property
    def split(self) -> np.ndarray:
        """(N,) str: "train", "validation" or "test", by the character alone."""
        points, inverse = np.unique(self.code_point, return_inverse=True)
        return np.array([split_of(p) for p in points])[inverse]

    def of_faces(self, attribute: str) -> np.ndarray:
        """(N,) an attribute of each glyph's face: "typeface", "weight", "slant", "style", "unseen"."""
        return np.array([getattr(face, attribute) for face in self.faces])[self.face]

    def select(self, rows: np.ndarray) -> "Atlas":
        """The atlas of the rows where a boolean mask (N,) is true, or with the given indices."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        colour = {new: self.colour[old] for new, old in enumerate(rows.tolist()) if old in self.colour}
        return Atlas(self.ink[rows], self.code_point[rows], self.face[rows], self.faces, colour, self.skipped)

    def training(self) -> "Atlas":
        """The glyphs a model may train on: neither their name nor their face is held out."""
        return self.select((self.split == "train") & ~self.of_faces("unseen"))

    def unseen_names(self, split: str = "test") -> "Atlas":
        """Characters whose names were never trained on, drawn in faces that were."""
        return self.select((self.split == split) & ~self.of_faces("unseen"))

    def pictures(self) -> np.ndarray:
        """(N, S, S, 3) uint8: black on white, coloured glyphs in their own colours."""
        pictures = np.repeat(255 - self.ink[..., None], 3, axis=-1)
        for row, colour in self.colour.items():
            alpha = self.ink[row, ..., None] / 255
            pictures[row] = np.round(colour * alpha + 255 * (1 - alpha))
        return pictures

    def to_dataset(self):
        """A `datasets.Dataset` with `image`, `caption`, `script`, `typeface`, `style`, `split`, ..."""
        from datasets import Dataset, Features, Value  # slow to import, and needed only here
        from datasets import Image as ImageFeature

        columns = {
            "caption": self.name, "character": [chr(p) for p in self.code_point], "script": self.script,
            "typeface": self.of_faces("typeface"), "style": self.of_faces("style"), "split": self.split,
        }  # fmt: skip
        features = Features({"image": ImageFeature(), **{key: Value("string") for key in columns}})

        def rows():
            for i, picture in enumerate(self.pictures()):
                yield {"image": Image.fromarray(picture), **{key: str(c[i]) for key, c in columns.items()}}

        return Dataset.from_generator(rows, features=features)


def character_name(code_point: int) -> str:
    """The character's Unicode name in lower case; "" if it has none."""
    return unicodedata.name(chr(code_point), "").lower()


def split_of(code_point: int) -> str:
    """Where a character belongs, by a hash of its code point: adding fonts moves nothing."""
    draw = int.from_bytes(hashlib.sha256(f"minclip {code_point}".encode()).digest()[:4], "big") / 2**32
    return "test" if draw < 0.095 else "validation" if draw < 0.19 else "train"


def ceiling(pictures: np.ndarray, labels: np.ndarray) -> float:
    """The best accuracy any classifier can reach on pictures (N, ...) with labels (N,).

    Pictures identical to the last pixel that bear different labels (A, GREEK CAPITAL LETTER ALPHA,
    CYRILLIC CAPITAL LETTER A) can be told apart by nobody: of each such group only the most frequent
    label can be had.
    """
    groups: dict[bytes, dict] = {}
    for picture, label in zip(pictures, labels):
        counts = groups.setdefault(picture.tobytes(), {})
        counts[label] = counts.get(label, 0) + 1
    return sum(max(counts.values()) for counts in groups.values()) / len(labels)


def bundled_fonts() -> list[Path]:
    """matplotlib's fonts, without LastResort (a picture of each Unicode block, not of characters)."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [path for path in sorted(folder.glob("*.ttf")) if not path.name.startswith("LastResort")]


def folder_fonts(folder: str | Path) -> list[Path]:
    """Every font file below a folder. Raises MinclipError where there is none."""
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in FONT_SUFFIXES)
    if not paths:
        raise MinclipError(f"No font file (.ttf, .otf, .ttc) below {str(folder)!r}; name a folder that holds some.")
    return paths


def load_atlas(size: int = 32, fonts: str | None = None) -> Atlas:
    """Render every named character of matplotlib's fonts, and of the folder `fonts`, `size` px square.

    A few seconds for 32 px; kept for the life of the process. A font file that cannot be read is
    skipped, and named in the atlas's `skipped`.

    Raises MinclipError for a size below 4, or a folder without fonts.
    """
    if size < 4:
        raise MinclipError(f"An atlas of {size} px pictures shows nothing; give at least 4, better 32.")
    return render_atlas(size, fonts)


@lru_cache(maxsize=4)
def render_atlas(size: int, fonts: str | None) -> Atlas:
    """What `load_atlas` keeps, whichever way it was asked for the same."""
    paths = bundled_fonts() + (folder_fonts(fonts) if fonts else [])
    glyphs, faces, skipped = [], [], {}
    for path in tqdm(paths, desc="rendering fonts", unit="font", leave=False, disable=None):
        try:
            font = [(face, list(render_face(face, size, characters))) for face, characters in read_faces(path)]
        except Exception as error:  # FreeType, fontTools and struct each raise their own for a damaged file
            skipped[str(path)] = f"{type(error).__name__}: {error}"
            continue
        if all(face.coloured and not rendered for face, rendered in font):
            skipped[str(path)] = "none of its characters could be drawn (a newer form of coloured glyphs, COLRv1?)"
        for face, rendered in font:
            glyphs += [(len(faces), *glyph) for glyph in rendered]
            faces.append(face)
    face_of, code_points, ink, colours = zip(*glyphs)
    colour = {row: colours[row] for row in range(len(colours)) if colours[row] is not None}
    return Atlas(np.stack(ink), np.array(code_points), np.array(face_of), faces, colour, skipped)


def read_faces(path: Path) -> list[tuple[Face, list[int]]]:
    """The faces of a font file (several in a collection), each with its named code points."""
    collection = path.suffix.lower() in (".ttc", ".otc")
    with TTCollection(path, lazy=True) if collection else TTFont(path, lazy=True) as file:
        return [read_face(path, index, font) for index, font in enumerate(file.fonts if collection else [file])]


def read_face(path: Path, index: int, font: TTFont) -> tuple[Face, list[int]]:
    """One face and its named code points."""
    names = font["name"]
    family = names.getBestFamilyName() or path.stem
    bold = "OS/2" in font and font["OS/2"].usWeightClass >= 600 or bool(font["head"].macStyle & 1)
    italic = bool(font["post"].italicAngle) or bool(font["head"].macStyle & 2)
    # TeX's fonts call themselves regular and upright, all of them; their file names know better.
    bold, italic = bold or path.stem == "cmb10", italic or path.stem == "cmti10"
    full_name = names.getBestFullName() or path.stem
    strikes = [s.bitmapSizeTable.ppemY for s in font["CBLC"].strikes] if "CBLC" in font else []
    strikes += list(font["sbix"].strikes) if "sbix" in font else []
    face = Face(str(path), index, typeface_name(family), "bold" if bold else "regular",
                "italic" if italic else "upright", full_name, bool(strikes) or "COLR" in font,
                max(strikes, default=0))  # fmt: skip
    characters = sorted(c for c in font.getBestCmap() or {} if character_name(c))
    if face.typeface == "Computer Modern":
        # TeX's fonts predate Unicode: cmsy10 files an arrow under EXCLAMATION MARK. Only letters
        # and digits of the text faces are what their code points say.
        text_face = path.stem in ("cmr10", "cmb10", "cmss10", "cmtt10", "cmti10")
        characters = [c for c in characters if text_face and c < 128 and chr(c).isalnum()]
    return face, characters


def typeface_name(family: str) -> str:
    """The family a reader would name: STIX keeps its large symbols in files of their own."""
    if family.startswith("STIX"):
        return "STIX"
    return "Computer Modern" if family.startswith("cm") and family.endswith("10") else family


def render_face(face: Face, size: int, characters: list[int]):
    """Yield (code point, ink (S, S) uint8, colours (S, S, 3) uint8 or None) for each visible glyph.

    Glyphs stand on a common baseline at a common point size, as on a printed line, so that a
    superscript is small and high and a comma small and low; what would not fit is shrunk.
    """
    if face.coloured:
        yield from render_coloured_face(face, size, characters)
        return
    line = round(0.75 * size)  # both the point size and the height of the baseline, in pixels
    font_at = lru_cache(maxsize=None)(lambda pixels: load_font(face, pixels))
    for code_point in characters:
        text, pixels = chr(code_point), line
        left, top, right, bottom = font_at(pixels).getbbox(text, anchor="ls")
        while (longest := max(right - left, bottom - top)) > size and pixels > 1:
            pixels = max(1, min(pixels - 1, pixels * size // longest))  # hinting rounds up: once may not do
            left, top, right, bottom = font_at(pixels).getbbox(text, anchor="ls")
        # Centred across; on the baseline, or as near to it as fits.
        across = (size - left - right) // 2
        down = min(max(line, -top), size - bottom)
        canvas = Image.new("L", (size, size))
        ImageDraw.Draw(canvas).text((across, down), text, font=font_at(pixels), fill=255, anchor="ls")
        ink = np.asarray(canvas)
        if ink.any():
            yield code_point, ink, None


def render_coloured_face(face: Face, size: int, characters: list[int]):
    """As `render_face`, for a font of coloured pictures, which exist at one large size: scaled to fit.

    Glyphs of such a font without colours of their own, its digits for one, are ink like any other's.
    """
    font = load_font(face, face.strike or 4 * size)
    for code_point in characters:
        left, top, right, bottom = map(int, font.getbbox(chr(code_point), anchor="ls"))
        if min(right - left, bottom - top) <= 0:
            continue
        canvas = Image.new("RGBA", (right - left, bottom - top))
        ImageDraw.Draw(canvas).text(
            (-left, -top), chr(code_point), font=font, fill="black", anchor="ls", embedded_color=True
        )
        picture = np.asarray(ImageOps.pad(canvas, (size, size), Image.Resampling.LANCZOS))
        ink, colours = picture[..., 3].copy(), picture[..., :3].copy()
        if ink.any():
            yield code_point, ink, colours if colours[ink > 0].any() else None


def load_font(face: Face, pixels: int) -> ImageFont.FreeTypeFont:
    """The face at a size in pixels, laid out one character at a time (no shaping of runs)."""
    return ImageFont.truetype(face.path, pixels, index=face.index, layout_engine=ImageFont.Layout.BASIC)
