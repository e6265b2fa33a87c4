"""Any image-caption data set becomes training pairs: `datasets` opens it, and the stream is `fit`'s.

A source is a name on the Hugging Face hub, a Parquet, CSV, JSON-lines or WebDataset (.tar) file, a
folder of such files or of pictures, or a `datasets.Dataset` of your own making. Held in memory, the
order of an epoch is drawn from (seed, epoch); streamed, it is the files' order, shuffled in a buffer.
Either way a picture, its crop and the caption drawn for it depend on the seed and its place in the
stream alone, so that a run can be resumed to the same bits. Notebook 13.
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from einops import rearrange
from tqdm import tqdm

from ..errors import MinclipError
from .decoding import (
    MARGIN,
    MAX_ASPECT,
    CroppingDecoder,
    Decoder,
    Faults,
    Job,
    PictureCache,
    encoded,
    run_decoder,
    shrink,
)
from .images import resize_and_crop
from .painting import uniforms_of
from .sources import Columns, captions_of, open_undecoded, reading

DECODED_AT_ONCE = 64  # pictures a worker process is given at a time while the cache fills
WORTH_PROCESSES = 2000  # fewer pictures are decoded here before processes have started
SHUFFLE_BUFFER = 2048  # rows of a stream, still encoded, among which the next is drawn
log = logging.getLogger(__name__)


def in_words(name: str) -> str:
    """A class's name as names are compared: as folders spell it or as people do, it is one."""
    return name.replace("_", " ").strip().lower()


def draw(captions: list[str], chance: float) -> str | None:
    return captions[int(chance * len(captions))] if captions else None


@lru_cache(maxsize=2)  # a batch may straddle two epochs
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


class ImagePairs:
    """Captioned pictures with random access, dealt once an epoch in an order drawn from (seed, epoch).

    Where `cache_gb` has room they are decoded once, and batches are cut from pixels held on `device`;
    else each batch is decoded when its turn comes. Both give the same stream, but that a cached one
    leaves unusable pictures out, where the other lets a neighbour in the batch take their place.

    faults: which pictures could not be used, and why
    """

    def __init__(self, dataset, columns: Columns, name: str, resolution: int, workers=0, device="cpu", cache_gb=4.0):
        if len(dataset) == 0:
            raise MinclipError(f"{name} holds no rows.")
        self.pictures = dataset.select_columns(columns.image)
        self.texts = dataset.select_columns(columns.text)
        self.columns, self.resolution, self.workers = columns, resolution, workers
        self.side = round(MARGIN * resolution)
        self.shrink = partial(shrink, side=self.side)
        self.faults = Faults(name)
        self.rows, self.cache = np.arange(len(dataset)), None
        if len(dataset) * MAX_ASPECT * 3 * self.side**2 <= cache_gb * 2**30:
            self.fill_cache(device)

    def fill_cache(self, device: str | torch.device) -> None:
        """Decode every picture that has a caption, once; leave out what cannot be used."""
        captions = self.captions_at(slice(None))
        rows = [row for row, some in enumerate(captions) if some]
        wordless = [(f"row {row}", "it has no caption") for row, some in enumerate(captions) if not some]
        self.faults.note(len(wordless), wordless, enough=len(captions))
        decoder = Decoder(self.shrink, self.side, self.pictures, self.columns.image, self.columns.folder)
        pictures, self.rows = decode_rows(decoder, rows, self.workers, self.faults)
        self.captions = [captions[row] for row in self.rows]
        self.cache = PictureCache(pictures, device)

    def captions_at(self, rows: slice | list[int]) -> list[list[str]]:
        return [captions_of(value, self.columns.label_names) for value in self.texts[rows][self.columns.text]]

    def __len__(self) -> int:
        """Pictures in an epoch."""
        return len(self.rows)

    def batches(
        self, batch_size: int, seed: int = 0, start: int = 0, stride: int | None = None
    ) -> Iterator[tuple[torch.Tensor, list[str]]]:
        """Yield (images (B, 3, R, R) uint8, B captions) for ever, from picture `start` on; each batch begins
        `stride` pictures after the one before, or where that ended.

        Raises MinclipError when most pictures turn out to be unusable, or a worker process dies.
        """
        starts = itertools.count(start, stride or batch_size)
        if self.cache is not None:
            for first in starts:
                places, chance = self.deal(batch_size, seed, first)
                images = self.cache.crops(places, chance[:, 1:], self.resolution)
                yield images, [draw(self.captions[i], c) for i, c in zip(places, chance[:, 0])]
        column, folder = self.columns.image, self.columns.folder
        decoder = CroppingDecoder(self.resolution, self.shrink, self.side, self.pictures, column, folder)
        jobs = (self.jobs(batch_size, seed, first) for first in starts)
        yield from cropped_batches(decoder, jobs, self.workers, self.faults)

    def deal(self, batch_size: int, seed: int, start: int) -> tuple[np.ndarray, np.ndarray]:
        """(B,) places in `rows`, and (B, 3) chances: for the caption, and for the crop's corner."""
        epoch, place = np.divmod(np.arange(start, start + batch_size), len(self))
        places = np.array([epoch_order(seed, e, len(self))[p] for e, p in zip(epoch.tolist(), place.tolist())])
        return places, uniforms_of(seed, start, batch_size)[:, :3]

    def jobs(self, batch_size: int, seed: int, start: int) -> list[Job]:
        rows, chance = self.deal(batch_size, seed, start)
        captions = [draw(some, c) for some, c in zip(self.captions_at(rows.tolist()), chance[:, 0])]
        return [Job(f"row {r}", r, caption, c[1:]) for r, caption, c in zip(rows.tolist(), captions, chance)]

    def sample_captions(self, limit: int = 100_000) -> list[str]:
        """All captions of the first `limit` rows, to train a tokenizer on."""
        return list(itertools.chain(*self.captions_at(slice(limit))))


