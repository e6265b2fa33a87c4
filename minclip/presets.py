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
            embed_dim=256, image_resolution=32, vision_layers=(1, 2, 1, 1), vision_width=16, vision_patch_size=None,
            vision_heads=4, context_length=48, vocab_size=4096, transformer_width=128, transformer_heads=4,
            transformer_layers=1,
        ),
        train=TrainConfig(images_seen=150_000, batch_size=192, lr=3e-3),
    ),
    "cpu-vit": Preset(  # a Vision Transformer, which wants more pictures
        model=CLIPConfig(
            embed_dim=256, image_resolution=32, vision_layers=4, vision_width=128, vision_patch_size=8, vision_heads=4,
            context_length=48, vocab_size=4096, transformer_width=128, transformer_heads=4, transformer_layers=1,
        ),
        train=TrainConfig(images_seen=512_000, batch_size=256, lr=2e-3, checkpoint_every=500, log_every=50),
    ),
    "laptop-gpu": Preset(  # meant for a GPU of 8 GB
        model=CLIPConfig(
            embed_dim=192, image_resolution=32, vision_layers=6, vision_width=192, vision_patch_size=4,
            context_length=48, vocab_size=4096, transformer_width=192, transformer_heads=3, transformer_layers=3,
        ),
        train=TrainConfig(
            images_seen=4_096_000, batch_size=4096, chunk=1024, lr=1e-3, precision="bfloat16", checkpoint_every=100
        ),
        paint=Paint(coloured=0.8, colours_named=0.8, described=0.8),
    ),
    "gpu": Preset(  # meant for one large GPU: the paper's 32,768 candidates a step
        model=CLIPConfig(
            embed_dim=256, image_resolution=64, vision_layers=6, vision_width=256, vision_patch_size=8,
            context_length=48, vocab_size=4096, transformer_width=256, transformer_heads=4, transformer_layers=4,
        ),
        train=TrainConfig(
            images_seen=800 * 32_768, batch_size=32_768, chunk=4096, lr=1e-3, precision="bfloat16", compile=True,
            checkpoint_every=100,
        ),
        # Captions that say more than the name: there are some 6,000 names, and a batch holds each five times.
        paint=Paint(coloured=0.9, colours_named=0.95, described=0.95),
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
