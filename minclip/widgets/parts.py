"""What the widgets share: a frame, pictures with words for those who cannot see them, and messages."""

import base64
import io
from collections.abc import Callable
from html import escape

import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import HTML, VBox
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from .. import plots
from ..clip import CLIP
from ..errors import MinclipError

# JupyterLab's own colours, so that a dark lab has dark widgets; pictures keep their white paper.
STYLE = """<style>
.minclip { color: var(--jp-ui-font-color1, inherit); max-width: 1100px; gap: 6px; padding: 4px 2px; }
.minclip .widget-html-content, .minclip .jupyter-widgets { max-width: 100%; }
.minclip .widget-html-content { line-height: 1.4; }
.minclip img.minclip-figure { background: white; border-radius: 6px; max-width: 100%; height: auto; display: block; }
.minclip .minclip-trouble { border-left: 4px solid #D55E00; padding: 2px 10px; }
.minclip :focus-visible { outline: 2px solid #0072B2 !important; outline-offset: 1px; }
.minclip table.minclip-table { border-collapse: collapse; color: inherit; font-size: 12px; }
.minclip table.minclip-table :is(th, td) { padding: 2px 6px; text-align: left; border: none; color: inherit; }
.minclip table.minclip-table caption { text-align: left; padding: 2px 6px; caption-side: top; color: inherit; }
</style>"""


class Frame(VBox):
    """A column of widgets in the course's style.

    Subclasses have `picture()`, the present state as PNG: what a notebook shows to readers without a kernel.
    """

    def __init__(self, *children):
        super().__init__([HTML(STYLE, layout={"display": "none"}), *children])
        self.add_class("minclip")

    def _repr_mimebundle_(self, **kwargs) -> dict:
        still = base64.b64encode(self.picture()).decode()
        return super()._repr_mimebundle_(**kwargs) | {"image/png": still, "text/plain": f"<{type(self).__name__}>"}


def note(words: str) -> str:
    """A line of small print, as HTML; a screen reader speaks it when it changes."""
    return f'<div role="status" class="minclip-note">{escape(words)}</div>'


def trouble(error: Exception | str) -> str:
    """What went wrong, as HTML."""
    return f'<div role="alert" class="minclip-trouble">{escape(str(error))}</div>'


def check_model(model, tokenizer) -> None:
    """Raises MinclipError where a name or None stands for the model."""
    if not isinstance(model, CLIP) or not callable(tokenizer):
        raise MinclipError(
            f"This widget needs a model and its tokenizer, not {type(model).__name__} and {type(tokenizer).__name__}; "
            'get both with model, tokenizer = minclip.load("glyphs-tiny").'
        )


def lines_of(text: str) -> list[str]:
    """The lines of a text box that hold something."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def new_figure(width: float, height: float, columns: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """A figure in the course's style that belongs to no notebook cell: (figure, its axes in a row)."""
    with plt.rc_context():
        plots.use_style()
        figure = Figure(figsize=(width, height), dpi=100, layout="none")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, columns, squeeze=False, **options)[0]
    return figure, axes


def as_png(figure: Figure) -> bytes:
    """The figure, drawn anew."""
    figure.canvas.draw()
    for ax in figure.axes:
        for artist in ax.get_children():
            if artist.get_animated():  # left out by draw()
                ax.draw_artist(artist)
    return canvas_png(figure)


def canvas_png(figure: Figure) -> bytes:
    """The figure as last drawn. Compressed lightly: it travels to a browser once, and the reader waits."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB").save(file, "png", compress_level=1)
    return file.getvalue()


def array_png(picture: np.ndarray, side: int) -> bytes:
    """A picture (H, W, 3) or (H, W), uint8 or float in [0, 1], as PNG whose shorter side is at least `side` pixels."""
    picture = plots.as_picture(picture)
    image = Image.fromarray(np.round(picture * 255).astype(np.uint8))
    times = max(1, -(-side // min(image.size)))
    file = io.BytesIO()
    image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST).save(file, "png")
    return file.getvalue()


def data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def image_html(png: bytes, alt: str) -> str:
    """A figure with its description."""
    return f'<img class="minclip-figure" alt="{escape(alt, quote=True)}" src="{data_url(png)}">'


def drawn(draw: Callable, title: str = "") -> bytes:
    """What `draw()` draws with pyplot, as PNG; no figure stays behind for the cell to show a second time."""
    with plt.rc_context():
        plots.use_style()
        plt.rcParams["text.parse_math"] = False  # names are text: a $ in them opens no formula
        draw()
        figure, file = plt.gcf(), io.BytesIO()
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=9)
        figure.savefig(file, format="png", dpi=100, bbox_inches="tight")
        plt.close(figure)
    return file.getvalue()
