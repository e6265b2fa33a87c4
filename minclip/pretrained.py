"""Models on disk and on the hub: `save`, `load`, and other people's weights.

A saved Vision Transformer is a folder that `transformers` opens as its own; a ResNet, which
transformers does not have, keeps OpenAI's names. `load` reads either to the same bits, and what
OpenAI, open_clip and transformers publish besides. Files are safetensors, or torch's read with
`weights_only=True`: nothing here unpickles. Notebook 13.
"""

import json
import os
import re
import warnings
from dataclasses import asdict
from pathlib import Path

import huggingface_hub
import numpy as np
import safetensors.torch
import torch

from .checkpoint import CHECKPOINT, write_atomically
from .clip import CLIP, CLIPConfig
from .data.images import MEAN, STD
from .errors import MinclipError
from .openai_weights import from_openai, is_torchscript, model_from_state, read_torchscript
from .tokenizer import END, START, CLIPTokenizer
from .transformers_weights import (
    from_transformers,
    from_transformers_state,
    to_transformers,
    to_transformers_config,
    to_transformers_state,
)

__all__ = ["BUNDLED", "from_openai", "from_transformers", "load", "read_weights", "save", "to_transformers"]

BUNDLED = Path(__file__).parent / "weights"
# Where a folder keeps its weights, the first of these it has: published by open_clip (beside whose
# files other libraries keep theirs), saved here or by transformers, or left by `fit`.
WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin", CHECKPOINT,
)  # fmt: skip
OPENAI_MERGES = "bpe_simple_vocab_16e6.txt.gz"


def save(model: CLIP, tokenizer: CLIPTokenizer, folder: str | Path) -> None:
    """Write a model and its tokenizer to a folder, each file atomically.

    model.safetensors, config.json and tokenizer.json are what `load` reads. For a Vision Transformer
    they are in transformers' form, with the two files more that make the folder one of its own:
    `CLIPModel.from_pretrained(folder)` and `pipeline("zero-shot-image-classification", folder)` open it.

    Raises MinclipError when the tokenizer has more entries than the model, or the folder cannot be written.
    """
    folder, config = Path(folder), model.config
    check_tokenizer(tokenizer, config)
    if config.is_resnet:
        weights, documents = model.state_dict(), {"config.json": asdict(config)}
    else:
        start, end = tokenizer.backend.token_to_id(START), tokenizer.end_of_text
        weights = to_transformers_state(model)
        documents = {
            "config.json": to_transformers_config(config, start, end),
            "tokenizer_config.json": {
                "tokenizer_class": "CLIPTokenizer", "model_max_length": config.context_length,
                "bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END,
            },
            "preprocessor_config.json": {
                "image_processor_type": "CLIPImageProcessor", "resample": 3,  # bicubic
                "do_convert_rgb": True, "do_resize": True, "size": {"shortest_edge": config.image_resolution},
                "do_center_crop": True, "crop_size": dict.fromkeys(("height", "width"), config.image_resolution),
                "do_rescale": True, "rescale_factor": 1 / 255,
                "do_normalize": True, "image_mean": MEAN, "image_std": STD,
            },
        }  # fmt: skip
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    files = {name: json.dumps(document, indent=2).encode() for name, document in documents.items()}
    files["tokenizer.json"] = tokenizer.to_json().encode()
    files["model.safetensors"] = safetensors.torch.save(weights, metadata={"format": "pt"})
    for name, content in files.items():
        write_atomically(folder / name, lambda file, content=content: file.write(content))


def load(
    name: str | Path, device: str | torch.device = "cpu", quick_gelu: bool | None = None
) -> tuple[CLIP, CLIPTokenizer]:
    """A model by name -> the model, in float32 and evaluation mode, and its tokenizer.

    name: a bundled model; a folder that `save`, `fit` or transformers wrote; a file of weights under
        OpenAI's or transformers' names, safetensors or torch, with `tokenizer.json` or OpenAI's
        `bpe_simple_vocab_16e6.txt.gz` beside it; or a model of the hub, as `owner/name`, which is
        downloaded once
    quick_gelu: for weights under OpenAI's names that come without a configuration. They are taken for
        OpenAI's, which use it, with a warning unless they lie in OpenAI's own kind of archive; most that
        open_clip trained want False.

    Raises MinclipError when there is no such model, when it cannot be downloaded, or when its files are
    damaged, do not fit together, or would run somebody's code.
    """
    path = locate(name)
    try:
        model, tokenizer = read_model(path, quick_gelu)
    except MinclipError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:  # JSON of the wrong shape
        raise MinclipError(
            f"The configuration beside {path} does not describe its weights ({error!r:.200}). Save or copy both again."
        ) from error
    check_tokenizer(tokenizer, model.config)
    return model.to(device), tokenizer


