"""Ranks runs of the project "a better recipe within 150,000 pictures", by what their saved weights can do:

    python leaderboard.py runs/mine runs/yours

For each run folder it reads from `metrics.jsonl` how many pictures were seen, holds that against the
checkpoint, and against `results.json` where it is there, and refuses a run that went over the budget or whose
files contradict each other. Then it loads the checkpoint's weights, refuses the run if `model.safetensors` holds
others, and measures them anew: zero-shot accuracy among the names held out for validation, in matplotlib's fonts.
Nothing that a run says of its own score is believed. A run that is refused is told why, and the others are ranked.

Files can be forged. What cannot be: the score; and whoever runs the recipe again finds out the rest.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from json import dumps, loads
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from tqdm import tqdm

from minclip import CLIP, CLIPTokenizer, MinclipError, load
from minclip.checkpoint import CHECKPOINT, METRICS, read_checkpoint
from minclip.data.glyphs import load_atlas
from minclip.data.tasks import Task, glyph_tasks, validation_task
from minclip.evaluation import evaluate_task

BUDGET = 150_000  # pictures seen in training, repetitions included


@dataclass(frozen=True)
class Entry:
    """A line of the leaderboard. accuracy: in [0, 1]; margin: 95%, from the number of test pictures alone;
    validation: the same two among the validation names, where the ranking is by another split's"""

    run: str
    accuracy: float
    margin: float
    images_seen: int
    parameters: int
    seconds: float
    validation: tuple[float, float] | None = None

    @property
    def doubtful(self) -> bool:
        """Whether test and validation are further apart than both margins together."""
        return (
            self.validation is not None and abs(self.accuracy - self.validation[0]) > self.margin + self.validation[1]
        )


def count(value: object) -> int:
    """The value, if it is a whole number above 0. Raises ValueError otherwise: "3", 2.5 and true are none."""
    if type(value) is not int or value <= 0:
        raise ValueError(f"{value!r:.40} is not a whole number above 0")
    return value


def duration(value: object) -> float:
    """The value as seconds. Raises ValueError where it is no finite number from 0 on."""
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r:.40} is no number of seconds")
    return float(value)


def pictures_seen(run: Path, budget: int) -> dict:
    """The last line of the run's metrics. Raises MinclipError where they are damaged, contradict or exceed the budget."""
    name, said = METRICS, {}
    try:
        records = [loads(line) for line in (run / METRICS).read_text("utf-8").splitlines()]
        seen = [(count(record["step"]), count(record["images_seen"])) for record in records]
        (first, images_then), last, _ = seen[0], seen[-1][1], [duration(record["seconds"]) for record in records]
        if (run / (name := "results.json")).exists():
            said[name] = count(loads((run / name).read_text("utf-8"))["images_seen"])
        name = CHECKPOINT
        checkpoint = read_checkpoint(run)
        said[name] = count(checkpoint["step"]) * count(checkpoint["train_config"]["batch_size"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise MinclipError(
            f"{run / name} is missing or damaged: {error!r:.80}. Hand in the whole run folder."
        ) from None
    if any(images * first != step * images_then for step, images in seen) or any(
        b <= a for a, b in zip(seen, seen[1:])
    ):
        raise MinclipError(
            f"{run / METRICS} is not of one run: pictures seen do not grow by {images_then / first:g} a step."
        )
    for name, images in said.items():
        if images != last:
            raise MinclipError(f"{run}: {METRICS} ends at {last} pictures, and {name} says {images}.")
    if last > budget:
        raise MinclipError(f"{run} saw {last:,} pictures; the budget is {budget:,}.")
    return records[-1]


def trained_model(run: Path) -> tuple[CLIP, CLIPTokenizer]:
    """What the run's checkpoint holds. Raises MinclipError where the saved model is another."""
    model, tokenizer = load(run / CHECKPOINT)
    mine, saved = model.state_dict(), load(str(run))[0].state_dict()
    if mine.keys() != saved.keys() or not all(torch.equal(mine[name], saved[name]) for name in mine):
        raise MinclipError(
            f"{run}: the weights saved as a model are not those of {CHECKPOINT}. Hand in the folder as the run left it; "
            "weights of your own making, averaged say, belong into both."
        )
    return model, tokenizer


def judge(run: Path, tasks: Callable[[int], dict[str, Task]], split: str, budget: int) -> Entry:
    """Measure a run's weights. tasks: the side of a picture -> split -> task. Raises MinclipError where the run
    does not count."""
    record = pictures_seen(run, budget)
    model, tokenizer = trained_model(run)
    of_this_size, scores = tasks(model.config.image_resolution), {}
    for name in dict.fromkeys((split, "validation")):
        accuracy = evaluate_task(model, tokenizer, of_this_size[name]).accuracy
        scores[name] = accuracy, 1.96 * math.sqrt(accuracy * (1 - accuracy) / len(of_this_size[name]))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    beside = scores["validation"] if split != "validation" else None
    return Entry(str(run), *scores[split], record["images_seen"], parameters, record["seconds"], beside)


@cache
def tasks_of_size(size: int) -> dict[str, Task]:
    atlas = load_atlas(size, None)
    return {"validation": validation_task(atlas), "test": glyph_tasks(atlas)["unseen-names"]}


def main(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    split: Literal["validation", "test"] = "validation",
    budget: int = BUDGET,
    json: Path | None = None,
) -> None:
    """Print the leaderboard.

    Args:
        runs: run folders, as `python -m minclip demo` or `pretrain` leave them
        split: "validation", or "test" for the one final ranking, which nobody may tune on; validation then stands
            beside it, and a star where the two are further apart than both margins together
        budget: pictures a run may have seen
        json: write the entries to this file, too
    """
    entries, refused = [], []
    for run in tqdm(runs, desc="runs", unit="run", leave=False):
        try:
            entries.append(judge(run, tasks_of_size, split, budget))
        except MinclipError as error:
            refused.append(f"refused: {error}")
        except Exception as error:  # files in a state that nobody thought of: the others are ranked all the same
            words = " ".join(f"{type(error).__name__}: {error}".split())
            refused.append(f"refused: {run} cannot be judged ({words:.200}).")
    entries.sort(key=lambda entry: -entry.accuracy)
    splits = list(dict.fromkeys((split, "validation")))
    print(f"{'':>3} {''.join(f'{name} names'.rjust(20) for name in splits)}   pictures  parameters  seconds  run")
    for place, entry in enumerate(entries, start=1):
        scores = [(entry.accuracy, entry.margin), *([entry.validation] if entry.validation else [])]
        told = "".join(f"{100 * accuracy:.1f} ± {100 * margin:.1f}%".rjust(20) for accuracy, margin in scores)
        print(
            f"{place:>3} {told} {'*' if entry.doubtful else ' '} {entry.images_seen:>8,} {entry.parameters:>11,} "
            f"{entry.seconds:>8.0f}  {entry.run}"
        )
    if any(entry.doubtful for entry in entries):
        print(
            "* Test and validation are further apart than both margins together. Was one of them trained on? Run the recipe again."
        )
    for reason in refused:
        print(reason, file=sys.stderr)
    if json is not None:
        json.write_text(dumps([asdict(entry) for entry in entries], indent=2), "utf-8")
    if not entries:
        raise SystemExit(1)


if __name__ == "__main__":
    tyro.cli(main)
