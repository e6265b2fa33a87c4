"""Draw, and read what the model makes of it: zero-shot classification of one's own hand. Notebook 00."""

import io
import time
from collections.abc import Sequence
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import torch
from ipycanvas import Canvas
from ipywidgets import HTML, Button, Checkbox, FileUpload, HBox, Textarea, VBox
from PIL import Image, ImageDraw

from .. import plots
from ..data.images import MEAN, STD, preprocess, to_rgb
from ..data.tasks import DIGITS, PLAIN
from ..errors import MinclipError
from ..zeroshot import encode_images, zero_shot_classifier
from .parts import Frame, array_png, check_model, drawn, image_html, lines_of, note, trouble

SIDE, PEN, STEP = 256, 20, 8  # pixels of the canvas, of the pen's width, of an arrow key's step
PAUSE = 0.08  # seconds between two looks at a line that is being drawn


class Draw(Frame):
    """Draw with mouse, finger or arrow keys, or open a picture file; read the probability of each class.

    class_names: the classes to begin with; a line each, and free to edit
    templates: captions with {} for the class name

    `probabilities` is a dict, class name -> probability, empty while there is nothing to classify;
    `seen` is the picture (S, S, 3) uint8 that the model reads.

    Raises MinclipError for something that is no model, or class names that are no classifier.
    """

    def __init__(
        self, model, tokenizer, class_names: Sequence[str] = tuple(f"digit {word}" for word in DIGITS),
        templates: str | Sequence[str] = PLAIN,
    ):  # fmt: skip
        check_model(model, tokenizer)
        self.model, self.tokenizer, self.class_templates = model, tokenizer, templates
        self.classifier = zero_shot_classifier(model, tokenizer, class_names, templates).cpu()
        self.class_names = list(class_names)
        self.probabilities: dict[str, float] = {}
        self.seen: np.ndarray | None = None
        self._looked = 0.0  # when the model last did

        self.canvas = Canvas(
            width=SIDE, height=SIDE, layout={"width": f"{SIDE}px", "height": f"{SIDE}px", "border": "1px solid #7F7F7F"},
        )  # fmt: skip
        how = HTML(note("Draw here. Keys: arrows move the pen, space puts it down and lifts it, Tab leaves."))
        how.layout.width = f"{SIDE}px"
        self.line = Checkbox(
            True, description="set it on the line, as print is", indent=False,
            tooltip="Scale the drawing to a letter's size and put it on the base line, as the training pictures are",
        )  # fmt: skip
        self.clear = Button(description="Clear", icon="eraser", tooltip="A clean sheet")
        self.file = FileUpload(
            accept="image/*", description="Open a picture", tooltip="Classify a picture file instead"
        )
        self.names = Textarea(
            "\n".join(class_names), description="Classes", rows=min(12, max(4, len(class_names))),
            layout={"width": "calc(100% - 8px)"}, style={"description_width": "60px"},
            tooltip="The class names, a line each; edit them as you like", placeholder="class names, a line each",
        )  # fmt: skip
        self.message, self.seen_image, self.bars = HTML(), HTML(), HTML()
        left = VBox([how, self.canvas, HBox([self.clear, self.file]), self.line], layout={"flex": "0 0 auto"})
        middle = VBox([self.names, self.seen_image], layout={"flex": "1 1 220px", "max_width": "300px"})
        right = VBox([self.message, self.bars], layout={"flex": "2 1 300px"})
        super().__init__(HBox([left, middle, right], layout={"flex_flow": "row wrap", "grid_gap": "12px"}))
        self._start()
        self.canvas.on_client_ready(self._repaint)
        self.canvas.on_mouse_down(self.pen_down)
        self.canvas.on_mouse_move(self.pen_move)
        self.canvas.on_mouse_up(lambda x, y: self.pen_up())
        self.canvas.on_mouse_out(lambda x, y: self.pen_up())
        self.canvas.on_touch_start(lambda touches: self.pen_down(*touches[0]))
        self.canvas.on_touch_move(lambda touches: self.pen_move(*touches[0]))
        self.canvas.on_touch_end(lambda touches: self.pen_up())
        self.canvas.on_key_down(self._key)
        self.clear.on_click(lambda _: self._start())
        self.file.observe(self._opened, "value")
        self.names.observe(self._renamed, "value")
        self.line.observe(lambda _: self._classify(), "value")

    # The sheet is kept here, in Python; the canvas in the browser shows it.

    def _start(self) -> None:
        self.sheet = Image.new("L", (SIDE, SIDE))  # ink, 0 to 255
        self.pen: tuple[float, float] | None = None  # where it is, if it is down
        self.cursor = (SIDE // 2, SIDE // 2)  # of the keyboard's pen
        self.opened: Image.Image | None = None
        self._repaint()
        self._classify()

    def _repaint(self) -> None:
        picture = 255 - np.asarray(self.sheet)
        if self.opened is not None:
            picture = np.asarray(self.opened.resize((SIDE, SIDE)))
        # One manager serves all canvases, and tells the page which one it draws on only when that changes. A page that
        # was opened anew over a live kernel has not been told: forget, so that each repainting names the canvas again.
        manager = getattr(self.canvas, "_canvas_manager", None)
        if hasattr(manager, "_current_canvas"):  # ipycanvas's own, and not promised
            manager._current_canvas = None
        self.canvas.put_image_data(np.broadcast_to(np.atleast_3d(picture), (SIDE, SIDE, 3)).copy())

    def pen_down(self, x: float, y: float) -> None:
        if self.opened is not None:
            self._start()  # a drawing replaces an opened picture
        self.pen = (x, y)
        self._stroke(x, y)

    def pen_move(self, x: float, y: float) -> None:
        if self.pen is not None:
            self._stroke(x, y)

    def pen_up(self) -> None:
        if self.pen is not None:
            self.pen = None
            self._classify()

    def _stroke(self, x: float, y: float) -> None:
        (left, top), r = self.pen, PEN / 2
        ink = ImageDraw.Draw(self.sheet)
        ink.line((left, top, x, y), fill=255, width=PEN)
        ink.ellipse((x - r, y - r, x + r, y + r), fill=255)
        self.pen = self.cursor = (x, y)
        self.canvas.stroke_style = self.canvas.fill_style = "black"
        self.canvas.line_width, self.canvas.line_cap = PEN, "round"
        self.canvas.stroke_line(left, top, x, y)
        self.canvas.fill_circle(x, y, r)
        if time.perf_counter() - self._looked > PAUSE:
            self._classify()

    def _key(self, key: str, shift: bool, *_) -> None:
        steps = {"ArrowLeft": (-STEP, 0), "ArrowRight": (STEP, 0), "ArrowUp": (0, -STEP), "ArrowDown": (0, STEP)}
        if key == "Tab" or key == "Escape":  # the canvas swallows them: take the focus on
            (self.names if shift else self.clear).focus()
        elif key == " ":
            self.pen_down(*self.cursor) if self.pen is None else self.pen_up()
        elif key in steps:
            x, y = (min(SIDE - 1, max(0, at + by)) for at, by in zip(self.cursor, steps[key]))
            self.pen_move(x, y)
            self.cursor = (x, y)

    def _opened(self, change) -> None:
        if not change["new"]:
            return
        try:
            self.opened = to_rgb(Image.open(io.BytesIO(change["new"][0]["content"])))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            self.message.value = trouble(f"{change['new'][0]['name']} is no picture that can be read ({error}).")
            return
        self._repaint()
        self._classify()

    def _renamed(self, _) -> None:
        names = lines_of(self.names.value)
        try:
            self.classifier = zero_shot_classifier(self.model, self.tokenizer, names, self.class_templates).cpu()
        except MinclipError as error:
            self.message.value = trouble(error)
            return
        self.class_names = names
        self._classify()

    def _read(self) -> np.ndarray | None:
        """What the model reads, (S, S, 3) uint8; None while the sheet is empty."""
        size = self.model.config.image_resolution
        if self.opened is not None:
            return np.asarray(self.opened)
        box = self.sheet.getbbox()
        if box is None:
            return None
        if self.line.value:
            ink = on_the_line(self.sheet.crop(box), size)
        else:
            ink = np.asarray(self.sheet.resize((size, size), Image.Resampling.BOX))
        return np.repeat(255 - ink[..., None], 3, axis=-1)

    def _classify(self) -> None:
        picture = self._read()
        self._looked = time.perf_counter()
        if picture is None:
            self.probabilities, self.seen, self.seen_image.value, self.bars.value = {}, None, "", ""
            self.message.value = note("Draw something on the left, or open a picture.")
            return
        inputs = preprocess(picture, self.model.config)
        features = encode_images(self.model, inputs).cpu()
        scale = self.model.logit_scale.detach().exp().item()
        probabilities = (scale * features @ self.classifier).softmax(dim=1)[0].tolist()
        self.probabilities = dict(zip(self.class_names, probabilities))
        self.seen = to_pixels(inputs)
        best = max(self.probabilities, key=self.probabilities.get)
        self.message.value = note(f"{best}, says the model, with probability {self.probabilities[best]:.2f}.")
        self.bars.value = bars(self.probabilities)
        seen = image_html(array_png(self.seen, 96), "What the model sees: your picture at its resolution.")
        self.seen_image.value = f"<div>what the model sees</div>{seen}"

    def picture(self) -> bytes:
        """The drawing and its probabilities as PNG."""

        def draw():
            figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=[1, 1.6])
            sheet = self.seen if self.seen is not None else np.full((1, 1, 3), 255, np.uint8)
            left.imshow(sheet)
            left.set(xticks=[], yticks=[], title="what the model sees")
            left.grid(False)
            names = list(self.probabilities or dict.fromkeys(self.class_names, 0.0))
            right.barh(names, [self.probabilities.get(name, 0.0) for name in names], color=plots.SKY)
            right.set(xlabel="probability", xlim=(0, 1))
            right.invert_yaxis()

        return drawn(draw)


