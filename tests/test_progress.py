"""`python -m minclip progress`: what it says of a notebook half done, and that it leaves it as it was."""

import json
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minclip import cli, progress

ROOT = Path(__file__).resolve().parent.parent
NAME = "06_zero_shot"


@pytest.fixture
def half_done(tmp_path) -> Path:
    """One exercise right, one wrong, one that raises, one untouched; an answer in words; a broken cell of the student's own."""
    folder = tmp_path / "exercises"
    shutil.copytree(ROOT / "exercises" / NAME, folder / NAME)
    path = folder / NAME / f"{NAME}.ipynb"
    notebook = json.loads(path.read_text("utf-8"))
    answers = {
        "class_probabilities": "def class_probabilities(image_features, class_features, logit_scale):\n"
        "    cosines = F.cosine_similarity(image_features[:, None], class_features[None], dim=-1)\n"
        "    return (logit_scale * cosines).softmax(dim=1)",
        "ensemble_classifier": "def ensemble_classifier(encode_text, class_names, templates):\n    return no_such_name",
        "top_k_accuracy": "def top_k_accuracy(scores, labels, k):\n    return 0.0",
        "class_lists_in_words": "(a) It can only fall.",
    }
    for cell in notebook["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id")
        cell["source"] = answers.get(name, cell["source"])
    own = {
        "cell_type": "code",
        "metadata": {},
        "source": "%time 1 / 0\n",
        "outputs": [],
        "execution_count": None,
        "id": "own",
    }
    notebook["cells"].insert(3, own)
    path.write_text(json.dumps(notebook), "utf-8")
    return folder


