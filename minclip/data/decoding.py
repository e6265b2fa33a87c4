"""Encoded pictures become uint8 pixels: in worker processes where asked, and damage is told, not raised.

Training shrinks a picture until its shorter side is a little longer than the model's resolution, then
cuts a random square: the paper's only augmentation (section 2.4). Pictures shrunk once can stay in
memory, on the GPU if that is where training runs; a batch is then one gather. `hub.py` builds streams
of captioned pictures from these parts.
"""

import io
import logging
import re
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import fsspec
import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ..errors import MinclipError
from .images import to_device, to_rgb

MARGIN = 8 / 7  # shorter side over resolution before the random crop: 256 for 224
MAX_ASPECT = 2  # of a longer strip only the middle is kept, so that no picture fills the memory
# What PIL may read. Not EPS, for which it would start another program, nor rare formats with old parsers.
FORMATS = {"AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"}
# What a path may begin with: an archive's name, or the hub's where `datasets` streams from there.
LOCAL = {"file", "gzip", "hf", "tar", "zip"}
NAMED = 10  # damaged pictures named as they turn up; the rest are counted, and listed in `faults.reasons`
ENOUGH = 256  # pictures tried before a source may be called mostly unreadable

Pixels = np.ndarray  # (H, W, 3) uint8
log = logging.getLogger(__name__)


@dataclass
class Faults:
    """The pictures of a source that could not be used, and why.

    tried, failed: how often a picture was decoded, and how often that went wrong
    reasons: {file or row: reason}, each once
    """

    source: str
    tried: int = 0
    failed: int = 0
    reasons: dict[str, str] = field(default_factory=dict)

    def note(self, tried: int, faults: list[tuple[str, str]], enough: int = ENOUGH) -> None:
        """Count a batch's failures, given as (name, reason), and name the new ones.

        Raises MinclipError once more than half of at least `enough` pictures have failed.
        """
        self.tried, self.failed = self.tried + tried, self.failed + len(faults)
        for name, reason in faults:
            if name not in self.reasons and len(self.reasons) < NAMED:
                log.warning("Skipped %s: %s.", name, reason)
            self.reasons.setdefault(name, reason)
        if self.tried >= enough and 2 * self.failed > self.tried:
            raise self.error()

    def error(self) -> MinclipError:
        examples = "; ".join(f"{name}: {reason}" for name, reason in list(self.reasons.items())[:3])
        return MinclipError(
            f"{self.failed:,} of the first {self.tried:,} pictures of {self.source} cannot be used ({examples}). "
            "Look at these files, and at whether the image and caption columns are the right ones."
        )

    def __str__(self) -> str:
        return f"{self.failed:,} of {self.tried:,} pictures of {self.source} could not be used"


@cache
def readable_formats() -> list[str]:
    Image.init()
    return sorted(FORMATS & set(Image.OPEN))  # this PIL may have been built without some


def decode(picture: bytes | str | None, transform: Callable[[Image.Image], Pixels], side: int | None) -> Pixels | str:
    """An encoded picture, or the path of one -> pixels; or, where it cannot be read, the reason in words.

    side: the shorter side wanted, if JPEG is to skip the detail that would be thrown away
    """
    try:
        if picture is None:
            return "there is no picture"
        if isinstance(picture, str):
            if set(re.findall(r"(\w+)://", picture)) - LOCAL:
                return "it is an address; download the pictures first, minclip fetches none while training"
            picture = read_file(picture)
        if not picture:
            return "it is empty"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, and of pictures that are merely large
            with Image.open(io.BytesIO(picture), formats=readable_formats()) as image:
                if side is not None:
                    image.draft(None, (2 * side, 2 * side))
                return transform(image)
    except Image.UnidentifiedImageError:
        return "it is not a picture in a known format"
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, struct.error, KeyError and more
        return f"{type(error).__name__}: {error}".rstrip(".")


def read_file(path: str) -> bytes:
    if "://" not in path:
        return Path(path).read_bytes()
    with fsspec.open(path) as file:  # inside an archive, or streamed from the hub
        return file.read()


def shrink(image: Image.Image, side: int) -> Pixels:
    """The picture with its shorter side `side` pixels long and the longer at most MAX_ASPECT times that."""
    image = to_rgb(image)
    width, height = image.size
    longest = MAX_ASPECT * min(width, height)
    left, top = max(0, width - longest) / 2, max(0, height - longest) / 2
    box = (left, top, width - left, height - top)
    aspect = (box[2] - box[0]) / (box[3] - box[1])
    size = (max(side, round(side * aspect)), max(side, round(side / aspect)))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box, reducing_gap=3.0))


def crop_corner(height, width, chance, resolution: int):
    """Top and left of a random square inside, by chance (..., 2) in [0, 1); numbers or arrays."""
    top = np.floor(chance[..., 0] * (height - resolution + 1)).astype(np.int64)
    left = np.floor(chance[..., 1] * (width - resolution + 1)).astype(np.int64)
    return top, left