def on_the_line(ink: Image.Image, size: int) -> np.ndarray:
    """Ink, cropped, -> (size, size) uint8, as large as a printed capital and where print has it."""
    tall, baseline = 0.75 * size * 0.73, round(0.75 * size)  # see data.glyphs.render_face
    scale = min(tall / ink.height, 0.9 * size / ink.width)
    width, height = max(1, round(scale * ink.width)), max(1, round(scale * ink.height))
    top = round(baseline - (tall + height) / 2)  # what is flat, such as a dash, lies half way up
    sheet = Image.new("L", (size, size))
    sheet.paste(ink.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3), ((size - width) // 2, top))
    return np.asarray(sheet)


def to_pixels(inputs: torch.Tensor) -> np.ndarray:
    """Model input (1, 3, R, R) -> (R, R, 3) uint8."""
    pixels = inputs[0] * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    return (255 * pixels).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def bars(probabilities: dict[str, float]) -> str:
    """A table of bars, in the order of the classes."""
    best = max(probabilities.values())
    lines = []
    for name, p in probabilities.items():
        colour = "#0072B2" if p == best else "#56B4E9"
        lines.append(
            f'<tr><th scope="row" style="font-weight: normal">{escape(name)}</th><td>{p:.2f}</td><td style="width: 60%">'
            f'<div style="height: 12px; width: {100 * p:.1f}%; background: {colour}"></div></td></tr>'
        )
    head = '<thead><tr><th scope="col">class</th><th scope="col">probability</th><th></th></tr></thead>'
    return f'<table class="minclip-table" style="width: 100%">{head}<tbody>{"".join(lines)}</tbody></table>'
