"""Damaged pictures by the hundred: none may hang, crash or leak memory, each is used or named.

MINCLIP_DAMAGED sets how many; the figures in a release come from 2,000.
"""

import faulthandler
import gc
import io
import logging
import os
from itertools import islice

import datasets
import numpy as np
import psutil
import pytest
from PIL import Image

from minclip.data.hub import load_pairs

COUNT = int(os.environ.get("MINCLIP_DAMAGED", 200))
KINDS = {
    "PNG": ("RGB", "RGBA", "L", "P", "1", "I;16", "LA"), "JPEG": ("RGB", "L", "CMYK"), "WEBP": ("RGB", "RGBA"),
    "GIF": ("P",), "TIFF": ("RGB", "L", "F", "I;16", "CMYK"), "BMP": ("RGB", "P"), "PPM": ("RGB",), "JPEG2000": ("RGB",),
}  # fmt: skip
NOT_PICTURES = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"%PDF-1.7\n", b"PK\x03\x04" + bytes(60), b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\x00\x00\x00\x00WEBP",
    b"a caption where a picture should be", b"II*\x00\xff\xff\xff\xff", b"\x00" * 500,
)  # fmt: skip


def whole_picture(rng: np.random.Generator) -> bytes:
    kind = rng.choice(list(KINDS))
    mode = rng.choice(KINDS[kind])
    height, width = rng.integers(1, 80, 2)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(1, 9))
    stream = io.BytesIO()
    image.save(stream, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
    return stream.getvalue()


def damage(content: bytes, how: str, rng: np.random.Generator) -> bytes:
    if how == "truncated":
        return content[: rng.integers(0, len(content))]
    if how == "bits flipped":
        data = np.frombuffer(content, np.uint8).copy()
        # Half of them where the sizes and tables stand.
        reach = len(data) if rng.random() < 0.5 else min(len(data), 64)
        np.bitwise_xor.at(data, rng.integers(0, reach, rng.integers(1, 20)), 1 << rng.integers(0, 8))
        return data.tobytes()
    if how == "stretch of zeros":
        start = rng.integers(0, len(content))
        length = min(len(content) - start, rng.integers(1, 200))
        return content[:start] + bytes(length) + content[start + length :]
    if how == "renamed":
        return NOT_PICTURES[rng.integers(len(NOT_PICTURES))]
    return b""


HOW = ("truncated", "bits flipped", "stretch of zeros", "renamed", "empty")


@pytest.fixture
def damaged_source():
    """As many good pictures as damaged ones, and one more, so that the source is not mostly corrupt."""
    rng = np.random.default_rng(0)
    good = [whole_picture(rng) for _ in range(COUNT + 1)]
    bad = [damage(whole_picture(rng), HOW[i % len(HOW)], rng) for i in range(COUNT)]
    rows = {
        "image": [{"bytes": content, "path": None} for content in good + bad],
        "caption": [f"good {i}" for i in range(len(good))] + [f"damaged {i}" for i in range(len(bad))],
    }
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    return datasets.Dataset.from_dict(rows, features)


@pytest.fixture
def no_hanging():
    """Ends the process, and says where it stood, rather than wait for ever."""
    faulthandler.dump_traceback_later(20 + COUNT, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def test_damaged_pictures_are_used_or_named(damaged_source, no_hanging, caplog):
    caplog.set_level(logging.ERROR)
    cached = load_pairs(damaged_source, resolution=24)
    rows = {int(name.split()[1]) for name in cached.faults.reasons}
    assert len(cached) + len(rows) == len(damaged_source) == 2 * COUNT + 1
    assert rows.isdisjoint(range(COUNT + 1))  # every good picture of every kind was read
    empty_or_renamed = {COUNT + 1 + i for i in range(COUNT) if HOW[i % len(HOW)] in ("renamed", "empty")}
    assert empty_or_renamed <= rows
    for source in (damaged_source, damaged_source.to_iterable_dataset()):
        pairs = load_pairs(source, resolution=24, cache_gb=0)
        for images, captions in islice(pairs.batches(50), (2 * COUNT + 1) // 50):
            assert images.shape == (50, 3, 24, 24) and len(captions) == 50
        assert 0 < len(pairs.faults.reasons) <= len(rows)


def test_decoding_damaged_pictures_again_and_again_needs_no_more_memory(damaged_source, no_hanging, caplog):
    caplog.set_level(logging.ERROR)
    process = psutil.Process()
    pairs = load_pairs(damaged_source, resolution=24, cache_gb=0)
    batches = pairs.batches(50)
    used = []
    for _ in range(5):
        for _ in islice(batches, (2 * COUNT + 1) // 50 + 1):
            pass
        gc.collect()
        used.append(process.memory_info().rss)
    assert used[-1] - used[1] < 16 * 2**20 + 2000 * COUNT, [f"{bytes / 2**20:.0f} MiB" for bytes in used]
