"""Accuracy under shift, and how much of it is more than the benchmark foretells (paper, section 3.3).

Models that are better on a benchmark are better under a shift of it, too: on logit axes accuracies fall
on a line (Taori et al. 2020). *Effective robustness* is how far a model lies above the line that was
fitted through supervised models: what it has under the shift beyond what its benchmark accuracy
buys. Notebook 10.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .data.shifts import as_tensor
from .data.tasks import Task
from .errors import MinclipError


def shifted_accuracy(
    logits_of: Callable[[torch.Tensor], torch.Tensor], class_names: Sequence[str], task: Task, home: Task | None = None
) -> float:
    """Accuracy in [0, 1] of a model of K classes on a task that has some of them.

    logits_of: (N, 3, S, S) uint8 -> (N, K), a column for each of `class_names`
    home: if given, the model is scored on those of its pictures whose classes `task` has: what a shift
        of some classes alone is to be compared with

    Only the task's own classes may be answered, as for ImageNet-R, which has 200 of the 1,000.

    Raises MinclipError where the task has a class that the model does not know.
    """
    columns = _places(task.class_names, class_names)
    pictures = task if home is None else home
    named = np.array(pictures.class_names)[pictures.labels]  # (N,) each picture's class, in words
    kept = np.isin(named, task.class_names)
    logits = logits_of(as_tensor(pictures)[torch.from_numpy(kept)])[:, columns]
    answered = np.array(task.class_names)[logits.argmax(dim=1).cpu().numpy()]
    return float((answered == named[kept]).mean())


def _places(wanted: Sequence[str], known: Sequence[str]) -> list[int]:
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise MinclipError(f"The model does not know {len(unknown)} of the task's classes, {unknown[0]!r} among them.")
    return [list(known).index(name) for name in wanted]


def logit(accuracy, pictures: int = 1000):
    """ln(a / (1 - a)) of accuracies in [0, 1], numbers or arrays: a step from 98% to 99% is as long as from 1% to 2%.

    Perfect scores would lie at infinity: they count as half a picture from the end, of so many `pictures`.

    Raises MinclipError for an accuracy outside [0, 1].
    """
    accuracy = np.asarray(accuracy, dtype=np.float64)
    if not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise MinclipError(f"Accuracies lie in [0, 1]; got {accuracy.min():.3g} to {accuracy.max():.3g}.")
    accuracy = accuracy.clip(0.5 / pictures, 1 - 0.5 / pictures)
    return np.log(accuracy / (1 - accuracy))


def expit(score):
    """The accuracy whose logit is `score`."""
    return 1 / (1 + np.exp(-np.asarray(score, dtype=np.float64)))


@dataclass(frozen=True)
class Line:
    """logit(shifted) = slope * logit(home) + intercept."""

    slope: float
    intercept: float

    def expected(self, home):
        """The accuracy in [0, 1] under the shift that a benchmark accuracy foretells."""
        return expit(self.slope * logit(home) + self.intercept)


def fit_line(home: Sequence[float], shifted: Sequence[float]) -> Line:
    """Least squares on logit axes, through models' accuracies on the benchmark and under the shift, in [0, 1].

    Raises MinclipError for fewer than two benchmark accuracies that differ, or for as many as do not match.
    """
    home, shifted = np.asarray(home, dtype=np.float64), np.asarray(shifted, dtype=np.float64)
    if home.shape != shifted.shape or home.ndim != 1 or len(np.unique(home)) < 2:
        raise MinclipError(
            f"A line needs at least two models that differ on the benchmark; got accuracies of shape {home.shape} "
            f"there and {shifted.shape} under the shift."
        )
    slope, intercept = np.polyfit(logit(home), logit(shifted), 1)
    return Line(float(slope), float(intercept))


def effective_robustness(home, shifted, line: Line):
    """Accuracy under the shift less what the line expects of that benchmark accuracy; in [-1, 1]."""
    return np.asarray(shifted, dtype=np.float64) - line.expected(home)


def gap_closed(home, shifted, line: Line):
    """The share of the supervised models' fall, at equal benchmark accuracy, that a model is spared.

    0: it falls as far as they do; 1: it does not fall at all; below 0: it falls further. The paper's "up to 75%".
    Infinite or NaN where supervised models do not fall.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return effective_robustness(home, shifted, line) / (np.asarray(home, dtype=np.float64) - line.expected(home))
