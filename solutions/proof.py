"""Are the checks any good? Each exercise's checks are tried on the answers of answers/NAME.py, right and wrong:

    python solutions/proof.py                     every assignment
    python solutions/proof.py 04_the_contrastive_loss
    python solutions/proof.py 04_the_contrastive_loss --messages

prints, for each exercise, how many wrong answers were tried, how many of them the visible check caught and
how many the hidden one alone, how many passed both (there should be none), and how many right answers,
written differently from the solution, both checks accepted. With --messages it prints for each wrong answer what
its author believes and what the check says. `tests/test_exercises.py` holds every exercise
to these figures.

Each check runs in an empty namespace with nothing at hand but the function it checks: so none can lean on
the solution, or on what an earlier cell left behind.
"""

import contextlib
import importlib.util
import inspect
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import tyro

ROOT = Path(__file__).resolve().parent.parent
SOLUTIONS = sorted((ROOT / "solutions").glob("*/*.ipynb"))


@dataclass
class Exercise:
    """One function that a student writes, and what surrounds it in the notebook."""

    assignment: str
    name: str
    text: str  # the cell above the answer
    setup: list[str]  # ordinary cells before it
    solution: str
    visible: str
    hidden: str
    points: int

    def __repr__(self) -> str:  # for pytest's names
        return f"{self.assignment[:2]}-{self.name}"


@dataclass
class WrittenExercise:
    """An answer in words: the model answer with its mark scheme stands where a student writes. Marked by hand."""

    assignment: str
    name: str
    text: str
    solution: str
    points: int

    def __repr__(self) -> str:
        return f"{self.assignment[:2]}-{self.name}"


def load_module(path: Path):
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(path: Path) -> list[dict]:
    return [cell | {"source": "".join(cell["source"])} for cell in json.loads(path.read_text("utf-8"))["cells"]]


def grade_id(cell: dict) -> str | None:
    return cell["metadata"].get("nbgrader", {}).get("grade_id")


def read_exercises(path: Path) -> tuple[list[Exercise], list[WrittenExercise]]:
    """The exercises of an assignment, in order: those that are checked, and those that a person marks."""
    checked, written, setup, text = [], [], [], ""
    by_id = {grade_id(cell): cell for cell in cells(path)}
    for cell in cells(path):
        about, name = cell["metadata"].get("nbgrader"), grade_id(cell)
        if about is None and cell["cell_type"] == "markdown":
            text = cell["source"]
        elif about is None:
            setup.append(cell["source"])
        elif about["solution"] and cell["cell_type"] == "markdown":
            written.append(WrittenExercise(path.stem, name, text, cell["source"], about["points"]))
        elif about["solution"]:
            checks = [by_id[f"{name}-{kind}"] for kind in ("visible", "hidden")]
            points = sum(check["metadata"]["nbgrader"]["points"] for check in checks)
            sources = [check["source"] for check in checks]
            checked.append(Exercise(path.stem, name, text, setup.copy(), cell["source"], *sources, points))
    return checked, written


def answers(exercise: Exercise) -> dict[str, Callable]:
    """What solutions/answers/ holds for it: label -> function."""
    module = answers_module(exercise.assignment)
    prefix = f"{exercise.name}__"
    return {name.removeprefix(prefix): value for name, value in vars(module).items() if name.startswith(prefix)}


@cache
def answers_module(assignment: str):
    return load_module(ROOT / "solutions" / "answers" / f"{assignment}.py")


def defined(exercise: Exercise, source: str) -> Callable:
    """The function that an answer cell defines, after the notebook's ordinary cells."""
    namespace = {"__name__": "notebook"}
    for cell in [*exercise.setup, source]:
        exec(compile(cell, f"<{exercise!r}>", "exec"), namespace)
    plt.close("all")  # pictures of curves, in exercises that give some
    return namespace[exercise.name]


def check(exercise: Exercise, which: str, function: Callable) -> None:
    """Run the visible or the hidden check on a function, with nothing else defined."""
    source = getattr(exercise, which)
    exec(compile(source, f"<{exercise!r} {which}>", "exec"), {"__name__": "check", exercise.name: function})


def failure(exercise: Exercise, which: str, function: Callable) -> BaseException | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # some wrong answers overflow
        try:
            check(exercise, which, function)
        except Exception as error:
            return error
    return None


@dataclass
class Proof:
    """What the checks made of an exercise's answers, as counts.

    assertions: in the visible and the hidden check; wrong: tried; visible, hidden: caught by the one, by the
    other alone; missed: accepted though wrong; accepted, refused: right answers written differently
    """

    assertions: int
    wrong: int
    visible: int
    hidden: int
    missed: int
    accepted: int
    refused: int


def prove(exercise: Exercise) -> Proof:
    """Try both checks on every answer kept for an exercise."""
    caught = {"visible": 0, "hidden": 0, "missed": 0}
    accepted = refused = 0
    for label, function in answers(exercise).items():
        with contextlib.redirect_stdout(io.StringIO()):
            which = next((w for w in ("visible", "hidden") if failure(exercise, w, function) is not None), "missed")
        if label.startswith("right"):
            accepted, refused = accepted + (which == "missed"), refused + (which != "missed")
        else:
            caught[which] += 1
    assertions = sum(source.count("assert ") + source.count("raise AssertionError") for source in
                     (exercise.visible, exercise.hidden))  # fmt: skip
    return Proof(assertions, sum(caught.values()), **caught, accepted=accepted, refused=refused)


def messages(exercise: Exercise) -> str:
    """For each wrong answer: its mistake, and the first line of what the check says to it."""
    lines = []
    for label, function in answers(exercise).items():
        if not label.startswith("right"):
            with contextlib.redirect_stdout(io.StringIO()):
                seen, unseen = failure(exercise, "visible", function), failure(exercise, "hidden", function)
            said = (
                f"{'visible' if seen else 'hidden'}: {str(seen or unseen).splitlines()[0]}"
                if seen or unseen
                else "missed"
            )
            lines += ["", f"  {label.replace('_', ' ')}. {' '.join(inspect.getdoc(function).split())}", f"    {said}"]
    return "\n".join(lines) + "\n"


HEADER = ("assertions", "wrong answers", "visible", "hidden", "missed", "alternatives", "refused")


def main(
    assignment: Annotated[str | None, tyro.conf.Positional] = None,
    show_messages: Annotated[bool, tyro.conf.arg(name="messages")] = False,
) -> None:
    """Print the proof's table.

    Args:
        assignment: name of one notebook; all if not given
        show_messages: print below each exercise its wrong answers, and what the checks say to them
    """
    print(f"{'exercise':<32}" + "".join(f"{name:>14}" for name in HEADER))
    totals, exercises, in_words = [0] * len(HEADER), 0, 0
    for path in SOLUTIONS:
        if assignment in (None, path.stem):
            checked, written = read_exercises(path)
            exercises, in_words = exercises + len(checked), in_words + len(written)
            for exercise in checked:
                counts = list(vars(prove(exercise)).values())
                totals = [total + count for total, count in zip(totals, counts)]
                print(f"{exercise!r:<32}" + "".join(f"{count:>14}" for count in counts), flush=True)
                if show_messages:
                    print(messages(exercise))
    print(f"{f'{exercises} exercises':<32}" + "".join(f"{total:>14}" for total in totals))
    print(f"and {in_words} answers in words, marked by hand")


if __name__ == "__main__":
    tyro.cli(main)