def locate(name: str | Path) -> Path:
    """The file of weights that `name` means, downloaded if it is the hub's."""
    path = BUNDLED / name if os.path.isdir(BUNDLED / name) else Path(name)
    if not os.path.exists(path):  # which, unlike path.exists(), only says no to a name that is too long
        owner = re.fullmatch(r"([\w-][\w.-]*)/[\w.-]+", str(name))
        if owner is None or Path(owner[1]).is_dir():  # a slip in the name of a folder is not looked up on the hub
            bundled = sorted(folder.name for folder in BUNDLED.glob("*/")) if BUNDLED.is_dir() else []
            raise MinclipError(
                f"There is no model {str(name)!r}: neither a bundled one ({', '.join(bundled) or 'none are'}), "
                "nor a file or folder here, nor a name of the hub such as 'openai/clip-vit-base-patch32'."
            )
        path = download(str(name))
    if path.is_file():
        return path
    for file in WEIGHTS:
        if (path / file).is_file():
            return path / file
    raise MinclipError(f"The folder {path} holds no weights: none of {', '.join(WEIGHTS)}.")


def download(name: str) -> Path:
    """A model of the hub -> the folder its files lie in, fetched unless they were before."""
    try:
        for weights in ("open_clip_model.safetensors", "model.safetensors", "pytorch_model.bin"):
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=["*.json", weights]))
            if (folder / weights).exists():
                return folder
        reason = "it has no weights there, or only a part of it was downloaded before"
    except (OSError, ValueError) as error:  # all that huggingface_hub raises is one of the two
        reason = str(error).split("\n")[0]
    raise MinclipError(
        f"{name!r} is nothing on this machine, and could not be had from the hub ({reason}). Where there is a network, "
        f"run `hf download {name} --include '*.json' --include model.safetensors --include pytorch_model.bin "
        "--local-dir FOLDER`, then copy FOLDER here and load that."
    )


def read_model(path: Path, quick_gelu: bool | None) -> tuple[CLIP, CLIPTokenizer]:
    """A file of weights, and what lies beside it -> model and tokenizer."""
    contents = read_file(path)
    if "model_config" in contents:  # a run's checkpoint
        model = model_from_state(CLIPConfig(**contents["model_config"]), contents["model"])
        return model, CLIPTokenizer.from_json(contents["tokenizer"], model.config.context_length)

    state, config = weights_of(contents, path), read_json(path.with_name("config.json"))
    if any(name.startswith("text_model.") for name in state):
        model = from_transformers_state(state, config)
    elif "embed_dim" in config:
        model = model_from_state(CLIPConfig(**config), state)
    else:
        open_clip = read_json(path.with_name("open_clip_config.json")).get("model_cfg", {})
        if config and not open_clip:
            raise MinclipError(
                f"{path.with_name('config.json')} does not describe the weights beside it; mend or remove it."
            )
        if quick_gelu is None and open_clip:
            quick_gelu = open_clip.get("quick_gelu", False)
        if quick_gelu is None and not is_torchscript(path):
            warnings.warn(
                f"Nothing in {path} says which GELU its weights were trained with, nor in how many heads they attend; "
                "taking them for OpenAI's, with QuickGELU and 64 numbers a head. Most that open_clip trained want "
                "load(..., quick_gelu=False); minclip's own want the config.json that was saved beside them.",
                stacklevel=3,
            )
        width, head_width = (open_clip.get("vision_cfg", {}).get(key) for key in ("width", "head_width"))
        wider = 1 if "visual.proj" in state else 32  # a ResNet attends over its last stage
        vision_heads = wider * width // head_width if width and head_width else None
        text_heads = open_clip.get("text_cfg", {}).get("heads")
        model = from_openai(state, quick_gelu is not False, vision_heads, text_heads)
    check_preprocessing(path.parent)
    return model, read_tokenizer(path, model.config.context_length)


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors in a file, by name: safetensors, torch, or OpenAI's TorchScript archive.

    What `from_openai` takes, where a model is wanted without its tokenizer. Raises MinclipError when the
    file is missing or damaged, holds something else, or would run somebody's code.
    """
    return weights_of(read_file(Path(path)), path)


def read_file(path: Path) -> dict:
    """The dictionary in a file of weights: tensors by name, or a training checkpoint."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if is_torchscript(path):
            return read_torchscript(path)
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except MinclipError:
        raise
    except FileNotFoundError:
        raise MinclipError(f"There is no file {path}.") from None
    except Exception as error:  # a damaged file makes these readers raise nearly anything
        reason = str(error).split("\n")[0][:200]
        raise MinclipError(
            f"{path} cannot be read ({reason}). It is damaged, is no file of weights, or holds pickled objects, which "
            "could run somebody's code. Copy or save it again, as safetensors or with torch.save(model.state_dict())."
        ) from error
    if not isinstance(contents, dict):
        raise MinclipError(f"{path} holds a {type(contents).__name__}, not a dictionary of tensors.")
    return contents


