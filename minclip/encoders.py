"""The two encoders of CLIP (paper, section 2.4): pictures by a Vision Transformer or a ResNet, text
by a Transformer.

Parameter names and shapes are those of OpenAI's checkpoints, so its weights load with no renaming.
Each encoder returns one vector a picture or caption, in the space both share. Notebooks 02 and 03
build them.
"""

from collections import OrderedDict

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange, repeat


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation of GELU that OpenAI's weights were trained with."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(1.702 * x) / 1.702  # the same, in fewer passes over memory: twice as fast


class Attention(nn.Module):
    """Multi-head self-attention; with `causal`, no token sees a later one."""

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        # Queries, keys, values stacked; `Transformer` draws the numbers, and a block alone starts from none.
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, L, W) -> (B, L, W)
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (rearrange(t, "b l (h d) -> b h l d", h=self.heads) for t in qkv.chunk(3, dim=-1))
        x = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(rearrange(x, "b h l d -> b l (h d)"))

    def at(self, x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """(B, L, W), (B,) -> (B, W): what `forward` gives at one place of each row, where alone it asks."""
        width = x.shape[-1]
        q = F.linear(pick(x, place), self.in_proj_weight[:width], self.in_proj_bias[:width])
        kv = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:])
        q = rearrange(q, "b (h d) -> b h 1 d", h=self.heads)
        k, v = (rearrange(t, "b l (h d) -> b h l d", h=self.heads) for t in kv.chunk(2, dim=-1))
        seen = torch.arange(x.shape[1], device=x.device) <= rearrange(place, "b -> b 1 1 1") if self.causal else None
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out_proj(rearrange(x, "b h 1 d -> b (h d)"))


class ResidualAttentionBlock(nn.Module):
    """Tokens exchange information (attention), then each thinks by itself (MLP); both add to x."""

    def __init__(self, width: int, heads: int, causal: bool, quick_gelu: bool):
        super().__init__()
        self.attn = Attention(width, heads, causal)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width),
                gelu=QuickGELU() if quick_gelu else nn.GELU(),
                c_proj=nn.Linear(4 * width, width),
            )
        )
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))

    def at(self, x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """(B, L, W), (B,) -> (B, W): what `forward` gives at one place of each row, and no more work than that."""
        x = pick(x, place) + self.attn.at(self.ln_1(x), place)
        return x + self.mlp(self.ln_2(x))


def pick(x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """(B, L, W), (B,) -> (B, W): the token that stands at the given place of each row."""
    return x[torch.arange(len(x), device=x.device), place]


class Transformer(nn.Module):
    """A stack of blocks, (B, L, W) -> (B, L, W)."""

    def __init__(self, width: int, layers: int, heads: int, causal: bool, quick_gelu: bool):
        super().__init__()
        blocks = [ResidualAttentionBlock(width, heads, causal, quick_gelu) for _ in range(layers)]
        self.resblocks = nn.Sequential(*blocks)
        # OpenAI's initialisation: the sum over the residual stream keeps its scale at any depth.
        residual_std = width**-0.5 * (2 * layers) ** -0.5
        for block in blocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=residual_std)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=residual_std)
            nn.init.zeros_(block.attn.out_proj.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.resblocks(x)

    def at(self, x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """(B, L, W), (B,) -> (B, W): what `forward` gives at one place of each row. CLIP reads nothing else,
        so the last block need not compute the rest: for a shallow encoder, a large part of the work."""
        *blocks, last = self.resblocks
        for block in blocks:
            x = block(x)
        return last.at(x, place)


class VisionTransformer(nn.Module):
    """Patches as words (Dosovitskiy et al. 2020), with CLIP's extra LayerNorm before the blocks."""

    def __init__(
        self, image_resolution: int, patch_size: int, width: int, layers: int, heads: int, embed_dim: int,
        quick_gelu: bool,
    ):  # fmt: skip
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size, bias=False)
        scale = width**-0.5
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        tokens = (image_resolution // patch_size) ** 2 + 1
        self.positional_embedding = nn.Parameter(scale * torch.randn(tokens, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, heads, causal=False, quick_gelu=quick_gelu)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, embed_dim))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, width): before the projection, as the paper's linear probes read it."""
        x = rearrange(self.conv1(images), "b w gh gw -> b (gh gw) w")  # one token a patch
        class_token = repeat(self.class_embedding.to(x.dtype), "w -> b 1 w", b=len(x))
        x = torch.cat([class_token, x], dim=1) + self.positional_embedding
        first = x.new_zeros(len(x), dtype=torch.long)
        return self.ln_post(self.transformer.at(self.ln_pre(x), first))  # what the class token has gathered

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # (B, 3, H, W) -> (B, E)
        return self.features(images) @ self.proj


class Bottleneck(nn.Module):
    """A ResNet block, 1x1 - 3x3 - 1x1; every stride is an average pool, so nothing is skipped over."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int):
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.bn3.weight)  # each block starts as the identity
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                OrderedDict([
                    ("-1", nn.AvgPool2d(stride)),
                    ("0", nn.Conv2d(inputs, outputs, 1, bias=False)),
                    ("1", nn.BatchNorm2d(outputs)),
                ])
            )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(self.avgpool(out)))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class AttentionPool2d(nn.Module):
    """One step of attention in place of the average: the mean of all places asks, every place answers."""

    def __init__(self, side: int, width: int, heads: int, embed_dim: int):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(side**2 + 1, width) * width**-0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, embed_dim)
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            nn.init.normal_(projection.weight, std=width**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, W, H, W') -> (B, E)
        x = rearrange(x, "b w gh gw -> b (gh gw) w")
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding
        q, k, v = self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x)
        q, k, v = (rearrange(t, "b l (h d) -> b h l d", h=self.heads) for t in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v)
        return self.c_proj(rearrange(x, "b h 1 d -> b (h d)"))


class ModifiedResNet(nn.Module):
    """ResNet-D with a three-convolution stem, blurred strides and attention pooling."""

    def __init__(self, layers: tuple[int, ...], width: int, heads: int, image_resolution: int, embed_dim: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        inputs = width
        for stage, blocks in enumerate(layers, start=1):
            planes, stride = width * 2 ** (stage - 1), 1 if stage == 1 else 2
            first = Bottleneck(inputs, planes, stride)
            inputs = planes * Bottleneck.expansion
            rest = [Bottleneck(inputs, planes, 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(first, *rest))
        self.attnpool = AttentionPool2d(image_resolution // 32, inputs, heads, embed_dim)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, E): what the paper's linear probes read of a ResNet, its pooled output."""
        return self(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # (B, 3, H, W) -> (B, E)
        images = images.contiguous(memory_format=torch.channels_last)  # in memory only: a fifth faster
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.avg_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.attnpool(x)


class TextTransformer(nn.Module):
    """A caption read left to right; its vector is what stands at end-of-text, projected."""

    def __init__(
        self, vocab_size: int, context_length: int, width: int, heads: int, layers: int, embed_dim: int,
        quick_gelu: bool,
    ):  # fmt: skip
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(context_length, width))
        self.transformer = Transformer(width, layers, heads, causal=True, quick_gelu=quick_gelu)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, L) ids -> (B, E). End-of-text is the largest id; what stands behind it changes nothing.

        So captions may be cut to the longest of a batch: the mask is causal, and position L is never
        looked at by what comes before it.
        """
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        pooled = self.transformer.at(x, tokens.argmax(dim=1))  # (B, W)
        return self.ln_final(pooled) @ self.text_projection
