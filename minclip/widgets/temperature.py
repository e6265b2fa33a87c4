"""Temperature: one number between cosines and beliefs (section 2.4). Notebook 04."""

import math

import numpy as np
import torch
from ipywidgets import HTML, FloatLogSlider, SelectionSlider

from .. import plots
from ..errors import MinclipError
from ..loss import contrastive_loss
from .parts import Frame, as_png, canvas_png, image_html, new_figure, note

START = 1 / 0.07  # where CLIP starts
SCALES = np.geomspace(1, 100, 41, dtype=np.float32)
LIMIT = 30  # the largest logit that colours tell apart


class Temperature(Frame):
    """Turn the scale s and the number of pairs N: logits, their softmax and the loss move together.

    image_features, text_features: (M, E), unit rows, pair by pair; the first N are used
    pairs: the N to begin with

    `loss` is what is shown, in nats.

    Raises MinclipError unless there are at least two pairs.
    """

    def __init__(self, image_features: torch.Tensor, text_features: torch.Tensor, pairs: int = 16):
        if image_features.shape != text_features.shape or image_features.ndim != 2 or len(image_features) < 2:
            raise MinclipError(
                f"Image features have shape {tuple(image_features.shape)}, text features {tuple(text_features.shape)}; "
                "the temperature needs pairs, (N, E) of each, and N at least 2."
            )
        self.image_features, self.text_features = image_features.detach().float(), text_features.detach().float()
        largest = int(math.log2(min(len(image_features), 512)))
        counts = [2**k for k in range(1, largest + 1)]
        wide = {"width": "min(560px, 100%)"}
        style = {"description_width": "90px"}
        self.scale = FloatLogSlider(
            START, min=0, max=2, step=math.log10(START) / 100, description="scale s", readout_format=".1f", layout=wide, style=style,
            tooltip="The scale s, one over the temperature, from 1 to 100. Arrow keys move it.",
        )  # fmt: skip
        self.pairs = SelectionSlider(
            options=counts, value=min(counts, key=lambda count: abs(count - pairs)), description="pairs N",
            layout=wide, style=style, tooltip="How many pairs there are to choose among. Arrow keys move it.",
        )  # fmt: skip
        self.message, self.image = HTML(), HTML()
        super().__init__(self.scale, self.pairs, self.message, self.image)
        self.curves = {
            n: [
                contrastive_loss(self.image_features[:n], self.text_features[:n], torch.tensor(s)).item()
                for s in SCALES
            ]
            for n in counts
        }
        self._draw_axes()
        self.pairs.observe(lambda _: self._change_pairs(), "value")
        self.scale.observe(lambda _: self._show(), "value")
        self._change_pairs()

    def _draw_axes(self) -> None:
        self.figure, (left, middle, right) = new_figure(10.5, 3.5, 3, width_ratios=[1, 1, 1.15])
        self.figure.subplots_adjust(left=0.03, right=0.985, bottom=0.16, top=0.9, wspace=0.5)
        self.logits = left.imshow(np.zeros((2, 2)), cmap=plots.SIGNED, vmin=-LIMIT, vmax=LIMIT)
        self.beliefs = middle.imshow(np.zeros((2, 2)), cmap=plots.POSITIVE, vmin=0, vmax=1)
        left.set(title="logits, s × cosine", xlabel="captions", ylabel="pictures")
        middle.set(title="softmax of each row", xlabel="captions")
        for ax, drawing, label in ((left, self.logits, "logit"), (middle, self.beliefs, "probability")):
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            extend = "both" if drawing is self.logits else "neither"
            self.figure.colorbar(drawing, ax=ax, label=label, fraction=0.046, pad=0.03, extend=extend)
        (self.curve,) = right.plot(SCALES, SCALES)
        (self.point,) = right.plot([START], [0], "o", color=plots.VERMILION, markersize=9)
        self.guessing = right.axhline(1, color=plots.GREY, linestyle="--", linewidth=1.2)
        self.guessing_label = right.text(1.1, 1, "", color=plots.GREY, fontsize=10, va="bottom")
        right.set(xscale="log", xlim=(1, 100), xlabel="scale s", ylabel="loss, nats", title="loss")
        right.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
        right.minorticks_off()
        self.loss_axes = right
        self.moving = (left, self.logits), (middle, self.beliefs), (right, self.point)
        for _, artist in self.moving:
            artist.set_animated(True)  # drawn apart, onto the rest
        right.set_visible(False)
        self.figure.canvas.draw()
        self._always = self.figure.canvas.copy_from_bbox(self.figure.bbox)  # all that N leaves as it is
        right.set_visible(True)

    def _change_pairs(self) -> None:
        count = self.pairs.value
        u, v = self.image_features[:count], self.text_features[:count]
        self.cosines = (u @ v.T).cpu().numpy()
        losses = self.curves[count]
        self.curve.set_ydata(losses)
        self.guessing.set_ydata([math.log(count)] * 2)
        self.guessing_label.set(y=math.log(count), text=f"ln {count} = {math.log(count):.2f}")
        self.loss_axes.set_ylim(0, max(1.25 * math.log(count), min(1.1 * max(losses), 2.5 * math.log(count))))
        for drawing in (self.logits, self.beliefs):
            drawing.set_extent((-0.5, count - 0.5, count - 0.5, -0.5))
        self.figure.canvas.restore_region(self._always)
        self.figure.draw_artist(self.loss_axes)
        self._still = self.figure.canvas.copy_from_bbox(self.figure.bbox)
        self._show()

    def _show(self) -> None:
        scale, count = self.scale.value, self.pairs.value
        u, v = self.image_features[:count], self.text_features[:count]
        self.loss = contrastive_loss(u, v, torch.tensor(scale, dtype=torch.float32)).item()
        logits = scale * self.cosines
        beliefs = np.exp(logits - logits.max(axis=1, keepdims=True))
        beliefs /= beliefs.sum(axis=1, keepdims=True)
        self.logits.set_data(logits)
        self.beliefs.set_data(beliefs)
        self.point.set_data([scale], [self.loss])
        in_play = round(math.exp(self.loss), 1)
        means = f"about {in_play} captions still in play" if in_play <= count else f"worse than guessing among {count}"
        words = (
            f"s = {scale:.1f} (temperature {1 / scale:.3f}), N = {count}: loss {self.loss:.2f} nats, "
            f"ln N = {math.log(count):.2f}, {means}. "
            f"Mean probability of the true caption: {beliefs.diagonal().mean():.0%}."
        )
        self.message.value = note(words)
        alt = f"Matrix of logits, matrix of its row softmax, and the loss against the scale. {words}"
        self.figure.canvas.restore_region(self._still)
        for ax, artist in self.moving:
            ax.draw_artist(artist)
        self.image.value = image_html(canvas_png(self.figure), alt)

    def picture(self) -> bytes:
        """The three panels as PNG."""
        return as_png(self.figure)
