"""The derivation of the loss, forwards and backwards: formula beside matrix. Notebook 04, part 1."""

from collections.abc import Sequence
from html import escape

import torch
import torch.nn.functional as F
from ipywidgets import HTML, Button, HBox, HTMLMath, IntSlider, VBox

from .. import plots
from ..errors import MinclipError
from ..loss import contrastive_loss
from .parts import Frame, drawn, image_html

# (title, formula, what to look at), in the order of the lesson; below, what colours measure and how numbers are written
STEPS = (
    ("Cosines", r"c_{ij} = u_i \cdot v_j",
     "Pictures down, captions across. The true pairs are outlined; everything else belongs to somebody else."),
    ("Logits", r"z_{ij} = s\, c_{ij}",
     "The same matrix, stretched by the scale s. Order stays; differences count for more."),
    ("Every picture asks", r"p_{ij} = \frac{e^{z_{ij}}}{\sum_k e^{z_{ik}}}",
     "Softmax along each row: which caption is mine? Every row sums to 1."),
    ("Its surprise", r"\ell_i = -\ln p_{ii}, \qquad L_{\text{pictures}} = \frac1N \sum_i \ell_i",
     "Minus the logarithm of each entry. Only the outlined ones are paid for."),
    ("Every caption asks, too", r"q_{ij} = \frac{e^{z_{ij}}}{\sum_k e^{z_{kj}}}",
     "Softmax down each column: which picture is mine? Every column sums to 1."),
    ("Its surprise", r"L_{\text{captions}} = -\frac1N \sum_j \ln q_{jj}",
     "The same diagonal, with other competitors: a column is not a row."),
    ("Both, in equal parts",
     r"L = \tfrac12 (L_{\text{pictures}} + L_{\text{captions}}) = -\tfrac1N \operatorname{tr} Z"
     r" + \tfrac1{2N} \Big(\sum_i \operatorname{lse}_j z_{ij} + \sum_j \operatorname{lse}_i z_{ij}\Big)",
     "Each entry is what the pair costs in both directions, on average; the loss is the mean of the diagonal."),
    ("Its gradient", r"\frac{\partial L}{\partial z_{ij}} = \frac1{2N} (p_{ij} + q_{ij} - 2\,\delta_{ij})",
     "What the model believes, less what is true. Blue entries will rise, orange ones fall."),
)  # fmt: skip

LABELS = (
    ("cosine", ".2f"), ("logit z", ".1f"), ("probability p", ".2f"), ("surprise, nats", ".1f"), ("probability q", ".2f"),
    ("surprise, nats", ".1f"), ("cost, nats", ".1f"), ("dL / dz", ".3f"),
)  # fmt: skip


class Derivation(Frame):
    """Step through the loss of N pairs, forwards and backwards.

    image_features, text_features: (N, E), unit rows; logit_scale: the scale s
    rows: N pictures or strings; names: N strings, the captions

    `values` is the matrix of the present step, `step.value` its number from 1.

    Raises MinclipError unless the features are pairs with as many rows and names.
    """

    def __init__(
        self, image_features: torch.Tensor, text_features: torch.Tensor, logit_scale: float,
        rows: Sequence, names: Sequence[str],
    ):  # fmt: skip
        if image_features.shape != text_features.shape or not len(image_features) == len(rows) == len(names) > 0:
            raise MinclipError(
                f"Image features have shape {tuple(image_features.shape)}, text features {tuple(text_features.shape)}, "
                f"with {len(rows)} rows and {len(names)} names; the derivation needs N of each."
            )
        self.rows, self.names = rows, list(names)
        self.matrices, self.numbers = steps_of(image_features.detach(), text_features.detach(), float(logit_scale))
        self._pictures = [  # all of them now, so that no step waits for its own
            drawn(lambda: plots.matrix(values, rows=rows, columns=self.names, numbers=numbers, label=label))  # noqa: B023
            for values, (label, numbers) in zip(self.matrices, LABELS)
        ]
        self.step = IntSlider(
            1, 1, len(STEPS), description="Step", continuous_update=True, tooltip="Which step; arrow keys move it.",
            layout={"width": "min(380px, 60%)"},
        )  # fmt: skip
        self.back = Button(description="Back", icon="arrow-left", tooltip="One step back", layout={"width": "90px"})
        self.forward = Button(description="Next", icon="arrow-right", tooltip="One step on", layout={"width": "90px"})
        self.back.on_click(lambda _: self._go(-1))
        self.forward.on_click(lambda _: self._go(1))
        self.text, self.image = HTMLMath(layout={"width": "min(400px, 100%)"}), HTML()
        beside = HBox([self.text, self.image], layout={"flex_flow": "row wrap", "align_items": "center"})
        super().__init__(HBox([self.back, self.step, self.forward], layout={"flex_flow": "row wrap"}), VBox([beside]))
        self.step.observe(lambda _: self._show(), "value")
        self._show()

    def _go(self, by: int) -> None:
        self.step.value += by  # the slider stops at its ends

    @property
    def values(self) -> torch.Tensor:
        return self.matrices[self.step.value - 1]

    def _show(self) -> None:
        step = self.step.value
        title, formula, look = STEPS[step - 1]
        self.back.disabled, self.forward.disabled = step == 1, step == len(STEPS)
        number = self.numbers[step - 1]
        self.text.value = (
            f'<div role="status"><h3 style="color: inherit; margin: 0">{step}. {escape(title)}</h3> $$ {formula} $$ '
            f"<p>{escape(look)}</p><p><b>{escape(number)}</b></p></div>"
        )
        alt = f"Matrix of {len(self.names)} pictures by {len(self.names)} captions. {title}: {look} {number}"
        self.image.value = image_html(self.picture(), alt)

    def picture(self) -> bytes:
        """The matrix of the present step as PNG."""
        return self._pictures[self.step.value - 1]


def steps_of(image_features: torch.Tensor, text_features: torch.Tensor, s: float) -> tuple[list, list[str]]:
    """The matrix of each step, (N, N), and the sentence that says what it comes to."""
    cosines = image_features @ text_features.T
    z, n = s * cosines, len(cosines)
    p, q = F.log_softmax(z, dim=1), F.log_softmax(z, dim=0)
    cost = -(p + q) / 2
    gradient = (p.exp() + q.exp() - 2 * torch.eye(n, dtype=z.dtype)) / (2 * n)
    own, other = cosines.diagonal().mean(), (cosines.sum() - cosines.trace()) / max(1, n * n - n)
    by_rows, by_columns = -p.diagonal().mean(), -q.diagonal().mean()
    whole = contrastive_loss(image_features, text_features, torch.tensor(s, dtype=z.dtype))
    sentences = [
        f"Mean cosine: true pairs {own:.2f}, others {other:.2f}",
        f"s = {s:.1f}, a temperature of {1 / s:.2f}",
        f"{int((p.argmax(1) == torch.arange(n)).sum())} of {n} pictures choose their own caption",
        f"Pictures choose captions: {by_rows:.4f} nats",
        f"{int((q.argmax(0) == torch.arange(n)).sum())} of {n} captions choose their own picture",
        f"Captions choose pictures: {by_columns:.4f} nats",
        f"({by_rows:.4f} + {by_columns:.4f}) / 2 = {whole:.4f} nats",
        f"All entries sum to {abs(gradient.sum().item()):.0f}; the strongest pull is on pair {int(gradient.diagonal().argmin()) + 1}",
    ]
    return [cosines, z, p.exp(), -p, q.exp(), -q, cost, gradient], sentences
