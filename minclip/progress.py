"""How far a student is: runs each notebook of exercises beside its checks, and changes nothing.

A notebook is run from top to bottom, as JupyterLab would, but goes on after an error: each check says
for itself whether its exercise is done.
"""

import json
import signal
import threading
import types
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from .errors import MinclipError

TO_DO, PASSES, FAILS, WRITTEN, DAMAGED = "to do", "passes", "fails", "written", "damaged"
SECONDS_A_CELL = 30  # as nbgrader has it
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OSError)  # what a damaged notebook raises


class Shell(InteractiveShell):
    """A shell without windows and without a process of its own: `%matplotlib inline` and `exit()`, which JupyterLab
    understands, do no harm here."""

    def enable_gui(self, gui=None):
        pass

    def enable_matplotlib(self, gui=None):
        return None, "agg"  # as it is: nobody looks at the pictures

    def ask_exit(self):
        pass


class TooLong(BaseException):  # no Exception: an answer may catch those
    """A cell ran past its time."""


@dataclass
class Exercise:
    """assignment: the notebook's name; name: the function's; state: to do, passes, fails, written (marked by a person), or
    damaged (a whole notebook); why: the first line of what the check said, where it fails"""

    assignment: str
    name: str
    state: str
    why: str = ""


def find_notebooks(place: Path) -> list[Path]:
    """The notebook; or those with exercises in the folder, or one folder down, in order. Raises MinclipError where
    there is none."""
    if place.suffix == ".ipynb" and place.is_file():
        found = [place]
    else:
        found = sorted([*place.glob("*.ipynb"), *place.glob("*/*.ipynb")])
        found = [path for path in found if not path.parent.name.startswith(".")]  # JupyterLab's .ipynb_checkpoints
    if not found:
        raise MinclipError(f"No notebook in {str(place)!r}; name exercises/, a folder in it, or a notebook.")
    notebooks = [path for path in found if holds_exercises(path)]
    if not notebooks:
        raise MinclipError(
            f"No exercise with a check in {str(place)!r}; name exercises/, a folder in it, or a notebook. Lessons and "
            "projects have none."
        )
    return notebooks


def read_cells(path: Path) -> list[tuple[str, str, dict]]:
    """(kind, source, what nbgrader notes) of each cell. Raises one of UNREADABLE where the file is damaged."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("nbgrader", {})) for cell in cells]


def holds_exercises(path: Path) -> bool:
    """Whether there is anything to tell of: an exercise, or that the file is damaged."""
    try:
        return any(grading for _, _, grading in read_cells(path))
    except UNREADABLE:
        return True


def run_notebook(path: Path) -> list[Exercise]:
    """Its exercises, in order; or the one line that it is damaged, so that the other notebooks still get theirs."""
    try:
        cells = read_cells(path)
    except UNREADABLE as error:
        return [Exercise(path.stem, "the whole file", DAMAGED, f"no notebook, or one cut off ({error!s:.80})")]
    matplotlib.use("agg")  # no windows
    config = Config(HistoryManager={"enabled": False}, InteractiveShell={"colors": "nocolor"})
    shell = Shell(config=config, user_module=types.ModuleType("exercises"))
    found, broken = [], {}  # broken: what an answer cell itself raised
    for kind, source, grading in cells:
        name = grading.get("grade_id", "")
        if kind == "markdown" and grading.get("solution"):
            found.append(Exercise(path.stem, name, TO_DO if source.strip() == "YOUR ANSWER HERE" else WRITTEN))
        if kind != "code":
            continue
        with capture_output(), time_limit(SECONDS_A_CELL):
            error = shell.run_cell(source, silent=True)
            error = error.error_before_exec or error.error_in_exec
        if isinstance(error, KeyboardInterrupt):
            raise error
        if grading.get("solution"):
            broken[name] = error
        if name.endswith("-visible"):
            answer = name.removesuffix("-visible")
            if isinstance(error, NameError) and error.name == answer:  # because its own cell failed
                error = broken.get(answer) or error
            found.append(Exercise(path.stem, answer, *judge(error)))
    return found


@contextmanager
def time_limit(seconds: int):
    """Raises TooLong in what runs past it. No limit on Windows, nor outside the main thread: no alarm rings there."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_):
        raise TooLong(f"ran past {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judge(error: BaseException | None) -> tuple[str, str]:
    """State of an exercise, and why, from what its check raised."""
    if error is None:
        return PASSES, ""
    if isinstance(error, NotImplementedError):
        return TO_DO, ""
    words = str(error).strip() or type(error).__name__
    if isinstance(error, SyntaxError):
        words = f"{error.msg} (line {error.lineno})"  # and not a made-up name of a file
    if not isinstance(error, AssertionError | TooLong):
        words = f"{type(error).__name__}: {words}"
    return FAILS, words.splitlines()[0]


def as_text(exercises: list[Exercise]) -> str:
    """A table: one line an exercise, one for each assignment."""
    lines = []
    for assignment in dict.fromkeys(exercise.assignment for exercise in exercises):
        own = [exercise for exercise in exercises if exercise.assignment == assignment]
        done = sum(exercise.state in (PASSES, WRITTEN) for exercise in own)
        damaged = any(exercise.state == DAMAGED for exercise in own)
        lines.append(f"{assignment.replace('_', ' ')}: {DAMAGED if damaged else f'{done} of {len(own)}'}")
        lines += [f"  {exercise.name:<27} {exercise.state:<9}{exercise.why}".rstrip() for exercise in own]
    return "\n".join(lines)