def test_progress_tells_each_exercise_and_changes_nothing(half_done, tmp_path, capsys):
    path = half_done / NAME / f"{NAME}.ipynb"
    before = path.read_bytes()
    assert cli.main(["progress", str(half_done), "--json", str(tmp_path / "progress.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "06 zero shot: 2 of 7"
    assert [line.split(maxsplit=1)[0] for line in lines[1:]] == [
        "class_probabilities", "ensemble_classifier", "top_k_accuracy", "recall_at_k", "class_lists_in_words",
        "predicted_accuracy", "reading_a_claim_in_words",
    ]  # fmt: skip
    states = {
        e["name"]: (e["state"], e["why"]) for e in json.loads((tmp_path / "progress.json").read_text())["exercises"]
    }
    assert states["class_probabilities"] == ("passes", "")
    assert states["recall_at_k"] == ("to do", "") and states["class_lists_in_words"] == ("written", "")
    assert states["top_k_accuracy"][0] == "fails" and "top-1 accuracy is 0.25, not 0.0" in states["top_k_accuracy"][1]
    assert states["ensemble_classifier"] == ("fails", "NameError: name 'no_such_name' is not defined")
    assert path.read_bytes() == before and [p for p in half_done.rglob("*") if p.is_file()] == [path]


def test_a_folder_of_one_assignment_will_do(half_done, capsys, monkeypatch):
    kept = half_done / NAME / ".ipynb_checkpoints"
    kept.mkdir()
    shutil.copy(half_done / NAME / f"{NAME}.ipynb", kept / f"{NAME}-checkpoint.ipynb")
    assert cli.main(["progress", str(half_done / NAME)]) == 0
    of_the_folder = capsys.readouterr().out
    assert of_the_folder.splitlines()[0] == "06 zero shot: 2 of 7" and of_the_folder.count("06 zero shot") == 1
    path = half_done / NAME / f"{NAME}.ipynb"
    assert progress.find_notebooks(half_done) == progress.find_notebooks(path) == [path]
    monkeypatch.chdir(half_done / NAME)
    assert progress.find_notebooks(Path(".")) == [Path(f"{NAME}.ipynb")]


PROJECTS = ROOT / "exercises" / "projects"


@pytest.mark.parametrize("place", [None, PROJECTS, PROJECTS / "1_your_own_data" / "starter.ipynb"], ids=str)
def test_a_place_without_exercises_gets_a_sentence(tmp_path, capsys, place, monkeypatch):
    monkeypatch.setattr(progress, "run_notebook", lambda path: pytest.fail(f"{path} was run"))
    assert cli.main(["progress", str(place or tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("minclip: No ") and said.err.count("\n") == 1 and said.out == ""


def test_a_notebook_of_the_students_own_is_passed_over(half_done, capsys):
    cell = {"cell_type": "code", "metadata": {}, "source": "1 / 0", "outputs": []}
    (half_done / "my_own.ipynb").write_text(json.dumps({"cells": [cell]}))
    assert cli.main(["progress", str(half_done)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "06 zero shot: 2 of 7"


def test_every_state_stands_in_its_column():
    names = [cell["metadata"].get("nbgrader", {}).get("grade_id", "") for path in (ROOT / "exercises").glob("*/*.ipynb")
             for cell in json.loads(path.read_text("utf-8"))["cells"]]  # fmt: skip
    names = [name for name in names if not name.endswith(("-visible", "-hidden"))]
    lines = progress.as_text([progress.Exercise("any", name, "to do") for name in names]).splitlines()[1:]
    assert len(names) > 60 and {line.index(" to do") for line in lines} == {29}


@pytest.mark.parametrize("content", ["not json", "{}", '{"cells": [1]}'])
def test_a_damaged_notebook_is_named_and_the_others_are_told(half_done, capsys, content):
    (half_done / "07_cut_off.ipynb").write_text(content)
    assert cli.main(["progress", str(half_done)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "06 zero shot: 2 of 7" in lines
    line = lines[lines.index("07 cut off: damaged") + 1]
    assert line.startswith("  the whole file              damaged  no notebook, or one cut off (")


def small_notebook(path: Path, answer: str) -> list[tuple[str, str]]:
    """State and why of two exercises: `first`, answered as given, and `second`, which is right."""
    cells = []
    for name, source in (("first", answer), ("second", "def second():\n    return 2")):
        value = 1 if name == "first" else 2
        check = f"assert {name}() == {value}, 'Not {value}.'"
        for grade_id, text in ((name, source), (f"{name}-visible", check)):
            grading = {"grade_id": grade_id, "solution": grade_id == name}
            cells.append({"cell_type": "code", "metadata": {"nbgrader": grading}, "source": text})
    path.write_text(json.dumps({"cells": cells}), "utf-8")
    return [(exercise.state, exercise.why) for exercise in progress.run_notebook(path)]


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no alarm on Windows")
@pytest.mark.parametrize(
    "answer",
    [
        "def first():\n    while True:\n        pass",
        "while True:\n    try:\n        x = 1\n    except Exception:\n        pass",
    ],
    ids=["in the function", "in its cell"],
)
def test_an_endless_answer_is_cut_off_and_the_next_is_told(tmp_path, monkeypatch, answer):
    monkeypatch.setattr(progress, "SECONDS_A_CELL", 1)
    before = signal.getsignal(signal.SIGALRM)
    assert small_notebook(tmp_path / "a.ipynb", answer) == [("fails", "ran past 1 s"), ("passes", "")]
    assert signal.getsignal(signal.SIGALRM) is before and signal.alarm(0) == 0


@pytest.mark.parametrize(
    "line",
    ["%matplotlib inline", "exit()", "quit()", "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1])"],
)
def test_what_jupyterlab_understands_does_no_harm(tmp_path, line):
    answer = f"{line}\ndef first():\n    return 1"
    assert small_notebook(tmp_path / "a.ipynb", answer) == [("passes", ""), ("passes", "")]


def test_outside_the_main_thread_there_is_no_limit_and_no_error(tmp_path):
    with ThreadPoolExecutor(1) as other:
        told = other.submit(small_notebook, tmp_path / "a.ipynb", "def first():\n    return 1").result()
    assert told == [("passes", ""), ("passes", "")]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("# mine\ndef first()\n    return 1", "SyntaxError: expected ':' (line 2)"),
        ("def first():\nreturn 1", "IndentationError: expected an indented block after function definition on line 1"),
        (
            "import no_such_package\ndef first():\n    return 1",
            "ModuleNotFoundError: No module named 'no_such_package'",
        ),
        ("def frist():\n    return 1", "NameError: name 'first' is not defined"),
        ("def first():\n    return 3\nfirst(1)", "Not 1."),
    ],
)
def test_an_answer_that_cannot_be_run_is_told_its_own_error(tmp_path, answer, why):
    (state, told), second = small_notebook(tmp_path / "a.ipynb", answer)
    assert state == "fails" and told.startswith(why) and second == ("passes", "")
