"""What nbval does not look at: form, links, and whether a cell was executed at all."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LESSONS = sorted(ROOT.glob("notebooks/*.ipynb"))
NOTEBOOKS = [*LESSONS, *sorted(ROOT.glob("solutions/*/*.ipynb"))]
EXERCISES = sorted(ROOT.glob("exercises/*/*.ipynb"))
CLOSING = ["What we found", "What the paper found", "Three questions to think about", "Your turn"]
AMERICAN = r"\b(colors?|colored|gray|behavior|center(ed)?|neighbors?|labeled|modeling|(normal|general|memor|organ|summar)iz\w+)\b"


def read(path: Path) -> list[dict]:
    return json.loads(path.read_text())["cells"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def code(path: Path) -> list[dict]:
    return [cell for cell in read(path) if cell["cell_type"] == "code" and source(cell).strip()]


def prose(path: Path) -> list[str]:
    return [source(cell) for cell in read(path) if cell["cell_type"] == "markdown"]


def headings(path: Path) -> list[tuple[int, str]]:
    """(level, text) of each; what stands in a fence is none."""
    text = re.sub(r"^```.*?^```", "", "\n".join(prose(path)), flags=re.MULTILINE | re.DOTALL)
    return [(len(marks), title.strip()) for marks, title in re.findall(r"^(#+) (.*)$", text, re.MULTILINE)]


def prints(cell: dict) -> bool:
    """Whether a print stands in the cell where it must run: at its top level, or in a loop or a `with` there."""
    body = [line for line in source(cell).split("\n") if not line.startswith(("%", "!"))]
    nodes = list(ast.parse("\n".join(body)).body)
    for node in nodes:
        if isinstance(node, ast.For | ast.With):
            nodes += node.body
    return any(
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "id", "") == "print"
        for node in nodes
    )


each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


@each_notebook
def test_every_cell_was_executed_once_in_order(path):
    cells = code(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        errors = [output for output in cell["outputs"] if output["output_type"] == "error"]
        assert bool(errors) == ("raises-exception" in tags(cell)), source(cell)
        assert cell["outputs"] or not prints(cell), f"prints, and holds no output:\n{source(cell)}"


@each_notebook
def test_outputs_are_compared_unless_a_cell_says_why_not_and_a_bound_follows(path):
    cells = code(path)
    for cell, following in zip(cells, [*cells[1:], None]):
        assert "nbval-skip" not in tags(cell)
        if "nbval-ignore-output" in tags(cell):
            assert source(cell).startswith("# Tagged: "), source(cell)
            asserts = "assert " in source(cell) or (following is not None and "assert " in source(following))
            assert asserts or "# Tagged: see above." in source(cell), source(cell)


@each_notebook
def test_nothing_stored_belongs_to_one_machine(path):
    text = path.read_text()
    assert not re.search(r"(/(home|root|Users|tmp)/|0x[0-9a-f]{8,})", re.sub(r'"image/png": "[^"]*"', "", text))
    assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize("path", [*NOTEBOOKS, *EXERCISES], ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(prose(path))):
        if not target.startswith(("http", "#", "attachment:")):
            assert (path.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("path", [*NOTEBOOKS, *EXERCISES], ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_words_are_spelt_the_british_way(path):
    quoted = r"```.*?```|`[^`]*`|\$[^$]*\$|\"[^\"]*\""
    text = re.sub(quoted, "", "\n".join(prose(path)), flags=re.DOTALL)
    assert not re.findall(AMERICAN, text, re.IGNORECASE)


def test_lessons_are_numbered_without_a_gap():
    titles = [prose(path)[0].split("\n")[0] for path in LESSONS]
    assert [path.stem[:3] for path in LESSONS] == [f"{number:02}_" for number in range(14)]
    assert [title[:7] for title in titles] == [f"# {number:02} · " for number in range(14)]


@each_lesson
def test_a_lesson_opens_with_its_question_and_closes_with_its_answers(path):
    opening, titles = prose(path)[0], [title for _, title in headings(path)]
    parts = ("**The question.**", "**What you will be able to do**", "**Time**", "**Needs**", "**Paper**")
    assert [part for part in parts if part not in opening] == []
    found = [title for title in titles if any(part.lower() in title.lower() for part in CLOSING)]
    together = ", ".join(found)  # "What we found, and what the paper found" is both
    assert titles[-len(found) :] == found and all(part.lower() in together.lower() for part in CLOSING)
    questions = "\n".join(prose(path)).split(CLOSING[2])[1].split("\n## ")[0]
    assert re.findall(r"^(\d)\. ", questions, re.MULTILINE) == ["1", "2", "3"]
    number = path.stem[:2]
    assert number == "00" or f"../exercises/{path.stem}/{path.stem}.ipynb" in prose(path)[-1]


@each_lesson
def test_a_lesson_argues_in_prose_and_asks_for_predictions(path):
    assert len(prose(path)) >= len(read(path)) / 2
    assert len(re.findall(r"\bpredict", "\n".join(prose(path)), re.IGNORECASE)) >= 3
    levels = [level for level, _ in headings(path)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(deeper <= level + 1 for level, deeper in zip(levels, levels[1:]))


@each_lesson
def test_pictures_are_described_and_captions_are_numbered(path):
    pictures = [cell for cell in code(path) if any("image/png" in out.get("data", {}) for out in cell["outputs"])]
    assert pictures
    for cell in pictures:
        assert len(cell["metadata"].get("alt", "")) > 20, source(cell)
    captions = re.findall(r"^\*Figures? (\d+)(?: (?:to|and) (\d+))?\.", "\n".join(prose(path)), re.MULTILINE)
    numbers = [n for first, last in captions for n in range(int(first), int(last or first) + 1)]
    assert numbers == list(range(1, len(numbers) + 1))


@each_lesson
def test_cells_are_short(path):
    lines = [source(cell).split("\n") for cell in code(path)]
    assert max(len(line) for cell in lines for line in cell) <= 88
    assert max(map(len, lines)) <= 25 and sum(len(cell) > 20 for cell in lines) <= len(lines) / 10


# The other side: what is stored must matter.

ALTERED = ("02_reading_text", "05_training", "09_why_a_vision_transformer")


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_number_is_noticed(name, tmp_path):
    """A copy up to its first compared number passes nbval, and fails once a digit of that number is another."""
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
    for place, cell in enumerate(notebook["cells"]):
        streams = [out for out in cell.get("outputs", []) if out["output_type"] == "stream"]
        text = "".join(streams[0]["text"]) if streams else ""
        if re.search(r"\d", text) and "nbval-ignore-output" not in tags(cell):
            notebook["cells"] = notebook["cells"][: place + 1]
            break
    altered = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), text, count=1)
    for kind, stored in (("as-it-is", text), ("altered", altered)):
        streams[0]["text"] = stored
        (tmp_path / f"{kind}.ipynb").write_text(json.dumps(notebook))
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-q", "-rf", tmp_path],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    ).stdout  # fmt: skip
    failed = re.findall(r"^FAILED (\S+?)::", said, re.MULTILINE)
    assert failed == ["altered.ipynb"], said