class PictureCache:
    """N pictures of differing sizes, one after another in one array of pixels.

    pixels: (P, 3) uint8 on `device`
    first, height, width: (N,) int64, where each picture begins and its size
    """

    def __init__(self, pictures: list[Pixels], device: str | torch.device):
        self.height = np.array([p.shape[0] for p in pictures])
        self.width = np.array([p.shape[1] for p in pictures])
        areas = self.height * self.width
        self.first = np.cumsum(areas) - areas
        self.pixels = torch.from_numpy(np.concatenate([p.reshape(-1, 3) for p in pictures])).to(device)

    def crops(self, places: np.ndarray, chance: np.ndarray, resolution: int) -> torch.Tensor:
        """(B, 3, R, R) uint8: a square of each of the pictures `places` (B,), by chance (B, 2)."""
        height, width = self.height[places], self.width[places]
        top, left = crop_corner(height, width, chance, resolution)
        device = self.pixels.device
        corner = to_device(torch.from_numpy(self.first[places] + top * width + left), device)
        stride = to_device(torch.from_numpy(width), device)
        step = torch.arange(resolution, device=device)
        index = rearrange(corner, "b -> b 1 1") + rearrange(stride, "b -> b 1 1") * step[:, None] + step
        return rearrange(self.pixels[index], "b h w c -> b c h w").contiguous()


@dataclass(frozen=True)
class Job:
    """One picture to decode, and where to crop it.

    picture: its row in the worker's table; or the encoded picture or its path, where there is no table
    caption: None where the row has none
    """

    name: str
    picture: int | bytes | str | None
    caption: str | None
    chance: np.ndarray


class Decoder(Dataset):
    """Rows of a table -> (their pixels, or the reason there are none; (name, reason) of the faulty). Runs in the workers.

    table: a `datasets.Dataset` whose `column` holds pictures undecoded, or paths that start from `folder`
    """

    def __init__(
        self, transform: Callable[[Image.Image], Pixels], side: int | None, table=None, column="", folder=None
    ):
        self.transform, self.side, self.table, self.column, self.folder = transform, side, table, column, folder

    def __getitems__(self, rows: list[int]) -> tuple[list[Pixels | str], list[tuple[str, str]]]:
        pictures, names = zip(*(encoded(value, self.folder) for value in self.table[rows][self.column]))
        results = [decode(picture, self.transform, self.side) for picture in pictures]
        faults = [(n or f"row {row}", x) for n, row, x in zip(names, rows, results) if isinstance(x, str)]
        return results, faults


class CroppingDecoder(Decoder):
    """Jobs -> (images (B, 3, R, R) uint8, B captions, (name, reason) of what could not be used).

    The place of an unusable picture is taken by the next usable one of its batch, so that a batch
    depends on its jobs alone, and a resumed run sees the same ones. Without a usable one, images is None.
    """

    def __init__(self, resolution: int, *decoding):
        super().__init__(*decoding)
        self.resolution = resolution

    def __getitems__(self, jobs: list[Job]) -> tuple[torch.Tensor | None, list[str], list[tuple[str, str]]]:
        values = [job.picture for job in jobs]
        if self.table is not None:
            values = self.table[values][self.column]
        images, captions, faults = [], [], []
        for job, value in zip(jobs, values):
            picture, name = encoded(value, self.folder)
            pixels = decode(picture, self.transform, self.side) if job.caption is not None else "it has no caption"
            if isinstance(pixels, str):
                faults.append((name or job.name, pixels))
                images.append(None)
            else:
                top, left = crop_corner(*pixels.shape[:2], job.chance, self.resolution)
                images.append(pixels[top : top + self.resolution, left : left + self.resolution])
            captions.append(job.caption)
        usable = np.flatnonzero([image is not None for image in images])
        if len(usable) == 0:
            return None, [], faults
        stand_in = usable[np.searchsorted(usable, np.arange(len(jobs))) % len(usable)]
        batch = torch.from_numpy(np.stack([images[i] for i in stand_in]))
        return rearrange(batch, "b h w c -> b c h w").contiguous(), [captions[i] for i in stand_in], faults


def encoded(value, folder: Path | None) -> tuple[bytes | str | None, str | None]:
    """A cell of an undecoded image column -> (bytes or path, the file's name where it is known)."""
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(content, str):
        content, path = None, content
    if content is None and path and folder and "://" not in path:
        path = str(folder / path)
    return (path if content is None else content), path


def run_decoder(decoder: Decoder, batches: Iterable[list], workers: int) -> Iterator:
    """decoder's answer to each batch, in order; worked out ahead of need by `workers` processes, if any.

    Raises MinclipError when a worker process dies, or fewer than none are asked for.
    """
    if workers < 0:
        raise MinclipError(f"workers is {workers}; give the number of processes that decode pictures, or 0 for none.")
    loader = DataLoader(
        decoder, batch_sampler=batches, collate_fn=_as_is, num_workers=workers, worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # or it would draw from the global one, which belongs to training
        # Processes started afresh work on every system, and inherit no locks from running threads.
        multiprocessing_context="spawn" if workers else None, prefetch_factor=4 if workers else None,
    )  # fmt: skip
    answers = iter(loader)
    while True:
        try:
            answer = next(answers)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise MinclipError(
                f"A process that decodes pictures died ({error}). If memory ran out, ask for fewer workers; if this is "
                'a script, put its code under `if __name__ == "__main__":`; with workers=0 no process is started.'
            ) from error
        yield answer


def _as_is(answer):
    return answer


def _ignore_interrupts(_worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the training loop alone decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
