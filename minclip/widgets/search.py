"""Search: a data set turned into vectors once, and the nearest of them to whatever one types (section 3.1).

Notebook 00.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import platformdirs
import torch
from ipywidgets import HTML, Button, GridBox, Text
from tqdm.auto import tqdm

from .. import plots
from ..checkpoint import write_atomically
from ..data.images import preprocess
from ..errors import MinclipError
from ..zeroshot import CHUNK, encode_images, encode_texts
from .parts import Frame, array_png, check_model, data_url, drawn, note, trouble

KEPT = 5  # galleries in the cache folder; older ones are removed
BUTTON = (  # the glyph above its name, on paper in a light lab and in a dark one
    "background: var(--jp-layout-color2, #eee) center 8px / 64px 64px no-repeat; padding: 76px 4px 4px; white-space: normal;"
    "line-height: 1.25; font-size: 11px; border-radius: 6px; color: inherit; overflow: hidden; align-items: start;"
)


class Search(Frame):
    """Search pictures with words, as they are typed, or with one of the pictures.

    pictures: (N, S, S, 3) uint8, or a list of PIL pictures or uint8 arrays
    names: N strings, for the reader alone; pictures that are alike to the last pixel are shown once, with all names
    words: the search to begin with
    shown: how many results
    folder: where the vectors are kept for next time; by default the user's cache folder, False for nowhere

    `found` holds the results, nearest first: (names, cosine). The first time, 50,000 glyphs take some ten seconds.

    Raises MinclipError for something that is no model, no pictures, or another number of names.
    """

    def __init__(
        self, model, tokenizer, pictures: np.ndarray | Sequence, names: Sequence[str],
        words: str = "black chess knight", shown: int = 16, folder: str | Path | bool | None = None,
    ):  # fmt: skip
        check_model(model, tokenizer)
        if len(pictures) == 0 or len(pictures) != len(names):
            raise MinclipError(
                f"Search has {len(pictures):,} pictures and {len(names):,} names; give one name a picture, and at least one."
            )
        self.model, self.tokenizer = model, tokenizer
        self.pictures, self.names = distinct(pictures, names)
        self.features = gallery_features(model, self.pictures, folder)
        self.found: list[tuple[list[str], float]] = []
        self._rows: list[int] = []
        self._title = ""

        self.words = Text(
            words, description="Search for", placeholder="words, such as: cat face", continuous_update=True,
            layout={"width": "min(520px, 100%)"}, tooltip="Words to search for. Results change as you type.",
        )  # fmt: skip
        self.message = HTML()
        self._images = HTML(layout={"display": "none"})  # a style sheet: the results' pictures
        self.results = [Button(layout={"width": "auto", "height": "128px"}) for _ in range(min(shown, len(self.names)))]
        for place, button in enumerate(self.results):
            button.add_class(f"minclip-result-{place}")
            button.on_click(lambda _, place=place: self.search_picture(self._rows[place]))
            button.layout.display = "none"  # until there is something to show
        grid = GridBox(
            self.results, layout={"grid_template_columns": "repeat(auto-fill, minmax(118px, 1fr))", "grid_gap": "6px"}
        )
        super().__init__(self.words, self.message, self._images, grid)
        self._scope = f"minclip-{self.model_id}"
        self.add_class(self._scope)
        self.words.observe(self._typed, "value")
        self.search_words(words)

    def search_words(self, words: str) -> None:
        """Show the pictures nearest to the words; none where there are no words."""
        if not words.strip():
            self.found, self._rows, self._title = [], [], ""
            for button in self.results:
                button.layout.display = "none"
            self.message.value = note("Type words to search for, or press a picture to search by it.")
            return
        try:
            query = encode_texts(self.model, self.tokenizer, [words])[0].cpu()
        except MinclipError as error:
            self.message.value = trouble(error)
            return
        self._show(query, f"Nearest of {len(self.names):,} pictures to the words “{words.strip()}”, with cosines.")

    def search_picture(self, row: int) -> None:
        """Show the pictures nearest to one of them."""
        self.words.unobserve(self._typed, "value")
        self.words.value = ""
        self.words.observe(self._typed, "value")
        name = self.names[row][0]
        self._show(
            self.features[row], f"Nearest of {len(self.names):,} pictures to the picture of {name}, with cosines."
        )

    def _typed(self, change) -> None:
        self.search_words(change["new"])

    def _show(self, query: torch.Tensor, title: str) -> None:
        cosines, rows = (self.features @ query).topk(len(self.results))
        self._rows, self._title = rows.tolist(), title
        self.found = [(self.names[row], cosine) for row, cosine in zip(self._rows, cosines.tolist())]
        rules = [f".{self._scope} .jupyter-button {{ {BUTTON} }}"]
        for place, (row, button, (names, cosine)) in enumerate(zip(self._rows, self.results, self.found)):
            button.description = f"{cosine:.2f}  {names[0]}"
            button.layout.display = ""
            button.tooltip = "Search by this picture: " + ", ".join(names)
            url = data_url(array_png(self.pictures[row], 64))
            rules.append(f".{self._scope} .jupyter-button.minclip-result-{place} {{ background-image: url({url}); }}")
        self._images.value = "<style>" + "\n".join(rules) + "</style>"
        self.message.value = note(title)

    def picture(self) -> bytes:
        """The results as PNG."""
        captions = [f"{cosine:.2f}\n{names[0]}" for names, cosine in self.found]
        rows = [np.asarray(self.pictures[row]) for row in self._rows]
        if not rows:
            return drawn(lambda: plt.figtext(0.5, 0.5, "nothing searched for yet", ha="center"))
        return drawn(lambda: plots.pictures(rows, captions, columns=8, side=1.15, size=7), self._title)


def distinct(pictures: Sequence, names: Sequence[str]) -> tuple[Sequence, list[list[str]]]:
    """The pictures without repetition, in order, and for each all the names it goes by."""
    first: dict[bytes, int] = {}
    called: dict[bytes, dict[str, None]] = {}  # a dict keeps order, and each name once
    for row, (picture, name) in enumerate(zip(pictures, names)):
        pixels = np.asarray(picture).tobytes()
        first.setdefault(pixels, row)
        called.setdefault(pixels, {})[str(name)] = None
    rows = list(first.values())
    kept = pictures[rows] if isinstance(pictures, np.ndarray) else [pictures[row] for row in rows]
    return kept, [list(names) for names in called.values()]


def gallery_features(model, pictures: Sequence, folder: str | Path | bool | None = None) -> torch.Tensor:
    """Pictures -> (N, E) float32 unit features, from the cache folder if they are there."""
    folder = platformdirs.user_cache_path("minclip") if folder is None else folder and Path(folder)
    file = folder and folder / f"features-{fingerprint(model, pictures)}.npy"
    if file:
        with suppress(OSError, ValueError, EOFError):  # absent, or damaged: made anew
            return torch.from_numpy(np.load(file, allow_pickle=False).astype(np.float32))
    chunks = []
    silent = bool(os.environ.get("TQDM_DISABLE"))  # which tqdm's form for notebooks does not heed by itself
    with tqdm(
        total=len(pictures), desc="pictures to vectors", unit=" pictures", leave=False, disable=silent
    ) as progress:
        for start in range(0, len(pictures), CHUNK):
            some = pictures[start : start + CHUNK]
            if isinstance(some, np.ndarray) and some.shape[1:3] == (model.config.image_resolution,) * 2:
                some = torch.from_numpy(some).permute(0, 3, 1, 2)  # nothing to resize: the same numbers, sooner
            features = encode_images(model, preprocess(some, model.config)).cpu()
            chunks.append(features.numpy().astype(np.float16))  # half the disk; cosines to three decimals
            progress.update(len(some))
    features = np.concatenate(chunks)
    if file:
        with suppress(MinclipError, OSError):  # a cache that cannot be written is no trouble of the reader's
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(file, lambda opened: np.save(opened, features))
            kept = sorted(folder.glob("features-*.npy"), key=lambda path: path.stat().st_mtime)
            for old in kept[:-KEPT]:
                old.unlink()
    return torch.from_numpy(features.astype(np.float32))


def fingerprint(model, pictures: Sequence) -> str:
    """Of the model, weights and configuration, and the pictures: others of these, other vectors."""
    digest = hashlib.sha256(repr(model.config).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    for picture in pictures:
        digest.update(np.asarray(picture).tobytes())
    return digest.hexdigest()[:20]