class StreamedPairs:
    """Captioned pictures read from end to end, shuffled in a buffer, without holding or storing them all.

    To start in the middle, the rows before are read again, though not decoded. The memory needed is that
    of SHUFFLE_BUFFER encoded pictures and the batches under way.
    """

    def __init__(self, dataset, columns: Columns, name: str, resolution: int, workers: int = 0):
        self.dataset, self.columns, self.resolution, self.workers = dataset, columns, resolution, workers
        self.faults = Faults(name)

    def batches(
        self, batch_size: int, seed: int = 0, start: int = 0, stride: int | None = None
    ) -> Iterator[tuple[torch.Tensor, list[str]]]:
        """As `ImagePairs.batches`."""
        side = round(MARGIN * self.resolution)
        decoder = CroppingDecoder(self.resolution, partial(shrink, side=side), side)
        yield from cropped_batches(
            decoder, self.jobs(batch_size, seed, start, stride or batch_size), self.workers, self.faults
        )

    def jobs(self, batch_size: int, seed: int, start: int, stride: int) -> Iterator[list[Job]]:
        rows = itertools.islice(self.rows(seed), start, None)
        for first in itertools.count(start, stride):
            chance = uniforms_of(seed, first, batch_size)[:, :3]
            batch = []
            for row, c in zip(itertools.islice(rows, batch_size), chance):
                caption = draw(captions_of(row[self.columns.text], self.columns.label_names), c[0])
                picture, path = encoded(row[self.columns.image], self.columns.folder)
                batch.append(Job(path or f"the picture captioned {caption!r}", picture, caption, c[1:]))
            yield batch
            next(itertools.islice(rows, stride - batch_size, stride - batch_size), None)  # passes over the others'

    def rows(self, seed: int) -> Iterator[dict]:
        """Rows for ever, epoch after epoch, each in another order. Raises MinclipError when one cannot be read."""
        shuffled = self.dataset.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
        for epoch in itertools.count():
            shuffled.set_epoch(epoch)
            row = None
            with reading(self.faults.source):
                for row in shuffled:
                    yield row
            if row is None:
                raise MinclipError(f"{self.faults.source} holds no rows.")

    def sample_captions(self, limit: int = 100_000) -> list[str]:
        """As `ImagePairs.sample_captions`."""
        rows = self.dataset.select_columns(self.columns.text).take(limit)
        with reading(self.faults.source):
            return list(itertools.chain(*(captions_of(r[self.columns.text], self.columns.label_names) for r in rows)))


def cropped_batches(decoder, jobs, workers: int, faults: Faults) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """The decoder's batches without their faults, which are counted, named, and an error where they prevail."""
    for images, captions, unusable in run_decoder(decoder, jobs, workers):
        faults.note(max(len(captions), len(unusable)), unusable)
        if images is None:
            raise faults.error()
        yield images, captions


def decode_rows(decoder: Decoder, rows: list[int], workers: int, faults: Faults) -> tuple:
    """-> (pixels of the usable pictures among `rows`, (N,) their rows). Raises MinclipError when most are not."""
    workers = workers if len(rows) >= WORTH_PROCESSES else 0
    batches = [rows[i : i + DECODED_AT_ONCE] for i in range(0, len(rows), DECODED_AT_ONCE)]
    pictures, usable = [], []
    with tqdm(total=len(rows), desc="decoding", unit=" pictures", unit_scale=True) as progress:
        for batch, (results, unusable) in zip(batches, run_decoder(decoder, batches, workers)):
            good = [i for i, pixels in enumerate(results) if not isinstance(pixels, str)]
            pictures += [results[i] for i in good]
            usable += [batch[i] for i in good]
            faults.note(len(batch), unusable, enough=len(decoder.table))
            progress.update(len(batch))
    if faults.failed:
        log.warning("%s.", faults)
    return pictures, np.array(usable)


