"""Painted pairs: fixed by (seed, index), told the truth about, and hardly ever alike."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minclip import MinclipError
from minclip.data.glyphs import Atlas, Face
from minclip.data.painting import COLOURS, DARK, LIGHT, GlyphPairs, Paint, uniforms_of

STILL = Paint(rotation=0, zoom=0, shift=0, noise=0, coloured=1.0, described=1.0)


@pytest.fixture(scope="module")
def pairs(atlas) -> GlyphPairs:
    return GlyphPairs(atlas.training())


@pytest.fixture(scope="module")
def few() -> GlyphPairs:
    """Eleven names of one to three faces each, half of every picture inked; one name brings its own colours."""
    faces = [Face("", 0, typeface, weight, slant, "") for typeface, weight, slant in
             (("Sans", "bold", "upright"), ("Serif", "regular", "italic"), ("Mono", "regular", "upright"))]  # fmt: skip
    code_point = np.repeat(np.arange(ord("A"), ord("L")), 3)[:-2]
    face = np.tile(np.arange(3), 11)[:-2]
    ink = np.zeros((len(face), 8, 8), np.uint8)
    ink[:, :, :4] = 255
    own = np.zeros((8, 8, 3), np.uint8)
    own[...] = (0, 128, 255)
    return GlyphPairs(Atlas(ink, code_point, face, faces, {len(face) - 1: own}, {}), STILL)


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(0, 10**9), st.integers(2, 40), st.data())
def test_seed_and_place_fix_each_picture_whatever_the_batch(pairs, seed, start, size, data):
    images, captions = pairs.batch(size, seed, start)
    first = data.draw(st.integers(0, size - 1))
    count = data.draw(st.integers(1, size - first))
    part, some = pairs.batch(count, seed, start + first)
    assert torch.equal(part, images[first : first + count]) and some == captions[first : first + count]


def test_the_stream_is_its_batches_one_after_the_other(pairs):
    whole, captions = pairs.batch(30, seed=4, start=5)
    stream = pairs.batches(10, seed=4, start=5)
    images, words = zip(*(next(stream) for _ in range(3)))
    assert torch.equal(torch.cat(images), whole) and sum(words, []) == captions == pairs.captions(35, seed=4)[5:]


def test_another_seed_gives_other_pictures(pairs):
    images, captions = pairs.batch(64, seed=0)
    others, words = pairs.batch(64, seed=1)
    assert sum(a == b for a, b in zip(captions, words)) < 5 and not torch.equal(images, others)


def test_the_same_pictures_from_a_new_object(atlas, pairs):
    again = GlyphPairs(atlas.training())
    pairs.batch(8, seed=3)  # the sheet of speckle of another seed must not linger
    for mine, other in zip(again.batch(8, 9, 100)[:1], pairs.batch(8, 9, 100)[:1]):
        assert torch.equal(mine, other)


def test_pictures_are_floats_between_0_and_1_that_differ(pairs):
    images, _ = pairs.batch(512)
    assert images.shape == (512, 3, 32, 32) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    assert (images.flatten(1).std(dim=1) > 0.01).all()  # each shows something
    assert len(images.flatten(1).unique(dim=0)) == 512


@given(st.integers(0, 1000), st.integers(0, 10))
def test_an_epoch_deals_every_name_once(few, seed, epoch):
    rows = few.draw(len(few), seed, epoch * len(few))[0]
    assert sorted(few.atlas.name[rows]) == sorted(few.names) and len(few) == 11


def test_no_name_twice_in_a_batch_and_all_faces_have_their_turn(pairs, few):
    rows = pairs.draw(4096, 0, 0)[0]
    assert len(set(pairs.atlas.name[rows])) == 4096
    rows = few.draw(1100, 0, 0)[0]
    shares = np.bincount(few.atlas.face[rows[few.atlas.name[rows] == "latin capital letter a"]], minlength=3)
    assert shares.sum() == 100 and shares.min() > 15


def test_undisturbed_plain_paint_is_the_atlas_itself(atlas):
    some = atlas.select(np.arange(0, len(atlas), 500))
    plain = GlyphPairs(some, Paint(0, 0, 0, 0, coloured=0, described=0))
    images, captions = plain.batch(len(plain))
    rows = plain.draw(len(plain), 0, 0)[0]
    assert captions == some.name[rows].tolist()
    expected = torch.from_numpy(some.pictures()[rows]).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(images, expected, atol=1e-6, rtol=0)


def test_captions_are_true_of_the_pictures(few):
    """Left half glyph, right half ground: the colours a caption names are those of the pixels."""
    images, captions = few.batch(600)
    seen = {"ink": 0, "paper": 0, "style": 0, "typeface": 0, "own": 0}
    names, colour = "|".join(few.names), "|".join(COLOURS)
    rows = few.draw(600, 0, 0)[0]
    for image, caption, row in zip(images, captions, rows):
        face = few.atlas.faces[few.atlas.face[row]]
        assert few.atlas.name[row] in caption
        left, right = image[:, 3, 1], image[:, 3, 6]
        if row in few.atlas.colour:
            torch.testing.assert_close(left, torch.tensor([0, 128, 255]) / 255)
            assert not re.search(rf"\b({colour}) ({names})", caption)
            seen["own"] += 1
        elif ink := re.search(rf"(?:^|, )({colour}) (?:on|{names})", caption):
            torch.testing.assert_close(left, torch.tensor(COLOURS[ink[1]]) / 255)
            seen["ink"] += 1
        if paper := re.search(rf" on ({colour})$", caption):
            torch.testing.assert_close(right, torch.tensor(COLOURS[paper[1]]) / 255)
            seen["paper"] += 1
        if style := re.search(rf"^(bold|italic|bold italic|regular) (?:{names})", caption):
            assert style[1] == face.style
            seen["style"] += 1
        if typeface := re.search(r" in (sans|serif|mono)\b", caption):
            assert typeface[1] == face.typeface.lower()
            seen["typeface"] += 1
    assert min(seen.values()) > 20, seen


def test_ink_and_paper_always_contrast(pairs):
    _, ink, paper, _ = pairs.draw(5000, 0, 0)
    names = np.array(list(COLOURS))
    dark_ink, dark_paper = np.isin(names[ink], list(DARK)), np.isin(names[paper], list(DARK))
    share = Paint().coloured / 3  # of pictures, as chalk on a blackboard
    assert (dark_ink != dark_paper).all() and 0.7 * share < dark_paper.mean() < 1.3 * share
    plain = (names[ink] == "black") & (names[paper] == "white")
    assert 1 - 1.15 * 3 * share < plain.mean() < 1 - 0.85 * 3 * share + 0.02
    assert set(names[ink]) == set(DARK) | set(LIGHT)


def test_colours_of_one_name_can_be_told_apart():
    values = np.array(list(COLOURS.values()))
    distance = np.linalg.norm(values[:, None] - values[None], axis=-1) + 1e3 * np.eye(len(values))
    assert distance.min() > 15


def test_captions_repeat_so_seldom_that_there_must_be_millions(pairs):
    """Of n captions drawn with replacement from D equally likely ones n^2 / 2D pairs agree: counted among
    the wordings that say the most, this bounds how many there are to draw from."""
    described = GlyphPairs(pairs.atlas, Paint(described=1.0, coloured=1.0))
    captions = [c for c in described.captions(60_000, seed=1) if re.search(r" in .*, \w+ on ", c)]
    _, times = np.unique(captions, return_counts=True)
    agreeing = (times * (times - 1) / 2).sum()
    assert len(captions) ** 2 / (2 * max(agreeing, 1)) > 2e6


def test_turn_zoom_and_shift_stay_within_what_was_asked(few):
    angle = Paint(rotation=0, zoom=0, shift=0.25, noise=0, coloured=0, described=0)
    shifted = GlyphPairs(few.atlas.select(np.arange(3)), angle)
    images, _ = shifted.batch(400)
    widths = (1 - images[:, 0]).sum(dim=2).max(dim=1).values  # of the half that is inked, in pixels
    assert widths.min() >= 2 - 1e-4 and widths.max() <= 4 + 1e-4 and widths.std() > 0.2


@settings(max_examples=25)
@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(1, 9))
def test_random_numbers_depend_on_the_place_alone(seed, start, skip):
    assert (uniforms_of(seed, start, skip + 2)[skip:] == uniforms_of(seed, start + skip, 2)).all()


def test_noise_is_speckle_of_the_strength_asked(atlas):
    pairs = GlyphPairs(atlas.select(atlas.name == "full stop"), Paint(0, 0, 0, noise=0.2, coloured=1, described=0))
    calm = GlyphPairs(pairs.atlas, Paint(0, 0, 0, noise=0, coloured=1, described=0))
    noise = torch.cat([pairs.batch(1, 0, i)[0] - calm.batch(1, 0, i)[0] for i in range(64)])
    strongest = noise[:, :, :8].flatten(1).std(dim=1).max()
    assert 0.1 < strongest < 0.2  # clamping to [0, 1] takes some of it


@pytest.mark.parametrize("mistake", [{"zoom": -1}, {"noise": math.nan}, {"shift": math.inf}, {"coloured": 7}])
def test_paint_that_cannot_be(mistake):
    with pytest.raises(MinclipError, match=f"paint.{next(iter(mistake))} is"):
        Paint(**mistake)


def test_no_glyph_no_pairs(atlas):
    with pytest.raises(MinclipError, match="no glyph"):
        GlyphPairs(atlas.select(np.zeros(len(atlas), bool)))


def bar_pairs(**paint) -> GlyphPairs:
    """One glyph: a lying bar, 16 x 4 pixels in the middle of 32."""
    ink = np.zeros((1, 32, 32), np.uint8)
    ink[:, 14:18, 8:24] = 255
    calm = dict(rotation=0, zoom=0, shift=0, noise=0, coloured=0, described=0) | paint
    return GlyphPairs(
        Atlas(ink, np.array([65]), np.zeros(1, int), [Face("", 0, "Sans", "regular", "upright", "")], {}, {}),
        Paint(**calm),
    )


def moments(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Of the ink: area, centre and angle of the long axis in degrees, counter-clockwise, of each picture."""
    ink, place = 1 - images[:, 0].double(), torch.arange(32.0, dtype=torch.double) - 15.5
    area = ink.sum((1, 2))
    x, y = (ink.sum(1) @ place) / area, (ink.sum(2) @ place) / area
    dx, dy = place[None, None] - x[:, None, None], place[None, :, None] - y[:, None, None]
    xx, yy, xy = ((ink * a * b).sum((1, 2)) / area for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    return area, x, y, -torch.rad2deg(torch.atan2(2 * xy, xx - yy)) / 2


def test_turns_are_in_degrees_either_way_and_turns_alone():
    area, x, y, angle = moments(bar_pairs(rotation=30).batch(400)[0])
    assert 28 < angle.max() < 30.5 and -30.5 < angle.min() < -28 and abs(angle.mean()) < 2
    torch.testing.assert_close(area, torch.full_like(area, 64), rtol=0.03, atol=0)  # neither sheared nor scaled
    assert max(x.abs().max(), y.abs().max()) < 0.1


def test_a_zoom_is_a_factor_either_way():
    area, *_, angle = moments(bar_pairs(zoom=0.5).batch(400)[0])
    factor = (area / 64).sqrt()
    assert 1.45 < factor.max() < 1.52 and 0.62 < factor.min() < 0.69 and angle.abs().max() < 0.1
    assert factor.log().mean().abs() < 0.03  # as often larger as smaller


def test_a_shift_goes_as_far_as_asked():
    _, x, y, _ = moments(bar_pairs(shift=0.1).batch(400)[0])
    for moved in (x, y):
        assert 3.1 < moved.max() <= 3.21 and -3.21 <= moved.min() < -3.1


CAPTIONS_OF_5_1000 = [
    "regular latin capital letter a in sans",
    "regular latin capital letter a in sans",
    "latin capital letter a",
]


ROWS_OF_5_1000 = [
    [0.9757, 0.975, 0.4779, 0.9703, 0.9764, 0.9782],
    [0.9589, 0.5856, 0.9707, 0.957, 0.9618, 0.9557],
    [0.232, 0.3278, 0.3744, 0.2307, 0.2251, 0.2319],
]


def test_the_stream_is_the_one_that_results_were_recorded_with():
    """Checkpoints resume and recorded figures repeat only if (seed, place) go on giving the same pictures."""
    pairs = bar_pairs(rotation=20, zoom=0.3, shift=0.1, noise=0.1, coloured=0.5, described=0.5)
    images, captions = pairs.batch(3, seed=5, start=1000)
    assert captions == CAPTIONS_OF_5_1000
    torch.testing.assert_close(images.mean((1, 3))[:, 11::4], torch.tensor(ROWS_OF_5_1000), atol=1e-3, rtol=0)


def test_faces_of_a_name_stand_in_the_atlas_order_and_epochs_are_the_seeds_own(atlas):
    pairs = GlyphPairs(atlas.training())
    of_row = np.repeat(np.arange(len(pairs)), pairs.count)
    assert (np.diff(pairs.rows)[np.diff(of_row) == 0] > 0).all()
    second = pairs.atlas.name[pairs.draw(200, 0, len(pairs))[0]]
    assert (second != pairs.atlas.name[pairs.draw(200, 1, 0)[0]]).mean() > 0.9
