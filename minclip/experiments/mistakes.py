"""Ten classic mistakes in training a CLIP, as small functions: what `broken_clips.py` trains with.

None of them stops a run with an error. Each changes one thing about a step: the loss, the captions, the
token that is read, the limit of the temperature, or the model that the weights are put into. All have
been made in public code. Notebook 05.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..loss import contrastive_loss

# A loss takes the encoders' outputs as they come, (N, E) each, and the exponentiated scale.


def right(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The loss of Figure 3: features on the unit sphere, both directions, the scale on the logits."""
    return contrastive_loss(F.normalize(images, dim=-1), F.normalize(texts, dim=-1), scale)


def no_normalisation(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Dot products where cosines belong: a long vector matches everything."""
    return contrastive_loss(images, texts, scale)


def one_sided(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Each picture finds its caption; no caption looks for its picture."""
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def soft_targets(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The target is no longer the matching pair, but how alike the model finds pictures, and captions, among themselves."""
    images, texts = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    logits = scale * images @ texts.T
    targets = (scale * (images @ images.T + texts @ texts.T) / 2).softmax(dim=1)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def scale_before_normalisation(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The scale stretches the features, and normalising shrinks them back: it cancels."""
    return contrastive_loss(F.normalize(scale * images, dim=-1), F.normalize(texts, dim=-1), torch.ones_like(scale))


def gathered_without_gradient(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, processes: int = 2
) -> torch.Tensor:
    """Several processes in one: each has the loss of its own pairs among everybody's, and others' features come as
    plain numbers, as `all_gather` brings them. The value is right, and the gradient is not."""
    images, texts = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    loss = 0.0
    for own in torch.arange(len(images), device=images.device).chunk(processes):
        all_images, all_texts = images.detach().clone(), texts.detach().clone()
        all_images[own], all_texts[own] = images[own], texts[own]
        over_captions = F.cross_entropy(scale * images[own] @ all_texts.T, own, reduction="sum")
        over_images = F.cross_entropy(scale * texts[own] @ all_images.T, own, reduction="sum")
        loss = loss + (over_captions + over_images) / 2
    return loss / len(images)


def as_they_are(captions: list[str]) -> list[str]:
    return captions


def misaligned(captions: list[str]) -> list[str]:
    """Each picture gets its neighbour's caption, as when one list is shuffled and the other is not."""
    return captions[1:] + captions[:1]


def all_alike(captions: list[str]) -> list[str]:
    """A template whose name was never filled in."""
    return ["a picture of a character"] * len(captions)


def end_of_text(tokens: torch.Tensor) -> torch.Tensor:
    return tokens.argmax(dim=1)


def first_token(tokens: torch.Tensor) -> torch.Tensor:
    """Start-of-text, which under a causal mask has seen nothing but itself."""
    return torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)


@dataclass(frozen=True)
class Mistake:
    """What differs from a right step.

    look_at: what tells it from the others
    loss, captions, pool: functions as above
    clamp: whether the scale is kept at 100 or below
    quick_gelu: whether the trained weights are used with the activation that they were trained with
    """

    look_at: str
    loss: Callable = right
    captions: Callable = as_they_are
    pool: Callable = end_of_text
    clamp: bool = True
    quick_gelu: bool = True


RIGHT = Mistake("")
MISTAKES = {
    "no normalisation": Mistake("the first loss: far above ln N", loss=no_normalisation),
    "scale before normalising": Mistake(
        "the scale: it never moves; the loss has a floor", loss=scale_before_normalisation
    ),
    "captions misaligned": Mistake("ten pictures beside their captions, as the loss gets them", captions=misaligned),
    "captions all alike": Mistake("how many captions of a batch differ", captions=all_alike),
    "first token read": Mistake("the features of two captions: equal, though the captions differ", pool=first_token),
    "gathered without gradient": Mistake(
        "the gradient of one batch, beside a single process's", loss=gathered_without_gradient
    ),
    "soft targets": Mistake("the plain loss of the same features: another number", loss=soft_targets),
    "one-sided loss": Mistake("the loss with pictures and captions exchanged: another number", loss=one_sided),
    "no clamp": Mistake("the highest scale, in a run long enough to pass 100", clamp=False),
    "GELU for QuickGELU": Mistake("the features, beside those of the model that was trained", quick_gelu=False),
}
