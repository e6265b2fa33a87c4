"""Ready recipes, `--preset NAME` on the command line: how big a model, how long, on how much paint."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from .clip import CLIP, CLIPConfig
from .data.painting import Paint
from .errors import MinclipError
from .tokenizer import CLIPTokenizer
from .train import TrainConfig


@dataclass(frozen=True)
class Preset:
    """A recipe. `model.vocab_size` is an upper limit: a tokenizer may run out of merges to learn."""

    model: CLIPConfig
    train: TrainConfig
    paint: Paint = Paint()


PRESETS = {
    "cpu": Preset(  # the demo: two cores, two minutes
        model=CLIPConfig(
            embed_dim=128, image_resolution=32, vision_layers=(1, 1, 1, 1), vision_width=24, vision_patch_size=None,
            vision_heads=4, context_length=48, vocab_size=4096, transformer_width=128, transformer_heads=4,
            transformer_layers=1,
        ),
        train=TrainConfig(images_seen=148_000, batch_size=128, lr=1e-3),
    ),
}  # fmt: skip


def find_preset(name: str) -> Preset:
    """Raises MinclipError for a name that is not in PRESETS."""
    if name not in PRESETS:
        raise MinclipError(f"There is no preset {name!r}; there are {', '.join(PRESETS)}.")
    return PRESETS[name]


def new_model(config: CLIPConfig, captions: Iterable[str], seed: int) -> tuple[CLIP, CLIPTokenizer]:
    """A tokenizer that has learned its merges from the captions, and an untrained model of its vocabulary."""
    tokenizer = CLIPTokenizer.train(captions, config.vocab_size, config.context_length)
    torch.manual_seed(seed)
    return CLIP(replace(config, vocab_size=tokenizer.vocab_size)), tokenizer