def weights_of(contents: dict, path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict itself, out of what open_clip's training or data-parallel wrappers put around it."""
    contents = contents.get("state_dict", contents)
    if not contents or not all(isinstance(tensor, torch.Tensor) for tensor in contents.values()):
        raise MinclipError(f"{path} holds other things than tensors by name, or nothing at all.")
    return {name.removeprefix("module."): tensor for name, tensor in contents.items()}


def read_json(path: Path) -> dict:
    """The object in a JSON file; an empty one where there is no file."""
    try:
        contents = json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise MinclipError(f"{path} cannot be read ({error}). Save or copy it again.") from error
    if not isinstance(contents, dict):
        raise MinclipError(f"{path} holds a {type(contents).__name__} where an object is expected.")
    return contents


def read_tokenizer(weights: Path, context_length: int) -> CLIPTokenizer:
    """The tokenizer that lies beside a file of weights. Raises MinclipError where there is none."""
    saved, merges = weights.with_name("tokenizer.json"), weights.with_name(OPENAI_MERGES)
    try:
        if saved.exists():
            return CLIPTokenizer.from_json(saved.read_text(encoding="utf-8"), context_length)
    except (MinclipError, OSError, UnicodeError) as error:
        raise MinclipError(f"{saved}: {error}") from error
    if merges.exists():
        return CLIPTokenizer.from_openai_merges(merges, context_length)
    raise MinclipError(
        f"{weights} has no tokenizer beside it: copy tokenizer.json there, or {OPENAI_MERGES}, which openai/CLIP "
        "and open_clip carry. For the weights alone there are read_weights and from_openai."
    )


def check_tokenizer(tokenizer: CLIPTokenizer, config: CLIPConfig) -> None:
    """Raises MinclipError when the tokenizer gives ids that the model has no embedding for."""
    if tokenizer.vocab_size > config.vocab_size:
        raise MinclipError(
            f"The tokenizer has {tokenizer.vocab_size} entries, the model {config.vocab_size}; they do not belong together."
        )


def check_preprocessing(folder: Path) -> None:
    """Raises MinclipError when the model wants its pictures normalised otherwise than `preprocess` does."""
    theirs = read_json(folder / "preprocessor_config.json") or read_json(folder / "processor_config.json")
    theirs = theirs.get("image_processor", theirs)  # inside it since transformers 5
    opens = read_json(folder / "open_clip_config.json").get("preprocess_cfg", {})
    for name, ours in (("mean", MEAN), ("std", STD)):
        asked = theirs.get(f"image_{name}", opens.get(name, ours))
        if len(asked) != 3 or not np.allclose(asked, ours, atol=1e-4):
            raise MinclipError(
                f"The model in {folder} was trained on pictures normalised with {name} {tuple(asked)}; "
                f"minclip.preprocess uses CLIP's {ours}, so its results would be wrong in silence."
            )
