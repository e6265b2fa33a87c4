"""Models on disk: a folder of `model.safetensors`, `config.json` and `tokenizer.json`.

`save` writes one, `load` reads one back to the same bits, or a run folder that `fit` left. Nothing
here unpickles.
"""

import json
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from .checkpoint import CHECKPOINT, read_checkpoint, write_atomically
from .clip import CLIP, CLIPConfig
from .errors import MinclipError
from .tokenizer import CLIPTokenizer

BUNDLED = Path(__file__).parent / "weights"


def save(model: CLIP, tokenizer: CLIPTokenizer, folder: str | Path) -> None:
    """Write a model and its tokenizer to a folder, each file atomically."""
    folder = Path(folder)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    files = {
        "model.safetensors": safetensors.torch.save(weights),
        "config.json": json.dumps(asdict(model.config), indent=2).encode(),
        "tokenizer.json": tokenizer.to_json().encode(),
    }
    for name, content in files.items():
        write_atomically(folder / name, lambda file, content=content: file.write(content))


def load(name: str | Path, device: str | torch.device = "cpu") -> tuple[CLIP, CLIPTokenizer]:
    """A bundled model's name, or a folder that `save` or `fit` wrote -> model in evaluation mode, tokenizer.

    Raises MinclipError when there is no such model, or its files are damaged or do not fit together.
    """
    folder = BUNDLED / name if (BUNDLED / name).is_dir() else Path(name)
    if (folder / "model.safetensors").exists():
        state, config, tokenizer = read_saved(folder)
    elif (folder / CHECKPOINT).exists():
        checkpoint = read_checkpoint(folder)
        state, config, tokenizer = checkpoint["model"], checkpoint["model_config"], checkpoint["tokenizer"]
    else:
        bundled = sorted(path.name for path in BUNDLED.glob("*/")) if BUNDLED.is_dir() else []
        raise MinclipError(
            f"There is no model {str(name)!r}: neither a bundled one ({', '.join(bundled) or 'none are'}) nor a "
            f"folder with model.safetensors or {CHECKPOINT}."
        )
    model = CLIP(CLIPConfig(**config))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise MinclipError(f"The weights in {folder} do not fit its configuration. {error}") from error
    return model.to(device).eval(), CLIPTokenizer.from_json(tokenizer, model.config.context_length)


def read_saved(folder: Path) -> tuple[dict[str, torch.Tensor], dict, str]:
    """State dict, configuration and tokenizer of a folder that `save` wrote."""
    try:
        state = safetensors.torch.load_file(folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        tokenizer = (folder / "tokenizer.json").read_text()
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise MinclipError(f"The model in {folder} cannot be read: {error}. Save or copy it again.") from error
    return {name: tensor.float() for name, tensor in state.items()}, config, tokenizer
