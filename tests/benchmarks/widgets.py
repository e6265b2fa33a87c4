"""How long a reader waits for each widget: `python tests/benchmarks/widgets.py`.

The median over twenty changes, in Python, from the change to the new state that is sent to the browser;
and the seconds it takes to make the widget. The aim is 100 ms for a change and 10 s for the search's vectors.
"""

import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch

import minclip
from minclip import TrainConfig, widgets
from minclip.data.glyphs import load_atlas
from minclip.data.painting import GlyphPairs
from minclip.data.tasks import glyph_tasks, handwritten_digits
from minclip.zeroshot import encode_images, encode_texts

CHANGES = 20


def measure(name: str, make: Callable, change: Callable) -> None:
    """Print how long `make()` takes, and the median of `change(widget, i)`."""
    began = time.perf_counter()
    widget = make()
    built = time.perf_counter() - began
    waits = []
    for i in range(CHANGES):
        began = time.perf_counter()
        change(widget, i)
        waits.append(time.perf_counter() - began)
    print(f"{name:<46}{built:>8.2f} s{1000 * statistics.median(waits):>10.0f} ms", flush=True)


def main() -> None:
    model, tokenizer = minclip.load("glyphs-tiny")
    atlas = load_atlas(model.config.image_resolution)
    pictures = atlas.pictures()
    some = atlas.select(np.arange(0, 256 * 97, 97))
    u = encode_images(model, minclip.preprocess(some.pictures(), model.config))
    v = encode_texts(model, tokenizer, some.name)
    digits, large = handwritten_digits(atlas.size), glyph_tasks(atlas)["canadian-syllabics"]
    pairs = GlyphPairs(atlas.training())
    print(f"{torch.get_num_threads()} threads; {len(atlas):,} glyphs\n\n{'widget':<46}{'made in':>10}{'a change':>13}")

    with tempfile.TemporaryDirectory() as folder:

        def search():
            return widgets.Search(model, tokenizer, pictures, atlas.name, folder=folder)

        def type_words(widget, i):
            widget.words.value = "leftwards arrow with hook"[: 3 + i]

        measure("search, first time: a letter typed", search, type_words)
        measure("search, vectors kept: a picture pressed", search, lambda widget, i: widget.results[1 + i % 9].click())

    def distract(widget, i):
        widget.distractors.value = "latin small letter " + "l" * (1 + i)

    for name, task in (("10", digits), (f"{len(large.class_names)}", large)):
        measure(
            f"classifier designer, {name} classes: a distractor",
            lambda task=task: widgets.ClassifierDesigner(model, tokenizer, task), distract,
        )  # fmt: skip

    def stroke(widget, i):
        widget.pen_down(20, 10 + 10 * i)
        widget.pen_move(200, 20 + 10 * i)
        widget.pen_up()

    measure("draw: a stroke", lambda: widgets.Draw(model, tokenizer), stroke)
    measure(
        "temperature: the scale", lambda: widgets.Temperature(u, v, 64), lambda w, i: setattr(w.scale, "value", 1.5 + i)
    )
    measure("temperature: N, to 256 and back", lambda: widgets.Temperature(u, v, 64),
            lambda w, i: setattr(w.pairs, "value", (256, 16)[i % 2]))  # fmt: skip
    measure("derivation: a step", lambda: widgets.Derivation(u[:8], v[:8], 14.3, list(some.ink[:8]), list("abcdefgh")),
            lambda w, i: setattr(w.step, "value", 1 + (1 + i) % 8))  # fmt: skip

    def look(widget, i):
        widget._look()
        widget._show("")

    measure("training window: a look", lambda: widgets.TrainingWindow(model, tokenizer, pairs, TrainConfig()), look)


if __name__ == "__main__":
    main()
