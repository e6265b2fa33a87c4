"""The exercises are what solutions/ makes of them, and their checks accept right answers and no others.

Cells run in this process, each check with nothing at hand but the function it checks: so none of them
can lean on the solution, or on what an earlier cell left behind. One test hands a made-up submission
to nbgrader itself, another runs the solutions under nbval, as notebooks are.
"""

import ast
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SOLUTIONS = sorted((ROOT / "solutions").glob("*/*.ipynb"))
HEADING = re.compile(r"Difficulty ([1-5]) of 5\. About (\d+) minutes\. (\d+) points")


def load_module(path: Path):
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


proof = load_module(ROOT / "solutions" / "proof.py")  # how exercises are read, and checks run
Exercise, answers, cells, check, defined, failure, grade_id = (
    proof.Exercise, proof.answers, proof.cells, proof.check, proof.defined, proof.failure, proof.grade_id,
)  # fmt: skip
EXERCISES = [exercise for path in SOLUTIONS for exercise in proof.read_exercises(path)[0]]
WRITTEN = [exercise for path in SOLUTIONS for exercise in proof.read_exercises(path)[1]]
every_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=repr)
every_written_exercise = pytest.mark.parametrize("exercise", WRITTEN, ids=repr)
every_notebook = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)


# The notebooks


def test_exercises_are_what_solutions_make_of_them(tmp_path):
    pytest.importorskip("nbgrader", reason="nbgrader comes with the instructor extra")
    names = load_module(ROOT / "solutions" / "generate.py").generate(tmp_path)
    assert names == [path.stem for path in SOLUTIONS]
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    folder = ROOT / "exercises"
    kept = {
        path.relative_to(folder): path.read_bytes()
        for path in folder.glob("*/*")
        if path.is_file() and path.parent.name != "projects"
    }
    assert sorted(made) == sorted(kept), "files are missing or left over: make exercises"
    assert [str(path) for path in made if made[path] != kept[path]] == [], "out of date: make exercises"


def test_nothing_hidden_reaches_a_student():
    for path in (ROOT / "exercises").rglob("*.ipynb"):
        text = path.read_text("utf-8")
        assert "HIDDEN" not in text and "SOLUTION" not in text and "Mark scheme" not in text
        stubs = [cell for cell in cells(path) if cell["source"].endswith("    raise NotImplementedError()")]
        assert len(stubs) == len([e for e in EXERCISES if e.assignment == path.stem])