@dataclass
class Pictures:
    """A source's pictures for evaluation.

    images: (N, 3, R, R) uint8, shorter side resized and centre cropped, as OpenAI's transform does
    texts: N captions, lists of captions, or labels as numbers
    label_names: what the numbers stand for, where the source says so
    faults: which pictures could not be used, and why
    """

    images: torch.Tensor
    texts: list
    label_names: tuple[str, ...] | None
    faults: Faults

    def labels(self, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """-> ((M,) places of the pictures that have a class, (M,) their classes as places in `class_names`).

        A caption must be a class's name, in capitals or not, with `_` or a space between its words; pictures
        of no class named are left out. So it is with labels that have names, if all the classes are among
        them. Other classes are new names for the labels, in the labels' order.

        Raises MinclipError when no picture has one of the classes, they are not as many as the labels (or too
        few, where labels are bare numbers), or a label's own name stands at another's place among new names.
        """
        place_of = {in_words(name): place for place, name in enumerate(class_names)}
        texts, known = self.texts, self.label_names
        own_place = {in_words(name): place for place, name in enumerate(known or ())}
        if known is not None and place_of.keys() <= own_place.keys():
            texts = [captions_of(text, known) for text in texts]
        numbers = [-1 if text is None else text for text in texts]
        if all(isinstance(number, int) for number in numbers):
            labels = np.array(numbers)
            # Of bare numbers the last classes may have no picture here.
            count = len(known) if known is not None else max(labels.max() + 1, len(class_names))
            if count != len(class_names):
                raise MinclipError(
                    f"{self.faults.source} has {count} labels, but {len(class_names)} classes are named. Name one class "
                    "for each label, in their order, or give the column that holds classes in words (caption_column)."
                )
            for name, place in place_of.items():
                if own_place.get(name, place) != place:
                    raise MinclipError(
                        f"Class {name!r} is label {own_place[name]} of {self.faults.source}, but number {place} of the "
                        "classes, from 0; other classes are no label's name, and are taken in the labels' order. Keep "
                        f"to that order ({', '.join(known[:5])}{', ...' if len(known) > 5 else ''}), or to the labels' "
                        "own names."
                    )
        else:
            found = [[place_of.get(in_words(word), -1) for word in captions_of(text, None)] for text in texts]
            labels = np.array([max(places, default=-1) for places in found])
        named = np.flatnonzero(labels >= 0)
        if len(named) == 0:
            raise MinclipError(
                f"No picture of {self.faults.source} is captioned with one of the {len(class_names)} class names "
                f"(a caption: {self.texts[0]!r}; a class: {class_names[0]!r}). Make the names agree, or give the column "
                "that holds labels as numbers (caption_column); line k of the classes then names label k, from 0."
            )
        return named, labels[named]


def load_pictures(
    source, split="test", image_column: str | None = None, caption_column: str | None = None,
    *, resolution: int, workers: int = 0,
) -> Pictures:  # fmt: skip
    """Every picture of a source, centre cropped, with its caption or label; arguments and errors as `load_pairs`.

    Raises MinclipError for a stream, too.
    """
    dataset, columns, name = open_undecoded(source, split, False, image_column, caption_column, with_numbers=True)
    if not hasattr(dataset, "__len__"):
        raise MinclipError(f"{name} is a stream, and an evaluation holds all its pictures; open it without streaming.")
    if len(dataset) == 0:
        raise MinclipError(f"{name} holds no rows.")
    transform = partial(resize_and_crop, resolution=resolution)
    decoder = Decoder(transform, None, dataset.select_columns(columns.image), columns.image, columns.folder)
    faults = Faults(name)
    pixels, rows = decode_rows(decoder, list(range(len(dataset))), workers, faults)
    texts = dataset.select_columns(columns.text)[rows.tolist()][columns.text]
    images = rearrange(torch.from_numpy(np.stack(pixels)), "b h w c -> b c h w")
    return Pictures(images, texts, columns.label_names, faults)


def load_pairs(
    source, split: str = "train", image_column: str | None = None, caption_column: str | None = None,
    *, resolution: int, streaming: bool = False, workers: int = 0, device="cpu", cache_gb: float = 4.0,
) -> ImagePairs | StreamedPairs:  # fmt: skip
    """Open a source of captioned pictures for `fit`.

    source: a hub name, a file (.parquet, .csv, .tsv, .json, .jsonl, .arrow, .tar for WebDataset), a
        pattern of files, a folder of these or of pictures, or a `datasets.Dataset`. A folder of pictures
        needs a metadata.csv with the columns file_name and caption, or is captioned by its subfolders' names
    image_column, caption_column: guessed where obvious. A caption may be a string, or a list of them, of
        which one is drawn each time; a class label stands for its name
    resolution: R, the side of the square crops, in pixels
    streaming: read from end to end, holding and storing nothing; for sources larger than the disk
    workers: processes that decode; 0 decodes in this one. A script that asks for some must keep its code
        under `if __name__ == "__main__":`
    device: where decoded pictures are kept, when all fit in `cache_gb` GiB; 0 keeps none

    Raises MinclipError for a source that cannot be opened, columns not found, or pictures mostly unusable.
    """
    dataset, columns, name = open_undecoded(source, split, streaming, image_column, caption_column)
    if hasattr(dataset, "__len__"):
        return ImagePairs(dataset, columns, name, resolution, workers, device, cache_gb)
    return StreamedPairs(dataset, columns, name, resolution, workers)
