"""minclip: build CLIP from nothing, train it, and measure every claim made for it.

Read the package in this order: data/glyphs, data/images, data/painting, data/tasks, data/shifts, data/sources,
data/decoding, data/hub, tokenizer, encoders, clip, loss, checkpoint, gradient_cache, distributed, train, zeroshot,
baselines, probe, supervised, robustness, openai_weights, transformers_weights, pretrained.
Imports point upwards only.
"""

from . import loss, train
from .clip import CLIP, CLIPConfig
from .data.images import preprocess
from .errors import MinclipError
from .loss import contrastive_loss
from .pretrained import load, save
from .probe import linear_probe
from .tokenizer import CLIPTokenizer
from .train import TrainConfig, fit
from .zeroshot import retrieval, zero_shot_classifier

__version__ = "0.1.0"
__all__ = [
    "CLIP", "CLIPConfig", "CLIPTokenizer", "MinclipError", "TrainConfig", "contrastive_loss", "fit", "linear_probe",
    "load", "loss", "preprocess", "retrieval", "save", "train", "zero_shot_classifier",
]  # fmt: skip
