"""CLIP itself: two encoders, one shared space, and a learned temperature (paper, Figure 3).

`CLIPConfig` takes the arguments of OpenAI's constructor; `CLIP` has its parameter names.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from .encoders import ModifiedResNet, TextTransformer, VisionTransformer
from .errors import MinclipError

MAX_LOGIT_SCALE = 100.0  # "clipped to prevent scaling the logits by more than 100" (section 2.5)


@dataclass(frozen=True)
class CLIPConfig:
    """The size of a CLIP. `vision_layers` is a number for a Vision Transformer, four for a ResNet."""

    embed_dim: int = 512
    image_resolution: int = 224
    vision_layers: int | tuple[int, int, int, int] = 12
    vision_width: int = 768
    vision_patch_size: int | None = 32
    context_length: int = 77
    vocab_size: int = 49408
    transformer_width: int = 512
    transformer_heads: int = 8
    transformer_layers: int = 12
    quick_gelu: bool = False
    vision_heads: int | None = None  # width // 64 if not given

    def __post_init__(self):
        if isinstance(self.vision_layers, list):  # JSON has no tuples
            object.__setattr__(self, "vision_layers", tuple(self.vision_layers))
        for name in ("embed_dim", "image_resolution", "vision_width", "context_length", "vocab_size",
                     "transformer_width", "transformer_heads", "transformer_layers"):  # fmt: skip
            if getattr(self, name) < 1:
                raise MinclipError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if min(self.vision_layers if self.is_resnet else (self.vision_layers,), default=1) < 1:
            raise MinclipError(f"vision_layers is {self.vision_layers}; each must be at least 1.")
        if self.is_resnet:
            if len(self.vision_layers) != 4:
                raise MinclipError(f"vision_layers is {self.vision_layers}; a ResNet has four stages.")
            if self.image_resolution % 32:
                raise MinclipError(
                    f"image_resolution is {self.image_resolution}; a ResNet halves it five times, so give a multiple of 32."
                )
        elif (self.vision_patch_size or 0) < 1 or self.image_resolution % self.vision_patch_size:
            raise MinclipError(
                f"vision_patch_size {self.vision_patch_size} does not divide image_resolution {self.image_resolution}."
            )
        for what, width, heads in (
            ("the image encoder", self.image_feature_width, self.image_heads),
            ("the text encoder", self.transformer_width, self.transformer_heads),
        ):
            if heads < 1 or width % heads:
                raise MinclipError(f"{heads} attention heads do not divide {what}'s width {width}.")

    @property
    def is_resnet(self) -> bool:
        return isinstance(self.vision_layers, tuple)

    @property
    def image_feature_width(self) -> int:
        """Width of the tokens that the image encoder attends over."""
        return self.vision_width * (32 if self.is_resnet else 1)

    @property
    def image_heads(self) -> int:
        return self.vision_heads or max(1, self.image_feature_width // 64)


class CLIP(TextTransformer):
    """OpenAI keeps the text encoder's parameters at the top level and the image encoder under `visual`;
    so does this class: a text transformer that has been given eyes and a temperature."""

    def __init__(self, config: CLIPConfig):
        super().__init__(
            config.vocab_size, config.context_length, config.transformer_width, config.transformer_heads,
            config.transformer_layers, config.embed_dim, config.quick_gelu,
        )  # fmt: skip
        self.config = config
        if config.is_resnet:
            self.visual = ModifiedResNet(
                config.vision_layers, config.vision_width, config.image_heads, config.image_resolution, config.embed_dim
            )
        else:
            self.visual = VisionTransformer(
                config.image_resolution, config.vision_patch_size, config.vision_width, config.vision_layers,
                config.image_heads, config.embed_dim, config.quick_gelu,
            )  # fmt: skip
        # Learned as a logarithm, so that it stays positive; the temperature starts at 0.07.
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, images: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        """(B, 3, R, R) from `preprocess` -> (B, E), on the unit sphere if `normalize`."""
        side = self.config.image_resolution
        if not images.is_floating_point():
            raise MinclipError(
                f"Pictures are {images.dtype}; minclip.preprocess(images, model.config) makes them floats."
            )
        if images.ndim != 4 or images.shape[1:] != (3, side, side):
            raise MinclipError(
                f"Pictures have shape {tuple(images.shape)}; this model reads (B, 3, {side}, {side}). "
                "minclip.preprocess(images, model.config) makes them fit."
            )
        features = self.visual(images)
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(self, tokens: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        """(B, L) from the tokenizer -> (B, E), on the unit sphere if `normalize`."""
        if tokens.is_floating_point():
            raise MinclipError(f"Tokens are {tokens.dtype}; expected the tokenizer's int64.")
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= self.config.context_length:
            raise MinclipError(
                f"Tokens have shape {tuple(tokens.shape)}; this model reads (B, L) with L from 1 to "
                f"{self.config.context_length}. Give the tokenizer that context_length."
            )
        features = self.read(tokens)
        return F.normalize(features, dim=-1) if normalize else features

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """-> image_features (B, E) and text_features (B, E), unit rows, and the logit scale, exponentiated."""
        return self.encode_image(images), self.encode_text(tokens), self.logit_scale.exp()

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep the scale at 100 or below; called after each step of the optimiser."""
        self.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
