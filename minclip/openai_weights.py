"""Weights under OpenAI's names, which are this package's own: state dicts and TorchScript archives.

OpenAI's and open_clip's checkpoints name their tensors as `CLIP` does (302 for ViT-B/32, 489 for
RN50), so nothing is renamed here. What they do not hold is read off the shapes, as OpenAI's
`build_model` does: everything but the number of heads, which is width / 64, and the kind of GELU,
which nothing in a state dict betrays.
"""

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from .clip import CLIP, CLIPConfig
from .errors import MinclipError

ARCHIVE_EXTRAS = {"input_resolution", "context_length", "vocab_size"}  # numbers beside OpenAI's weights


def from_openai(
    state_dict: Mapping[str, torch.Tensor],
    quick_gelu: bool = True,
    vision_heads: int | None = None,
    transformer_heads: int | None = None,
) -> CLIP:
    """A state dict with OpenAI's or open_clip's names -> CLIP in float32, its sizes read from the shapes.

    quick_gelu: True for OpenAI's weights; False for most that open_clip trained (those whose open_clip
        name does not end in `-quickgelu`)
    vision_heads, transformer_heads: where they are not width // 64, as in open_clip's ViT-H/14

    Raises MinclipError when the tensors are not those of a CLIP.
    """
    state = {
        name: tensor
        for name, tensor in state_dict.items()
        if name not in ARCHIVE_EXTRAS and not name.endswith("attn_mask")
    }
    return model_from_state(config_from_shapes(state, quick_gelu, vision_heads, transformer_heads), state)


def config_from_shapes(
    state: Mapping[str, torch.Tensor],
    quick_gelu: bool,
    vision_heads: int | None = None,
    transformer_heads: int | None = None,
) -> CLIPConfig:
    """The one configuration whose model has tensors of these shapes. Raises MinclipError if none has."""

    def size(name: str, dimension: int) -> int:
        tensor = state.get(name)
        if not isinstance(tensor, torch.Tensor) or tensor.ndim <= dimension:
            found = ", ".join(sorted(map(str, state))[:3]) or "nothing"
            raise MinclipError(
                f"These are not CLIP's weights under OpenAI's names: {name!r} is missing or has too few dimensions "
                f"(found: {found}, ...). Weights of transformers go through from_transformers."
            )
        return tensor.shape[dimension]

    def blocks(prefix: str) -> int:  # how many different numbers follow the prefix
        return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})

    if "visual.layer1.0.conv1.weight" in state:
        side = round((size("visual.attnpool.positional_embedding", 0) - 1) ** 0.5)
        vision = {
            "image_resolution": side * 32,
            "vision_layers": tuple(blocks(f"visual.layer{stage}.") for stage in (1, 2, 3, 4)),
            "vision_width": size("visual.layer1.0.conv1.weight", 0),
            "vision_patch_size": None,
        }
    else:
        side = round((size("visual.positional_embedding", 0) - 1) ** 0.5)
        patch_size = size("visual.conv1.weight", 3)
        vision = {
            "image_resolution": side * patch_size,
            "vision_layers": blocks("visual.transformer.resblocks."),
            "vision_width": size("visual.conv1.weight", 0),
            "vision_patch_size": patch_size,
        }
    width = size("ln_final.weight", 0)
    return CLIPConfig(
        embed_dim=size("text_projection", 1),
        context_length=size("positional_embedding", 0),
        vocab_size=size("token_embedding.weight", 0),
        transformer_width=width,
        transformer_heads=transformer_heads or max(1, width // 64),
        transformer_layers=blocks("transformer.resblocks."),
        quick_gelu=quick_gelu,
        vision_heads=vision_heads,
        **vision,
    )


def model_from_state(config: CLIPConfig, state: Mapping[str, torch.Tensor]) -> CLIP:
    """A float32 model in evaluation mode with its own copy of these tensors, none missing and none left over.

    Raises MinclipError otherwise. The random generator is left as it was: nothing is initialised first.
    """
    copies = {
        name: tensor.detach().to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in state.items()
    }
    try:
        with torch.device("meta"):
            model = CLIP(config)
        model.load_state_dict(copies, assign=True)
    except RuntimeError as error:  # torch lists every tensor that does not fit; the first few say enough
        raise MinclipError(f"The weights do not fit the model: {' '.join(str(error).split())[:400]}") from error
    return model.eval()


class _Inert:
    """Stands for every class an archive names: it keeps attributes and does nothing."""

    def __init__(self, *_):
        pass


def is_torchscript(path: Path) -> bool:
    """Whether this is a TorchScript archive, the form in which OpenAI publishes its weights."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, torch.Tensor]:
    """The parameters and buffers in a TorchScript archive, by name, without running the code in it.

    torch's `weights_only` reader takes the tensors, but refuses an archive as such. So it is shown the
    tensors alone, with an inert class in place of each one that the archive would compile. Raises
    MinclipError when the archive refers to anything else.
    """
    tensors = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tensors, "w") as copy:
        for name in archive.namelist():
            inside = name.partition("/")[2]
            if inside in ("data.pkl", "version", "byteorder") or inside.startswith("data/"):
                copy.writestr(name, archive.read(name))
    tensors.seek(0)
    names = torch.serialization.get_unsafe_globals_in_checkpoint(tensors)
    foreign = [name for name in names if not name.startswith(("__torch__.", "torch.jit._pickle."))]
    if foreign:
        raise MinclipError(
            f"{path} refers to {foreign[0]}, which no TorchScript archive of CLIP needs; opening it could run "
            "somebody's code, so minclip does not. On a machine you can spare, save "
            "torch.jit.load(file).state_dict() as safetensors, and load that."
        )
    tensors.seek(0)
    with torch.serialization.safe_globals([(_Inert, name) for name in names]):
        root = torch.load(tensors, weights_only=True, map_location="cpu")
    return dict(_named_tensors(root))


def _named_tensors(module: _Inert, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif isinstance(value, _Inert):
            yield from _named_tensors(value, f"{prefix}{name}.")
