"""A data set of real pictures in place of the glyphs: `pretrain --data`, `evaluate --data`. Notebook 13."""

from collections.abc import Sequence
from pathlib import Path

import torch

from .clip import CLIP
from .data.hub import Pictures
from .data.sources import captions_of
from .errors import MinclipError
from .tokenizer import CLIPTokenizer
from .zeroshot import accuracy, encode_pictures, encode_texts, retrieval, zero_shot_classifier


def classify_pictures(
    model: CLIP,
    tokenizer: CLIPTokenizer,
    pictures: Pictures,
    class_names: Sequence[str],
    templates: Sequence[str] = ("{}",),
) -> dict[str, float]:
    """Zero-shot accuracy on the pictures that have one of the classes, and what chance would give."""
    places, labels = pictures.labels(class_names)
    classifier = zero_shot_classifier(model, tokenizer, class_names, templates)
    features, labels = encode_pictures(model, pictures.images[places]), torch.from_numpy(labels)
    return {
        "pictures": len(places),
        "classes": len(class_names),
        "top_1": accuracy(features, classifier, labels),
        "top_5": accuracy(features, classifier, labels, top=5),
        "chance": 1 / len(class_names),
    }


def retrieve_pictures(model: CLIP, tokenizer: CLIPTokenizer, pictures: Pictures) -> dict[str, float]:
    """Recall both ways among the pictures and their captions; of several captions, the first.

    Pictures that share a caption cannot be told apart by it: of three or more, tied, none counts as found first.

    Raises MinclipError when a picture has no words.
    """
    captions = [captions_of(text, pictures.label_names) for text in pictures.texts]
    wordless = sum(not some for some in captions)
    if wordless:
        raise MinclipError(
            f"{wordless} of {len(captions)} pictures have no caption to be found by; give the column that holds "
            "captions (caption_column), or class names."
        )
    first = [some[0] for some in captions]
    image_features = encode_pictures(model, pictures.images)
    recalls = retrieval(image_features, encode_texts(model, tokenizer, first))
    return {"pictures": len(first), "different_captions": len(set(first)), **recalls}


def read_class_names(file: Path) -> list[str]:
    """A text file's lines, one class name each. Raises MinclipError where it cannot be read or is empty."""
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise MinclipError(
            f"The class names cannot be read from {file}: {error}. Write a text file, a name a line."
        ) from error
    if not names:
        raise MinclipError(f"{file} names no classes; write one a line.")
    return names
