"""minclip, open_clip and transformers as three rivals with the same weights, each trained its own way.

A rival's step is: forward, its own library's loss, backward, one step of the same fused AdamW. What
differs is the libraries' models and losses, and what they do with a caption's padding.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch

from minclip import CLIP
from minclip.loss import distributed_contrastive_loss
from minclip.transformers_weights import to_transformers, to_transformers_state


@dataclass
class Rival:
    """loss_of: (images (B, 3, R, R), tokens (B, L)) -> loss; trims: may be given captions shorter than the context"""

    name: str
    model: torch.nn.Module
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    trims: bool


def rivals(model: CLIP, compiled: bool) -> tuple[list[Rival], dict[str, str]]:
    """The three with `model`'s weights, on its device, and {name: reason} for those that are left out.

    Neither open_clip, whose positional embedding is added whole, nor transformers' own contrastive
    training script (padding="max_length") trims captions, so neither is given trimmed ones.
    """
    found, skipped = [], {}
    for name, make in (("minclip", make_minclip), ("open_clip", make_open_clip), ("transformers", make_transformers)):
        if name == "transformers" and model.config.is_resnet:
            skipped[name] = "it has no CLIP with a ResNet"
            continue
        try:
            found.append(make(copy.deepcopy(model), compiled))
        except torch.OutOfMemoryError:
            raise
        except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
            missing = getattr(error, "name", None) == name
            skipped[name] = (
                "it is not installed" if missing else f"it cannot be imported ({str(error).splitlines()[0]})"
            )
    return found, skipped


def make_minclip(model: CLIP, compiled: bool) -> Rival:
    forward = torch.compile(model) if compiled else model
    return Rival("minclip", model, lambda images, tokens: distributed_contrastive_loss(*forward(images, tokens)), True)


def make_open_clip(model: CLIP, compiled: bool) -> Rival:
    from open_clip import ClipLoss
    from open_clip.model import CLIP as OpenCLIP
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    c = model.config
    vision = CLIPVisionCfg(
        layers=c.vision_layers, width=c.vision_width, patch_size=c.vision_patch_size, image_size=c.image_resolution,
        head_width=c.image_feature_width // c.image_heads,
    )  # fmt: skip
    text = CLIPTextCfg(c.context_length, c.vocab_size, width=c.transformer_width, heads=c.transformer_heads,
                       layers=c.transformer_layers)  # fmt: skip
    theirs = OpenCLIP(c.embed_dim, vision, text, quick_gelu=c.quick_gelu)
    theirs.load_state_dict(model.state_dict())
    theirs.to(model.logit_scale.device).train()
    forward, loss = torch.compile(theirs) if compiled else theirs, ClipLoss()
    return Rival("open_clip", theirs, lambda images, tokens: loss(*forward(images, tokens)), False)


def make_transformers(model: CLIP, compiled: bool) -> Rival:
    import transformers  # noqa: F401  so that its absence is an ImportError

    theirs = to_transformers(model).to(model.logit_scale.device).train()
    forward = torch.compile(theirs) if compiled else theirs
    return Rival(
        "transformers", theirs,
        lambda images, tokens: forward(input_ids=tokens, pixel_values=images, return_loss=True).loss, False,
    )  # fmt: skip


def disagreement(rival: Rival, ours: Rival, images: torch.Tensor, tokens: torch.Tensor) -> tuple[float, float]:
    """How far the rival's loss, and the worst of its parameters' gradients, are from ours, relatively."""
    losses = []
    for each in (ours, rival):
        each.model.zero_grad()
        losses.append(each.loss_of(images, tokens))
        losses[-1].backward()
    ghost = copy.deepcopy(ours.model)  # our gradients in the place of weights, so that they can be renamed
    with torch.no_grad():
        for shadow, parameter in zip(ghost.parameters(), ours.model.parameters()):
            shadow.copy_(parameter.grad)
    expected = to_transformers_state(ghost) if rival.name == "transformers" else ghost.state_dict()
    # Some gradients are nothing but rounding (attention does not care about its keys' bias): they are judged
    # by the size of the whole gradient, as all are whose own size is less than a ten-thousandth of it.
    floor = 1e-4 * torch.stack([shadow.norm() for shadow in ghost.parameters()]).norm().item()
    worst = max(relative(p.grad, expected[name], floor) for name, p in rival.model.named_parameters())
    return relative(losses[1], losses[0]), worst


def relative(got: torch.Tensor, expected: torch.Tensor, floor: float = 1e-12) -> float:
    return ((got - expected).norm() / expected.norm().clamp_min(floor)).item()


def autocast(model: torch.nn.Module, precision: str) -> Callable:
    """The model's forward pass in the precision; what comes after, the loss and the backward pass, is outside of it."""

    def forward(images: torch.Tensor, tokens: torch.Tensor):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return model(images, tokens)

    return forward


def accumulate(rival: Rival, images: torch.Tensor, tokens: torch.Tensor, k: int, precision: str) -> torch.Tensor:
    """open_clip's --accum-freq k, as its training loop does it: cache all features, then for each of the
    k parts put fresh ones among the cached and go backward through the loss of the whole batch."""
    from open_clip import ClipLoss

    forward, loss_of, parts = autocast(rival.model, precision), ClipLoss(), list(zip(images.chunk(k), tokens.chunk(k)))
    with torch.no_grad():
        cached = [forward(*part)[:2] for part in parts]
    for place, part in enumerate(parts):
        image, text, scale = forward(*part)
        image_features, text_features = ([*side] for side in zip(*cached))
        image_features[place], text_features[place] = image, text
        with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = loss_of(torch.cat(image_features), torch.cat(text_features), scale)
        loss.backward()
    return loss.detach()
