"""The main job: train a CLIP on this computer's fonts, test it on what it never saw, report."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from . import distributed
from .checkpoint import METRICS, write_atomically
from .clip import CLIP
from .data.glyphs import Atlas, load_atlas
from .data.painting import GlyphPairs
from .errors import MinclipError
from .evaluation import evaluate_glyphs
from .presets import Preset, new_model
from .pretrained import save
from .report import write_report
from .tokenizer import CLIPTokenizer
from .train import Pairs, fit

CAPTIONS_READ = 20_000  # painted captions from which the tokenizer learns its merges


def train_on_glyphs(
    preset: Preset, atlas: Atlas, run: Path | None, device: torch.device, resume: bool = False
) -> tuple[CLIP, CLIPTokenizer, list[dict]]:
    """A model trained by the recipe on the atlas's training glyphs, saved in `run` if given; its records."""
    pairs = GlyphPairs(atlas.training(), preset.paint, device)
    return train_on_pairs(preset, pairs, captions_to_read(pairs, preset.train.seed), run, device, resume)


def captions_to_read(pairs: GlyphPairs, seed: int) -> list[str]:
    """What a tokenizer learns its merges from: every name, and CAPTIONS_READ painted captions."""
    return [*pairs.names, *pairs.captions(CAPTIONS_READ, seed)]


def train_on_pairs(
    preset: Preset, pairs: Pairs, captions: list[str], run: Path | None, device: torch.device, resume: bool = False
) -> tuple[CLIP, CLIPTokenizer, list[dict]]:
    """The same for any stream of pairs; `captions` are for the tokenizer to learn its merges from.

    Raises what `fit` and `save` do, and MinclipError where a run that had ended has lost its records.
    """
    model, tokenizer = new_model(preset.model, captions, preset.train.seed)
    records = fit(model.to(device), tokenizer, pairs, preset.train, run, resume)
    if run is not None and distributed.rank() == 0:
        save(model, tokenizer, run)
    if not records:
        raise MinclipError(
            f"The run in {run} had ended before, and its {METRICS} is gone or empty, so that there are no figures to "
            f"report. The model is whole, and saved: evaluate {run}, or train anew in another folder."
        )
    return model, tokenizer, records


def run_demo(preset: Preset, run: Path, device: torch.device, fonts: str | None = None, resume: bool = False) -> dict:
    """Train, evaluate, report. Returns what it writes to `run`/results.json; report.html lies beside it."""
    atlas = load_atlas(preset.model.image_resolution, fonts)
    model, tokenizer, records = train_on_glyphs(preset, atlas, run, device, resume)
    scores, results = evaluate_glyphs(model, tokenizer, atlas)
    figures = {
        "images_seen": records[-1]["images_seen"],
        "seconds": records[-1]["seconds"],
        "seed": preset.train.seed,
        "device": describe_device(device),
        "parameters": sum(p.numel() for p in model.parameters()),
        "glyphs": len(atlas),
        "pictures": {name: len(result.task) for name, result in results.items()},
        "classes": {name: len(result.task.class_names) for name, result in results.items()},
        "truncated_captions": tokenizer.truncated,
        "skipped_fonts": atlas.skipped,
        **scores,
        "train": asdict(preset.train),
    }
    write_json(run / "results.json", figures)
    write_report(run / "report.html", figures, records, results, model, tokenizer, atlas, preset.train.batch_size)
    return figures


def describe_device(device: torch.device) -> str:
    """What a reader of the figures should know: the GPU's name, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return str(device)
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' * (threads > 1)}"


def write_json(path: Path, content: dict) -> None:
    """Atomically, indented for people."""
    write_atomically(path, lambda file: file.write(json.dumps(content, indent=2).encode()))
