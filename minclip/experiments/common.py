"""What the experiments share: models trained once and kept, figures with their spread, provenance."""

import hashlib
import json
import platform
import shlex
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from ..checkpoint import CHECKPOINT
from ..clip import CLIP
from ..data.glyphs import load_atlas
from ..data.painting import GlyphPairs
from ..demo import captions_to_read, describe_device, train_on_pairs
from ..presets import Preset, find_preset
from ..pretrained import load
from ..tokenizer import CLIPTokenizer

Scale = Literal["quick", "recorded"]


@dataclass(frozen=True)
class Setting:
    """How an experiment is run.

    scale: "quick" takes a minute or two on two cores; "recorded" is what stands in the README
    seeds: how many times whatever is trained is trained, with seeds 0, 1, ...
    device: where models are trained and used
    runs: the folder where trained models are kept, to be found again by the next experiment
    photographs: labelled ones for `boundaries`, with splits "train" and "test"; opened as `load_pairs` opens a source
    """

    scale: Scale = "quick"
    seeds: int = 1
    device: torch.device = torch.device("cpu")
    runs: Path = Path("runs/experiments")
    photographs: str | None = None


def trained_models(setting: Setting) -> Iterator[tuple[CLIP, CLIPTokenizer]]:
    """Models of the demo's recipe to measure: the bundled one if quick, or else one trained for each seed."""
    if setting.scale == "quick":
        yield load("glyphs-tiny", setting.device)
        return
    for seed in tqdm(range(setting.seeds), desc="models", unit="model", leave=False):
        yield trained_model(find_preset("cpu"), seed, setting)


def trained_model(preset: Preset, seed: int, setting: Setting) -> tuple[CLIP, CLIPTokenizer]:
    """The recipe trained on the glyphs with the seed: from the runs folder, if it was trained before."""
    preset = replace(preset, train=replace(preset.train, seed=seed))
    pairs = GlyphPairs(load_atlas(preset.model.image_resolution).training(), preset.paint, setting.device)
    return trained_on(pairs, preset, "model", setting)


def trained_on(pairs: GlyphPairs, preset: Preset, kind: str, setting: Setting) -> tuple[CLIP, CLIPTokenizer]:
    """The recipe trained on pairs of some kind; kept, and found again, by the kind and the recipe."""
    run = run_folder(preset, setting, kind)
    if not (run / "model.safetensors").exists():  # the last file that is written
        captions = captions_to_read(pairs, preset.train.seed)
        train_on_pairs(preset, pairs, captions, run, setting.device, resume=(run / CHECKPOINT).exists())
    return load(str(run), setting.device)


def run_folder(preset: Preset, setting: Setting, kind: str) -> Path:
    """Where a run of this recipe, its seed included, is kept."""
    recipe = json.dumps(asdict(preset), sort_keys=True).encode()
    return setting.runs / f"{kind}-{hashlib.sha256(recipe).hexdigest()[:12]}"


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Mean and, of several seeds, the standard deviation between them: "51.1 ± 1.9"."""
    mean = format(statistics.fmean(values), form)
    return f"{mean} ± {format(statistics.stdev(values), form.lstrip('+'))}" if len(values) > 1 else mean


def percent(shares: Sequence[float]) -> str:
    """Shares in [0, 1], one a seed, as percentages with their spread: "51.1 ± 1.9%"."""
    return f"{spread([100 * share for share in shares])}%"


def times(factors: Sequence[float]) -> str:
    """The geometric mean and, of several seeds, the range over them: "4.1 (3.2 to 5.0)"."""
    between = f" ({min(factors):.1f} to {max(factors):.1f})" if len(factors) > 1 else ""
    return f"{statistics.geometric_mean(factors):.1f}{between}"


def claim(text: str, paper: str, measured: str) -> dict[str, str]:
    """A row of the README's table: what is claimed, the paper's figure and ours."""
    return {"claim": text, "paper": paper, "measured": measured}


def claims_as_text(claims: Sequence[dict[str, str]], width: int = 88) -> str:
    """The rows one under the other, for a screen of so many columns."""

    def wrapped(start: str, text: str) -> str:
        return textwrap.fill(text, width, initial_indent=start, subsequent_indent=" " * len(start))

    return "\n\n".join(
        "\n".join((row["claim"], wrapped("  paper     ", row["paper"]), wrapped("  measured  ", row["measured"])))
        for row in claims
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Words on the left, figures on the right, in columns as wide as they must be."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = []
    for first, *rest in (header, *rows):
        figures = "".join(f"  {cell:>{width}}" for cell, width in zip(rest, widths[1:]))
        lines.append(f"{first:<{widths[0]}}{figures}".rstrip())
    return "\n".join(lines)


def provenance(setting: Setting, seconds: float) -> dict[str, str | int | float]:
    """Where a recorded result comes from: command, commit, date, hardware, versions. `seconds` are of this call:
    what was trained before, and kept in the runs folder, is not in them."""
    try:
        git = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    except OSError:  # git is not installed
        commit = ""
    return {
        "command": shlex.join(["python", "-m", "minclip", *sys.argv[1:]]),
        "commit": commit or "not in a repository",
        "date": date.today().isoformat(),
        "device": describe_device(setting.device),
        "machine": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "scale": setting.scale,
        "seeds": setting.seeds,
        "seconds": round(seconds, 1),
    }