@every_notebook
def test_every_cell_was_run_once_and_in_order(path):
    counts = [cell["execution_count"] for cell in cells(path) if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_solutions_still_print_what_they_store(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path)}
    environment.pop("MPLBACKEND", None)  # figures are shown, as in JupyterLab
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-cell-timeout", "300", "-p", "no:cacheprovider"]
    run = subprocess.run([*command, "solutions"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]


@every_exercise
def test_a_student_is_told_what_to_do(exercise):
    assert "**Goal.**" in exercise.text and "**Why it matters.**" in exercise.text
    assert exercise.text.count("<details>") == 2
    assert int(HEADING.search(exercise.text)[3]) == exercise.points
    (stub,) = [node for node in ast.parse(exercise.solution).body if getattr(node, "name", None) == exercise.name]
    assert ast.get_docstring(stub) and stub.returns, "the stub needs a docstring and a type for its result"
    assert all(argument.annotation for argument in stub.args.args)


@every_written_exercise
def test_an_answer_in_words_can_be_marked(exercise):
    """A student finds the question and an empty answer; an instructor a model answer and where its points lie."""
    assert "**Goal.**" in exercise.text and "**Why it matters.**" in exercise.text
    assert exercise.text.count("<details>") == 2 and "marked by hand" in exercise.text
    assert int(HEADING.search(exercise.text)[3]) == exercise.points
    answer, scheme = exercise.solution.split("**Mark scheme.**")
    assert len(answer.split()) > 50
    assert sum(int(points) for points in re.findall(r"(\d+) points?:", scheme)) == exercise.points
    path = ROOT / "exercises" / exercise.assignment / f"{exercise.assignment}.ipynb"
    (empty,) = [cell["source"] for cell in cells(path) if grade_id(cell) == exercise.name]
    assert empty == "YOUR ANSWER HERE"


@every_notebook
def test_the_guide_lists_every_exercise_with_its_points(path):
    guide, text, total = (ROOT / "solutions" / "README.md").read_text("utf-8"), "", 0
    for cell in cells(path):
        about = cell["metadata"].get("nbgrader")
        if about is None:
            text = cell["source"] if cell["cell_type"] == "markdown" else text
            continue
        total += about.get("points", 0)
        if about["solution"]:
            difficulty, minutes, points = HEADING.search(text).groups()
            assert f"| `{about['grade_id']}` | {difficulty} | {minutes} | {points} |" in guide
            assert about.get("points", int(points)) == int(points)  # a written answer has its own
    assert re.search(rf"\| \*\*{path.stem[:2]} .*\*\* \| \| \| \*\*{total}\*\* \|", guide)


@pytest.mark.skipif(not all(map(shutil.which, ("git", "make", "tar"))), reason="wants git, make and tar")
def test_the_students_copy_lacks_solutions_and_leaves_the_instructors_alone(tmp_path):
    """The guide's recipe, as it stands there: once where ../for-students exists, once where it does not."""
    clone, copy = tmp_path / "clone", tmp_path / "for-students"
    for name in ("Makefile", "requirements.txt", "pyproject.toml", "solutions/README.md", "tests/test_exercises.py"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    own = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_")
    }  # no repository but the clone
    own |= {f"GIT_{role}_{what}": "ada@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def shell(commands, where):
        run = subprocess.run(["sh", "-c", commands], cwd=where, env=own, capture_output=True, text=True)
        return run.returncode, run.stdout

    assert shell("git init && git add -A && git commit -m all", clone)[0] == 0
    guide = (ROOT / "solutions" / "README.md").read_text("utf-8").split("## Withholding the solutions")[1]
    recipe = guide.split("```")[1]
    copy.mkdir()
    assert shell(recipe, clone)[0] != 0
    assert (clone / "solutions").is_dir() and shell("git status --short", clone) == (0, "")
    copy.rmdir()
    assert shell(recipe, clone)[0] == 0
    assert (clone / "solutions").is_dir() and shell("git status --short", copy) == (0, "")
    for target in ("test", "exercises"):
        assert "solutions" in shell(f"make -n {target}", clone)[1]
        code, said = shell(f"make -n {target}", copy)
        assert code == 0 and "solutions" not in said


# The checks


@every_exercise
def test_the_solution_passes(exercise):
    solution = defined(exercise, exercise.solution)
    check(exercise, "visible", solution)
    check(exercise, "hidden", solution)


@every_exercise
def test_the_stub_fails_as_not_implemented_and_in_no_other_way(exercise):
    path = ROOT / "exercises" / exercise.assignment / f"{exercise.assignment}.ipynb"
    (stub,) = [cell["source"] for cell in cells(path) if grade_id(cell) == exercise.name]
    for which in ("visible", "hidden"):
        with pytest.raises(NotImplementedError):
            check(exercise, which, defined(exercise, stub))


@every_exercise
def test_right_answers_written_differently_pass(exercise):
    right = [function for label, function in answers(exercise).items() if label.startswith("right")]
    assert right
    for function in right:
        check(exercise, "visible", function)
        check(exercise, "hidden", function)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # they overflow
@every_exercise
def test_wrong_answers_fail_and_hear_why(exercise):
    wrong = {label: f for label, f in answers(exercise).items() if not label.startswith("right")}
    caught = {label: failure(exercise, "visible", function) for label, function in wrong.items()}
    late = [label for label in wrong if caught[label] is None and failure(exercise, "hidden", wrong[label]) is None]
    assert late == [], "these wrong answers pass both checks"
    seen = [error for error in caught.values() if error is not None]
    assert len(wrong) >= 4 and len(seen) >= 3
    for error in seen:  # the student reads a sentence, not a traceback from inside the check
        assert isinstance(error, AssertionError) and len(str(error)) > 20, repr(error)
    for function in wrong.values():
        assert inspect.getdoc(function) and "Belief:" in inspect.getdoc(function)


def spoilt(value):
    """NaN for numbers, nothing for text and lists: what must satisfy no comparison."""
    if isinstance(value, torch.Tensor):
        return torch.full_like(value, torch.nan) if value.is_floating_point() else ~value
    if isinstance(value, np.ndarray):
        return np.full_like(value, np.nan) if value.dtype.kind == "f" else ~value
    if isinstance(value, tuple | list | dict):
        return type(value)(map(spoilt, value)) if isinstance(value, tuple) else type(value)()
    return float("nan") if isinstance(value, float) else None


@every_exercise
def test_nan_and_nothing_never_pass(exercise):
    solution = defined(exercise, exercise.solution)
    for answer in (lambda *a, **k: spoilt(solution(*a, **k)), lambda *a, **k: None):
        for which in ("visible", "hidden"):
            assert failure(exercise, which, answer) is not None, f"the {which} check let it pass"


def each(change: Callable, value):
    """The same, with `change` made to every tensor and number in it."""
    if isinstance(value, tuple | list):
        return type(value)(each(change, part) for part in value)
    return change(value)


OTHERWISE = {
    "nothing, where return is forgotten": lambda value: None,
    "float32, as torch.zeros is": lambda value: each(
        lambda x: x.float() if isinstance(x, torch.Tensor) and x.dtype == torch.float64 else x, value
    ),
    "tensors for floats": lambda value: each(lambda x: torch.tensor(x) if isinstance(x, float) else x, value),
    "float32 arrays": lambda value: each(
        lambda x: x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype == np.float64 else x, value
    ),
    "lists for arrays": lambda value: each(lambda x: x.tolist() if isinstance(x, np.ndarray) else x, value),
    "NumPy's numbers": lambda value: each(lambda x: np.asarray(x)[()] if type(x) in (int, float) else x, value),
    "without gradient": lambda value: each(lambda x: x.detach() if isinstance(x, torch.Tensor) else x, value),
}


@pytest.mark.parametrize("kind", OTHERWISE)
@every_exercise
def test_right_numbers_of_a_wrong_type_hear_a_sentence_if_they_are_refused(exercise, kind):
    solution = defined(exercise, exercise.solution)
    error = failure(exercise, "visible", lambda *a, **k: OTHERWISE[kind](solution(*a, **k)))
    assert error is None or (isinstance(error, AssertionError) and len(str(error)) > 20), repr(error)
    if error is None:  # then a student has every reason to hand it in
        check(exercise, "hidden", lambda *a, **k: OTHERWISE[kind](solution(*a, **k)))
    if error is not None and kind == "tensors for floats":
        assert re.search("float|Tensor", str(error)), f"it says that the value is wrong, and not the type: {error}"


SCALAR = "isinstance(got, torch.Tensor) and got.shape == ()"


@pytest.mark.parametrize("exercise", [e for e in EXERCISES if SCALAR in e.visible], ids=repr)
def test_what_came_in_place_of_a_scalar_tensor_is_named(exercise):
    solution = defined(exercise, exercise.solution)
    a_float = failure(exercise, "visible", lambda *a, **k: float(solution(*a, **k)))
    a_row = failure(exercise, "visible", lambda *a, **k: solution(*a, **k)[None])
    assert "Yours: float" in str(a_float) and "Yours: Tensor torch.Size([1])" in str(a_row)


def test_the_proof_counts_what_checks_let_pass(monkeypatch, capsys):
    """Of one exercise whose visible check looks at nothing and whose hidden one looks at little."""
    sure = "assert answer(1) == 2, 'One and one are two.'\n"
    weak = proof.Exercise("99_anything", "answer", "", [], "def answer(x):\n    return x + 1", "pass", sure, 1)
    known = {
        "right_by_hand": lambda x: 1 + x, "right_but_refused": lambda x: 3,
        "wrong_caught": lambda x: x, "wrong_missed": lambda x: 2,
    }  # fmt: skip
    for function in known.values():
        function.__doc__ = "Adds. Belief: none."
    monkeypatch.setattr(proof, "answers", lambda exercise: known)
    assert proof.prove(weak) == proof.Proof(1, 2, visible=0, hidden=1, missed=1, accepted=1, refused=1)
    assert "hidden: One and one are two." in proof.messages(weak) and "missed" in proof.messages(weak)


def test_the_skeleton_of_an_exercise_is_one(tmp_path):
    add_exercise = load_module(ROOT / "solutions" / "add_exercise.py").add_exercise
    for name in ("first", "the_second"):
        path = add_exercise("99_anything", name, tmp_path)
    exercises, written = proof.read_exercises(path)
    assert written == []
    assert [exercise.name for exercise in exercises] == ["first", "the_second"]
    for exercise in exercises:
        test_a_student_is_told_what_to_do(exercise)
        test_the_solution_passes(exercise)
        test_nan_and_nothing_never_pass(exercise)
    with pytest.raises(SystemExit, match="already"):
        add_exercise("99_anything", "first", tmp_path)


@every_exercise
def test_every_check_says_what_is_wrong(exercise):
    for source in (exercise.visible, exercise.hidden):
        assert all(node.msg for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert))


def test_no_check_imports_an_answer():
    for exercise in EXERCISES:
        for source in (exercise.visible, exercise.hidden):
            nodes = list(ast.walk(ast.parse(source)))
            modules = {
                alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names
            }
            modules |= {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
            assert modules <= {*sys.stdlib_module_names, "torch", "numpy", "sklearn", "minclip"}


# nbgrader


@pytest.mark.filterwarnings("ignore:Object of type")  # of nbgrader's own data base
def test_nbgrader_assigns_grades_and_returns(tmp_path, monkeypatch):
    """A student solves the first exercise, half of the second, none of the rest but one answer in words, and meddles
    with a check."""
    pytest.importorskip("nbgrader", reason="nbgrader comes with the instructor extra")
    from nbgrader.api import Gradebook
    from traitlets.config import PyFileConfigLoader

    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # nbgrader calls alembic
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    name = "04_the_contrastive_loss"
    first, second, third, *_ = (e for e in EXERCISES if e.assignment == name)
    in_words = next(e for e in WRITTEN if e.assignment == name)
    source = tmp_path / "solutions" / name
    source.mkdir(parents=True)
    (source / f"{name}.ipynb").write_bytes((ROOT / "solutions" / name / f"{name}.ipynb").read_bytes())
    api = load_module(ROOT / "solutions" / "generate.py").course(tmp_path)
    api.config.merge(PyFileConfigLoader("nbgrader_config.py", str(ROOT / "solutions")).load_config())

    def succeed(result):
        assert result["success"], result.get("error", "") + result["log"]

    succeed(api.generate_assignment(name))
    submission = json.loads((tmp_path / "exercises" / name / f"{name}.ipynb").read_text("utf-8"))
    half_right = next(f for label, f in answers(second).items() if passes_in_part(second, label, f))
    for cell in submission["cells"]:
        if grade_id(cell) == first.name:
            cell["source"] = first.solution
        if grade_id(cell) == second.name:
            cell["source"] = inspect.getsource(half_right).replace(half_right.__name__, second.name)
        if grade_id(cell) == f"{third.name}-visible":
            cell["source"] = "print('all well')"
        if grade_id(cell) == in_words.name:
            cell["source"] = "The loss of guessing among N."
    handed_in = tmp_path / "submitted" / "ada" / name
    handed_in.mkdir(parents=True)
    (handed_in / f"{name}.ipynb").write_text(json.dumps(submission), "utf-8")

    succeed(api.autograde(name, "ada"))
    succeed(api.generate_feedback(name, "ada"))

    visible = {
        grade_id(cell): cell["metadata"]["nbgrader"].get("points") for cell in submission["cells"] if grade_id(cell)
    }
    with Gradebook(api.coursedir.db_url) as gradebook:
        submitted = gradebook.find_submission(name, "ada")
        got = {grade.name: grade.auto_score for grade in submitted.notebooks[0].grades if grade.auto_score}
        assert submitted.max_score == sum(points for points in visible.values() if points)
        (by_hand,) = (grade for grade in submitted.notebooks[0].grades if grade.name == in_words.name)
        assert by_hand.needs_manual_grade and by_hand.auto_score is None and by_hand.max_score == in_words.points
    assert got == {
        f"{first.name}-visible": visible[f"{first.name}-visible"],
        f"{first.name}-hidden": visible[f"{first.name}-hidden"],
        f"{second.name}-visible": visible[f"{second.name}-visible"],
    }
    (feedback,) = (tmp_path / "feedback" / "ada" / name).glob("*.html")
    said = unescape(re.sub("<[^>]*>", "", feedback.read_text("utf-8")))
    assert f"check_{second.name}({second.name})" in said
    assert str(failure(second, "hidden", half_right)) in said  # the sentence, and not the check
    assert "HIDDEN TESTS" not in said and f"check_{second.name}_further" not in said


def passes_in_part(exercise: Exercise, label: str, function: Callable) -> bool:
    """Wrong in what the hidden check alone looks at, and written with nothing but torch."""
    alone = not re.search(r"\b(_\w+|minclip)\(", inspect.getsource(function))
    return alone and not label.startswith("right") and failure(exercise, "visible", function) is None
