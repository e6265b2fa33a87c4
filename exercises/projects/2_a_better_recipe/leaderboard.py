"""Ranks runs of the project "a better recipe within 150,000 pictures", by what their saved weights can do:

    python leaderboard.py runs/mine runs/yours

For each run folder it reads from `metrics.jsonl` how many pictures were seen, holds that against the
checkpoint and `results.json` where they are there, and refuses a run that went over the budget or whose
files contradict each other. Then it loads the weights and measures them anew: zero-shot accuracy among the
names held out for validation, in matplotlib's fonts. Nothing that a run says of its own score is believed.

A metrics file can be forged. What cannot be: the score; and whoever runs the recipe again finds out the rest.
"""

import math
import sys
from dataclasses import asdict, dataclass
from json import dumps, loads
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from minclip import MinclipError, load
from minclip.checkpoint import CHECKPOINT, METRICS, read_checkpoint
from minclip.data.glyphs import load_atlas
from minclip.data.tasks import glyph_tasks, validation_task
from minclip.evaluation import evaluate_task

BUDGET = 150_000  # pictures seen in training, repetitions included


@dataclass(frozen=True)
class Entry:
    """A line of the leaderboard. accuracy: in [0, 1]; margin: 95%, from the number of test pictures alone."""

    run: str
    accuracy: float
    margin: float
    images_seen: int
    parameters: int
    seconds: float


def pictures_seen(run: Path, budget: int) -> dict:
    """The last line of the run's metrics. Raises MinclipError where they are damaged, contradict or exceed the budget."""
    name, said = METRICS, {}
    try:
        records = [loads(line) for line in (run / METRICS).read_text("utf-8").splitlines()]
        seen = [(int(record["step"]), int(record["images_seen"])) for record in records]
        batch, last, _ = seen[0][1] / seen[0][0], seen[-1][1], float(records[-1]["seconds"])
        if (run / (name := "results.json")).exists():
            said[name] = int(loads((run / name).read_text("utf-8"))["images_seen"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, ZeroDivisionError) as error:
        raise MinclipError(
            f"{run / name} is missing or damaged: {error!r:.80}. Hand in the whole run folder."
        ) from None
    if any(images != step * batch for step, images in seen) or any(b <= a for a, b in zip(seen, seen[1:])):
        raise MinclipError(f"{run / METRICS} is not of one run: pictures seen do not grow by {batch:g} a step.")
    if (run / CHECKPOINT).exists():
        checkpoint = read_checkpoint(run)
        said[CHECKPOINT] = checkpoint["step"] * checkpoint["train_config"]["batch_size"]
    for name, images in said.items():
        if images != last:
            raise MinclipError(f"{run}: {METRICS} ends at {last} pictures, and {name} says {images}.")
    if last > budget:
        raise MinclipError(f"{run} saw {last:,} pictures; the budget is {budget:,}.")
    return records[-1]


def judge(run: Path, task, budget: int) -> Entry:
    """Measure a run's weights on a task. Raises MinclipError where the run does not count."""
    record = pictures_seen(run, budget)
    model, tokenizer = load(str(run))
    accuracy = evaluate_task(model, tokenizer, task).accuracy
    margin = 1.96 * math.sqrt(accuracy * (1 - accuracy) / len(task))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Entry(str(run), accuracy, margin, record["images_seen"], parameters, record["seconds"])


def main(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    split: Literal["validation", "test"] = "validation",
    budget: int = BUDGET,
    json: Path | None = None,
) -> None:
    """Print the leaderboard.

    Args:
        runs: run folders, as `python -m minclip demo` or `pretrain` leave them
        split: "validation", or "test" for the one final ranking, which nobody may tune on
        budget: pictures a run may have seen
        json: write the entries to this file, too
    """
    entries, refused, tasks = [], [], {}
    for run in tqdm(runs, desc="runs", unit="run", leave=False):
        try:
            size = load(str(run))[0].config.image_resolution
            if size not in tasks:
                atlas = load_atlas(size, None)
                tasks[size] = validation_task(atlas) if split == "validation" else glyph_tasks(atlas)["unseen-names"]
            entries.append(judge(run, tasks[size], budget))
        except MinclipError as error:
            refused.append(f"refused: {error}")
    entries.sort(key=lambda entry: -entry.accuracy)
    print(f"{'':>3} {split + ' names':>20} {'pictures':>9} {'parameters':>11} {'seconds':>8}  run")
    for place, entry in enumerate(entries, start=1):
        score = f"{100 * entry.accuracy:.1f} ± {100 * entry.margin:.1f}%"
        print(
            f"{place:>3} {score:>20} {entry.images_seen:>9,} {entry.parameters:>11,} {entry.seconds:>8.0f}  {entry.run}"
        )
    for reason in refused:
        print(reason, file=sys.stderr)
    if json is not None:
        json.write_text(dumps([asdict(entry) for entry in entries], indent=2), "utf-8")
    if not entries:
        raise SystemExit(1)


if __name__ == "__main__":
    tyro.cli(main)
