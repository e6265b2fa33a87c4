"""Classes are named, not learned: zero-shot classification and retrieval (paper, section 3.1).

A classifier is made by writing each class's name into captions and encoding them: its weights are
text features. No picture is looked at, no gradient taken. Notebook 06.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from .data.images import preprocess
from .errors import MinclipError
from .loss import strips

CHUNK = 512  # pictures or captions encoded at a time


@torch.no_grad()
def zero_shot_classifier(
    model, tokenizer, class_names: Sequence[str], templates: str | Sequence[str] = ("{}",)
) -> torch.Tensor:
    """Class names -> (E, K) classifier weights, unit columns.

    Each template holds `{}` where the class name goes; the features of a class's captions are
    averaged on the sphere, which costs nothing at prediction time (section 3.1.4).

    Raises MinclipError for no classes, an empty or repeated name, or a template without `{}`.
    """
    class_names = check_class_names(class_names)
    templates = [templates] if isinstance(templates, str) else list(templates)
    if not templates or any("{}" not in template for template in templates):
        raise MinclipError(f"Each template must hold {{}} where the class name goes; got {templates}.")
    captions = [template.replace("{}", name) for name in class_names for template in templates]
    features = encode_texts(model, tokenizer, captions)  # (K * T, E)
    features = features.view(len(class_names), len(templates), -1).mean(dim=1)
    return F.normalize(features, dim=-1).T


def check_class_names(class_names: Sequence[str]) -> list[str]:
    """The names as a list. Raises MinclipError where they do not define a classification."""
    if isinstance(class_names, str):
        raise MinclipError(f"Class names are a list of strings; got the one string {class_names!r}.")
    class_names = list(class_names)
    if not class_names:
        raise MinclipError("The list of class names is empty; name at least one class.")
    seen: dict[str, int] = {}
    for place, name in enumerate(class_names):
        if not isinstance(name, str) or not name.strip():
            raise MinclipError(f"Class {place} is named {name!r}; a class needs a name in words.")
        read = " ".join(name.lower().split())  # as the tokenizer does: no case, single spaces
        if read in seen:
            raise MinclipError(
                f"Classes {seen[read]} and {place} are both named {name!r} (case and spaces aside); make them differ."
            )
        seen[read] = place
    return class_names


@torch.no_grad()
def encode_texts(model, tokenizer, captions: Sequence[str]) -> torch.Tensor:
    """Captions -> (B, E) float32 unit features on the model's device, in evaluation mode, in chunks.

    Raises MinclipError for an empty list.
    """
    device = model.logit_scale.device
    with evaluating(model):
        return torch.cat(
            [
                model.encode_text(tokenizer(list(captions[i : i + CHUNK])).to(device)).float()
                for i in range(0, max(1, len(captions)), CHUNK)  # of none, the tokenizer complains
            ]
        )


@torch.no_grad()
def encode_images(model, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, R, R) from `preprocess` -> (B, E) float32 unit features on the model's device."""
    device = model.logit_scale.device
    with evaluating(model):
        return torch.cat([model.encode_image(chunk.to(device)).float() for chunk in images.split(CHUNK)])


def encode_pictures(model, images: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 pictures, an array (N, H, W, 3) or a tensor (N, 3, H, W) -> (N, E) float32 unit features.

    As `encode_images(model, preprocess(images, model.config))`, but only a chunk at a time becomes floats.
    """
    chunks = (images[i : i + CHUNK] for i in range(0, max(1, len(images)), CHUNK))
    return torch.cat([encode_images(model, preprocess(chunk, model.config)) for chunk in chunks])


class evaluating:
    """`with evaluating(model):` BatchNorm and dropout as in use, then back to the mode before."""

    def __init__(self, model):
        self.model = model

    def __enter__(self):
        self.was_training = self.model.training
        self.model.eval()

    def __exit__(self, *_):
        self.model.train(self.was_training)


def check_finite(similarities: torch.Tensor) -> torch.Tensor:
    """The similarities as they are. Raises MinclipError for NaN, which compares as nearest of all, and infinity."""
    if not similarities.isfinite().all():
        raise MinclipError("The features hold NaN or infinity; look at the model that made them.")
    return similarities


def accuracy(image_features: torch.Tensor, classifier: torch.Tensor, labels: torch.Tensor, top: int = 1) -> float:
    """Share of pictures (N, E) whose label (N,) is among the `top` classes of a classifier (E, K).

    Raises MinclipError for features that are not finite.
    """
    best = check_finite(image_features @ classifier).topk(min(top, classifier.shape[1]), dim=1).indices
    return (best == labels.to(best.device)[:, None]).any(dim=1).float().mean().item()


def retrieval(
    image_features: torch.Tensor, text_features: torch.Tensor, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Recall at k both ways, for N pairs: is a picture's caption among the k nearest of all N?

    -> {"image_to_text_R@1": ..., "text_to_image_R@10": ...}; ties count half, as the expected place.

    Raises MinclipError unless both are (N, E), finite, with N > 0.
    """
    if image_features.shape != text_features.shape or image_features.ndim != 2 or len(image_features) == 0:
        raise MinclipError(
            f"Image features have shape {tuple(image_features.shape)}, text features {tuple(text_features.shape)}; "
            "retrieval needs pairs, (N, E) of each."
        )
    recalls = {}
    for direction, queries, answers in (
        ("image_to_text", image_features, text_features),
        ("text_to_image", text_features, image_features),
    ):
        ahead = []
        for strip in strips(len(queries), 2048):  # all N x N similarities of 32,768 pairs would be 4.3 GB
            rows = check_finite(queries[strip] @ answers.T)
            matching = rows.diagonal(strip.start)[:, None]
            ahead.append((rows > matching).sum(1) + ((rows == matching).sum(1) - 1) / 2)
        ahead = torch.cat(ahead)
        recalls |= {f"{direction}_R@{k}": (ahead < k).float().mean().item() for k in ks}
    return recalls
