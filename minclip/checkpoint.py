"""What a training run leaves on disk: one complete checkpoint, written atomically, and its metrics.

A reader of the folder finds either the whole of the old checkpoint or the whole of the new one,
whatever moment the process or the machine died at. Checkpoints hold tensors and plain data only and
are read with `weights_only=True`, so that opening one never runs code.
"""

import json
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import torch

from .errors import MinclipError

CHECKPOINT, PREVIOUS, METRICS = "checkpoint.pt", "checkpoint.previous.pt", "metrics.jsonl"
SET_ASIDE = {"model.safetensors": "model.previous.safetensors", CHECKPOINT: PREVIOUS}  # as another run begins
PARTS = {"model", "optimizer", "step", "model_config", "train_config", "tokenizer", "random_states"}


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write(file)` fill a neighbour of `path`, then rename it into place.

    Raises MinclipError when the folder cannot be written or the disk is full. Then, and whatever else
    `write` raises, `path` is as it was before and nothing half-written lies beside it.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # on the disk before the name points at it
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise MinclipError(
            f"Could not write {path}: {error}. What was there before is untouched; "
            "free some space, or name a folder you may write to."
        ) from error
    finally:
        with suppress(OSError):  # gone if all went well, and where its folder is none at all
            partial.unlink()


def write_checkpoint(folder: Path, checkpoint: dict) -> None:
    """Tensors and plain data -> `folder`/checkpoint.pt."""
    write_atomically(folder / CHECKPOINT, lambda file: torch.save(checkpoint, file))


def read_checkpoint(folder: Path) -> dict:
    """What `write_checkpoint` was given. Raises MinclipError where there is none, it is damaged, or cannot be read."""
    path = folder / CHECKPOINT
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as parts:
                if (part := parts.testzip()) is not None:  # torch itself does not look at the checksums
                    raise zipfile.BadZipFile(f"{part} is not what was written.")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, NotADirectoryError):
        raise MinclipError(f"There is no checkpoint {path}; name the folder of a run that saved one.") from None
    except OSError as error:  # the system refuses; of what the file holds this says nothing
        raise MinclipError(f"{path} cannot be read: {error}. See to its permissions, or to the disk.") from error
    except pickle.UnpicklingError as error:
        raise MinclipError(
            f"{path} holds pickled objects besides tensors, or is not a checkpoint at all; opening it could run "
            "somebody's code, so minclip does not. Use a file that minclip wrote, or safetensors."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise MinclipError(
            f"{path} is damaged (truncated by a full disk or a broken copy?): {error!r:.200} "
            "Delete it and train again, or restore a copy."
        ) from error
    if not isinstance(checkpoint, dict) or not checkpoint.keys() >= PARTS:
        raise MinclipError(f"{path} holds something else than a run's checkpoint; name the folder of a run.")
    return checkpoint


def random_states() -> dict[str, torch.Tensor]:
    """Where torch's random generators stand, the CPU's and the current GPU's."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():  # a run on the CPU does not wake the GPU for this
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: dict[str, torch.Tensor]) -> None:
    """Put the generators back where `random_states` found them."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(states["cuda"])


def append_metrics(folder: Path, record: dict) -> None:
    """One more line of metrics.jsonl. Raises MinclipError where the disk is full."""
    try:
        with open(folder / METRICS, "a") as file:
            file.write(json.dumps(record) + "\n")
    except OSError as error:
        raise MinclipError(
            f"Could not write {folder / METRICS}: {error}. Free some space; the run's last checkpoint is untouched."
        ) from error


def read_metrics(folder: Path, step: int) -> list[dict]:
    """The records up to `step`; later ones are of steps that died before their checkpoint.

    Raises MinclipError where the file cannot be read. Where there is none, there are no records.
    """
    path, records = folder / METRICS, []
    try:
        text = path.read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise MinclipError(f"{path} cannot be read: {error}. See to its permissions, or to the disk.") from error
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the line that was being written when the process died
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):  # not somebody's note
            records.append(record)
    return [record for record in records if record["step"] <= step]


def rewind_metrics(folder: Path, step: int) -> None:
    """Drop the records of later steps from the file."""
    text = "".join(json.dumps(record) + "\n" for record in read_metrics(folder, step))
    write_atomically(folder / METRICS, lambda file: file.write(text.encode()))


def set_aside_earlier_run(folder: Path) -> None:
    """Before a run begins anew: another one's records are not its own, and none of its failures may name,
    nor `--resume` or `load` find, the other's weights. They are kept as checkpoint.previous.pt and
    model.previous.safetensors. Raises MinclipError where the folder cannot be written."""
    rewind_metrics(folder, step=0)
    for current, previous in SET_ASIDE.items():
        try:
            with suppress(FileNotFoundError):
                os.replace(folder / current, folder / previous)
        except OSError as error:
            raise MinclipError(
                f"Could not rename {folder / current} to {previous}: {error}. Name a folder you may write to."
            ) from error
