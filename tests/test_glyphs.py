"""Fonts become an atlas of named pictures: nothing blank, nothing misnamed, nothing shared between the splits."""

import hashlib
import io
import string
import unicodedata
from pathlib import Path

import datasets
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTCollection, TTFont, newTable
from fontTools.ttLib.tables.sbixGlyph import Glyph as SbixGlyph
from fontTools.ttLib.tables.sbixStrike import Strike
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from minclip import MinclipError
from minclip.data import glyphs
from minclip.data.glyphs import (
    Atlas,
    ceiling,
    character_name,
    folder_fonts,
    load_atlas,
    load_font,
    read_faces,
    render_atlas,
    render_face,
    split_of,
)

GRIN = 0x1F600
BUNDLED = glyphs.bundled_fonts()


def box(left: int, bottom: int, right: int, top: int):
    pen = TTGlyphPen(None)
    for move, point in zip((pen.moveTo, pen.lineTo, pen.lineTo, pen.lineTo),
                           ((left, bottom), (left, top), (right, top), (right, bottom))):  # fmt: skip
        move(point)
    pen.closePath()
    return pen.glyph()


def write_font(path: Path, characters: dict[int, str], shapes: dict[str, tuple], layers=None, palette=None) -> Path:
    """A TrueType font of rectangles in a square of 1,000 units; with `layers`, a COLR font."""
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", *shapes])
    font.setupCharacterMap(characters)
    font.setupGlyf({".notdef": box(100, 0, 600, 700), **{name: box(*shape) for name, shape in shapes.items()}})
    font.setupHorizontalMetrics(dict.fromkeys([".notdef", *shapes], (1000, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": path.stem, "styleName": "Regular", "fullName": path.stem})
    font.setupOS2()
    font.setupPost()
    if layers:
        font.setupCOLR(layers)
        font.setupCPAL([palette])
    font.save(path)
    return path


def rendered(path: Path, size: int = 32) -> dict[str, tuple]:
    return {chr(c): (ink, colours) for face, characters in read_faces(path)
            for c, ink, colours in render_face(face, size, characters)}  # fmt: skip


def solid(ink: np.ndarray, colours: np.ndarray) -> set[tuple]:
    """The colours of the wholly covered pixels, each channel rounded to 0, 1 or 2 halves of full."""
    return set(map(tuple, np.round(colours[ink == 255] / 127.5).astype(int).tolist()))


# What is in the atlas


def test_every_glyph_has_its_unicode_name_and_shows_something(atlas):
    assert atlas.ink.shape == (len(atlas), 32, 32) and atlas.ink.dtype == np.uint8
    assert len(atlas) > 50_000 and len(np.unique(atlas.name)) > 7_000 and not atlas.skipped
    assert atlas.ink.any(axis=(1, 2)).all()
    for i in range(0, len(atlas), 997):
        assert atlas.name[i] == unicodedata.name(chr(atlas.code_point[i])).lower()
    keys = np.stack([atlas.code_point, atlas.face])
    assert np.unique(keys, axis=1).shape[1] == len(atlas)  # one picture a character and face


def test_every_letter_of_the_alphabet_is_there_in_every_text_face(atlas):
    text_faces = [
        i for i, face in enumerate(atlas.faces) if face.full_name.startswith(("DejaVu Sans Mono", "STIXGeneral", "cmr"))
    ]
    assert len(text_faces) == 9
    for face in text_faces:
        assert set(map(ord, string.ascii_letters + string.digits)) <= set(atlas.code_point[atlas.face == face])


def test_no_picture_is_the_box_that_stands_for_a_missing_glyph(atlas):
    for number, face in enumerate(atlas.faces):
        font = load_font(face, 24)
        left, top, right, bottom = font.getbbox("\U0010fffd", anchor="ls")  # no font has this one
        canvas = Image.new("L", (32, 32))
        place = ((32 - left - right) // 2, min(max(24, -top), 32 - bottom))
        ImageDraw.Draw(canvas).text(place, "\U0010fffd", font=font, fill=255, anchor="ls")
        tofu = np.asarray(canvas)
        if tofu.any():
            assert not (atlas.ink[atlas.face == number] == tofu).all(axis=(1, 2)).any(), face.full_name


def test_what_a_picture_shows_is_what_its_name_says(atlas):
    def cover(name: str, face: str) -> np.ndarray:
        number = [f.full_name for f in atlas.faces].index(face)
        (row,) = np.flatnonzero((atlas.name == name) & (atlas.face == number))
        return atlas.ink[row].astype(int)

    for face in ("DejaVu Sans Book", "DejaVu Sans Mono Book", "STIXGeneral"):
        hyphen, bar = cover("hyphen-minus", face), cover("vertical line", face)
        assert np.ptp(np.nonzero(hyphen)[1]) > np.ptp(np.nonzero(hyphen)[0])
        assert np.ptp(np.nonzero(bar)[0]) > 3 * np.ptp(np.nonzero(bar)[1])
        assert np.nonzero(cover("comma", face))[0].min() > np.nonzero(cover("apostrophe", face))[0].max()
        assert cover("black square", "DejaVu Sans Book").sum() > 2 * cover("white square", "DejaVu Sans Book").sum()
        assert cover("latin capital letter l", face)[:, :16].sum() > cover("latin capital letter l", face)[:, 16:].sum()
    dots = [cover(f"braille pattern dots-{'12345678'[:n]}", "DejaVu Sans Book").sum() for n in range(1, 9)]
    assert dots == sorted(dots)


def test_computer_modern_gives_letters_and_digits_alone(atlas):
    # TeX's fonts number their glyphs as TeX does: cmsy10 has an arrow where Unicode has EXCLAMATION MARK.
    tex = atlas.of_faces("typeface") == "Computer Modern"
    assert tex.any() and all(chr(c).isalnum() and c < 128 for c in atlas.code_point[tex])
    assert {Path(atlas.faces[f].path).stem for f in atlas.face[tex]} == {"cmr10", "cmb10", "cmss10", "cmtt10", "cmti10"}


def test_scripts_and_styles_are_the_known_ones(atlas):
    known = {"latin small letter a": "Latin", "greek small letter alpha": "Greek", "hebrew letter alef": "Hebrew",
             "arabic letter beh": "Arabic", "digit one": "Common", "braille pattern dots-1": "Braille"}  # fmt: skip
    for name, script in known.items():
        assert set(atlas.script[atlas.name == name]) == {script}
    styles = {face.full_name: face.style for face in atlas.faces}
    assert styles["DejaVu Serif Bold Italic"] == "bold italic" and styles["DejaVu Sans Oblique"] == "italic"
    assert styles["DejaVu Sans Book"] == styles["cmr10"] == "regular"
    assert styles["cmb10"] == "bold" and styles["cmti10"] == "italic"
    assert {f.typeface for f in atlas.faces if f.full_name.startswith("STIX")} == {"STIX"}


@pytest.mark.parametrize("size", [4, 9, 20])
def test_any_size(monkeypatch, size):
    monkeypatch.setattr(glyphs, "bundled_fonts", lambda: [path for path in BUNDLED if path.name == "cmr10.ttf"])
    atlas = render_atlas.__wrapped__(size, None)
    assert atlas.ink.shape == (62, size, size) and atlas.size == size  # letters and digits


def test_nothing_is_cut_off():
    # Brackets of this font are taller than the picture, and hinting rounds their shrunken size up.
    (path,) = (path for path in BUNDLED if path.name == "STIXSizTwoSymBol.ttf")
    ((face, characters),) = read_faces(path)
    for code_point, ink, _ in render_face(face, 32, characters):
        best = min(
            (np.abs(int(drawn.sum()) - int(ink.sum())), pixels)
            for pixels in range(1, 25)
            for drawn in [drawn_freely(face, code_point, pixels)]
        )
        assert best[0] == 0, character_name(code_point)


def drawn_freely(face, code_point: int, pixels: int) -> np.ndarray:
    canvas = Image.new("L", (128, 128))
    ImageDraw.Draw(canvas).text((48, 64), chr(code_point), font=load_font(face, pixels), fill=255, anchor="ls")
    return np.asarray(canvas)


def test_an_atlas_is_rendered_once_however_it_is_asked_for(atlas):
    assert load_atlas() is load_atlas(size=32) is load_atlas(32, None) is atlas


@pytest.mark.parametrize("size", [3, 0, -1])
def test_a_size_that_shows_nothing_is_refused(size):
    with pytest.raises(MinclipError, match="at least 4"):
        load_atlas(size)


# Splits


@given(st.integers(0, 0x10FFFF))
def test_the_split_is_a_hash_of_the_code_point(code_point):
    draw = int(hashlib.sha256(f"minclip {code_point}".encode()).hexdigest()[:8], 16) / 16**8
    expected = "test" if draw < 0.095 else "validation" if draw < 0.19 else "train"
    assert split_of(code_point) == expected


def test_nothing_leaks_from_training(atlas):
    training, faces = atlas.training(), [face.full_name for face in atlas.faces]
    assert not training.of_faces("unseen").any()
    assert not set(training.of_faces("typeface")) & {"DejaVu Sans Mono"}
    assert faces.index("DejaVu Sans Bold Oblique") not in training.face
    held_out = {split: set(atlas.unseen_names(split).name) for split in ("test", "validation")}
    assert all(len(names) > 600 for names in held_out.values())
    assert not held_out["test"] & held_out["validation"]
    assert not set(training.name) & (held_out["test"] | held_out["validation"])
    assert not atlas.unseen_names().of_faces("unseen").any()


def test_adding_fonts_moves_no_character_to_another_split(tmp_path, monkeypatch):
    monkeypatch.setattr(glyphs, "bundled_fonts", list)
    write_font(tmp_path / "One.ttf", {ord("A"): "A"}, {"A": (0, 0, 500, 700)})
    one = render_atlas.__wrapped__(16, str(tmp_path))
    letters = {ord(c): "A" for c in string.ascii_letters}
    write_font(tmp_path / "Another.ttf", letters, {"A": (0, 0, 500, 700)})
    both = render_atlas.__wrapped__(16, str(tmp_path))
    assert dict(zip(one.name, one.split)).items() <= dict(zip(both.name, both.split)).items()
    assert len(both) == 1 + len(letters)


def test_select_takes_masks_and_rows(atlas):
    mask = atlas.name == "digit two"
    by_mask, by_row = atlas.select(mask), atlas.select(np.flatnonzero(mask)[::-1])
    assert set(by_mask.name) == {"digit two"} and (by_mask.ink == by_row.ink[::-1]).all()


# The ceiling


def test_ceiling_of_a_known_case():
    a, b, c = (np.full((2, 2), value, np.uint8) for value in (0, 1, 2))
    pictures = np.stack([a, a, a, b, b, c])
    # a: two of three bear the commoner label; b: one of two; c: one of one.
    assert ceiling(pictures, np.array([0, 0, 1, 2, 3, 0])) == pytest.approx(4 / 6)
    assert ceiling(pictures, np.zeros(6, int)) == 1.0


def test_latin_a_greek_alpha_and_cyrillic_a_share_one_picture(atlas):
    names = ("latin capital letter a", "greek capital letter alpha", "cyrillic capital letter a")
    face = [f.full_name for f in atlas.faces].index("DejaVu Sans Book")
    alike = atlas.select(np.isin(atlas.name, names) & (atlas.face == face))
    assert ceiling(alike.ink, alike.name) == pytest.approx(1 / 3)


# Fonts of the reader's own


def test_broken_fonts_are_skipped_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(glyphs, "bundled_fonts", list)
    good = write_font(tmp_path / "Good.ttf", {ord("A"): "A"}, {"A": (0, 0, 500, 700)})
    (tmp_path / "deeper").mkdir()
    damaged = {
        tmp_path / "truncated.ttf": good.read_bytes()[:300],
        tmp_path / "deeper" / "junk.OTF": b"not a font",
        tmp_path / "empty.ttc": b"",
    }
    for path, content in damaged.items():
        path.write_bytes(content)
    (tmp_path / "readme.txt").write_text("not a font, and does not say it is")
    atlas = render_atlas.__wrapped__(16, str(tmp_path))
    assert set(atlas.skipped) == set(map(str, damaged)) and all(atlas.skipped.values())
    assert atlas.name.tolist() == ["latin capital letter a"] and atlas.of_faces("typeface").tolist() == ["Good"]


def test_a_folder_without_fonts_is_refused(tmp_path):
    with pytest.raises(MinclipError, match="No font file"):
        load_atlas(16, str(tmp_path))


def test_a_collection_gives_each_of_its_faces(tmp_path):
    shapes = {"A": (0, 0, 500, 700), "B": (0, 0, 900, 200)}
    paths = [write_font(tmp_path / f"{c}.ttf", {ord(c): c}, {c: shapes[c]}) for c in shapes]
    collection = TTCollection()
    collection.fonts = [TTFont(path) for path in paths]
    collection.save(tmp_path / "both.ttc")
    faces = read_faces(tmp_path / "both.ttc")
    assert [(face.full_name, face.index, characters) for face, characters in faces] == [("A", 0, [65]), ("B", 1, [66])]
    both = rendered(tmp_path / "both.ttc")
    for c, path in zip(shapes, paths):
        assert (both[c][0] == rendered(path)[c][0]).all()


def test_unnamed_and_blank_characters_are_left_out(tmp_path):
    font = write_font(
        tmp_path / "Odd.ttf", {ord("A"): "A", ord(" "): "blank", 0xE000: "A", ord("\n"): "A"},
        {"A": (0, 0, 500, 700), "blank": (0, 0, 0, 0)},
    )  # fmt: skip
    assert set(rendered(font)) == {"A"}


def test_colour_font_keeps_its_colours_and_its_plain_glyphs_are_ink(tmp_path):
    shapes = {"grin": (0, 0, 900, 900), "disc": (0, 0, 900, 900), "eye": (200, 200, 500, 500), "A": (100, 0, 500, 700)}
    font = write_font(
        tmp_path / "Emoji.ttf", {GRIN: "grin", ord("A"): "A"}, shapes,
        {"grin": [("disc", 0), ("eye", 1)]}, [(1, 0, 0, 1), (0, 0, 1, 1)],
    )  # fmt: skip
    drawn = rendered(font)
    assert {(2, 0, 0), (0, 0, 2)} <= solid(*drawn[chr(GRIN)]) <= {(r, 0, b) for r in range(3) for b in range(3)}
    ink, colours = drawn["A"]
    assert colours is None and (ink == 255).any()  # not white on white


def test_bitmap_emoji_of_apples_kind(tmp_path):
    path = write_font(tmp_path / "Bitmaps.ttf", {GRIN: "grin"}, {"grin": (0, 0, 900, 900)})
    picture = io.BytesIO()
    Image.new("RGBA", (64, 64), (0, 255, 0, 255)).save(picture, "png")
    font, table, strike = TTFont(path), newTable("sbix"), Strike(ppem=64, resolution=72)
    table.version, table.flags, table.strikes = 1, 1, {64: strike}
    strike.glyphs = {
        "grin": SbixGlyph(glyphName="grin", graphicType="png ", imageData=picture.getvalue(), originOffsetX=0, originOffsetY=0),
        ".notdef": SbixGlyph(glyphName=".notdef"),
    }  # fmt: skip
    font["sbix"] = table
    font.save(path)
    ink, colours = rendered(path)[chr(GRIN)]
    assert solid(ink, colours) == {(0, 2, 0)}


def test_a_colour_font_that_cannot_be_drawn_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(glyphs, "bundled_fonts", list)
    write_font(tmp_path / "Good.ttf", {ord("A"): "A"}, {"A": (0, 0, 500, 700)})
    paint = {"Format": 10, "Glyph": "disc", "Paint": {"Format": 2, "PaletteIndex": 0, "Alpha": 1.0}}
    write_font(  # COLR version 1: the glyph itself is empty, its picture a graph of paints
        tmp_path / "One.ttf", {GRIN: "grin"}, {"grin": (0, 0, 0, 0), "disc": (0, 0, 900, 900)}, {"grin": paint},
        [(1, 0, 0, 1)],
    )  # fmt: skip
    skipped = render_atlas.__wrapped__(16, str(tmp_path)).skipped
    assert list(skipped) == [str(tmp_path / "One.ttf")] and "could be drawn" in skipped[str(tmp_path / "One.ttf")]


# Pictures out


def test_pictures_are_black_on_white_and_coloured_glyphs_keep_their_colours():
    ink = np.zeros((2, 4, 4), np.uint8)
    ink[:, 1:3, 1:3] = 255
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    pictures = Atlas(ink, np.array([65, GRIN]), np.zeros(2, int), [], {1: red}, {}).pictures()
    assert pictures.dtype == np.uint8 and (pictures[:, 0, 0] == 255).all()
    assert pictures[0, 1, 1].tolist() == [0, 0, 0] and pictures[1, 1, 1].tolist() == [200, 0, 0]


def test_to_dataset(atlas, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    few = atlas.select(np.flatnonzero(atlas.name == "digit two"))
    dataset = few.to_dataset()
    assert set(dataset.column_names) == {"image", "caption", "character", "script", "typeface", "style", "split"}
    assert len(dataset) == len(few)
    for i, row in enumerate(dataset):
        assert (np.asarray(row["image"]) == few.pictures()[i]).all()
        assert (row["caption"], row["character"], row["script"]) == ("digit two", "2", "Common")
        assert row["typeface"] == few.faces[few.face[i]].typeface and row["style"] == few.faces[few.face[i]].style


def test_colours_follow_their_rows():
    ink = np.full((3, 4, 4), 255, np.uint8)
    own = {0: np.full((4, 4, 3), 50, np.uint8), 2: np.full((4, 4, 3), 200, np.uint8)}
    atlas = Atlas(ink, np.array([65, 66, 67]), np.zeros(3, int), [], own, {})
    some = atlas.select(np.array([2, 1]))
    assert list(some.colour) == [0] and (some.pictures()[0] == 200).all() and not some.pictures()[1].any()


def test_a_semibold_face_is_called_bold(tmp_path):
    path = write_font(tmp_path / "Semi.ttf", {ord("A"): "A"}, {"A": (0, 0, 500, 700)})
    for weight, called in ((500, "regular"), (600, "bold"), (700, "bold")):
        font = TTFont(path)
        font["OS/2"].usWeightClass = weight
        font.save(tmp_path / f"{weight}.ttf")
        ((face, _),) = read_faces(tmp_path / f"{weight}.ttf")
        assert face.style == called


def test_a_blank_among_coloured_glyphs_is_passed_over(tmp_path):
    shapes = {"grin": (0, 0, 900, 900), "disc": (0, 0, 900, 900), "blank": (0, 0, 0, 0)}
    font = write_font(
        tmp_path / "Emoji.ttf", {GRIN: "grin", ord(" "): "blank"}, shapes, {"grin": [("disc", 0)]}, [(1, 0, 0, 1)]
    )
    assert set(rendered(font)) == {chr(GRIN)}


def test_fonts_are_read_in_the_order_of_their_names(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("b.ttf", "a.ttf", "c.otf")]
    monkeypatch.setattr(type(tmp_path), "rglob", lambda folder, pattern: iter(paths))
    assert [path.name for path in folder_fonts(tmp_path)] == ["a.ttf", "b.ttf", "c.otf"]


def test_a_glyph_that_begins_before_its_place_is_not_cut_off(tmp_path):
    path = write_font(tmp_path / "Early.ttf", {ord("A"): "A"}, {"A": (-300, 0, 700, 700)})
    font = TTFont(path)
    font["hmtx"]["A"] = (1000, -300)
    font.save(path)
    ink, _ = rendered(path)["A"]
    assert np.ptp(np.flatnonzero(ink.any(axis=0))) >= 22  # a thousand units at 24 px to the em
