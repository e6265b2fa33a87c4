"""What nbval does not look at: a cell that was never executed passes it, whatever it holds."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("solutions/*/*.ipynb")])
LESSONS = [path for path in NOTEBOOKS if path.parent.name == "notebooks"]


def read(path: Path) -> list[dict]:
    return json.loads(path.read_text())["cells"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_was_executed_once_in_order(path):
    cells = [cell for cell in read(path) if cell["cell_type"] == "code" and source(cell).strip()]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        expected = "raises-exception" in cell["metadata"].get("tags", [])
        errors = [output for output in cell["outputs"] if output["output_type"] == "error"]
        assert bool(errors) == expected, source(cell)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_stored_belongs_to_one_machine(path):
    text = path.read_text()
    assert not re.search(r"(/(home|root|Users|tmp)/|0x[0-9a-f]{8,})", re.sub(r'"image/png": "[^"]*"', "", text))
    assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_argues_in_prose(path):
    cells = read(path)
    prose = [source(cell) for cell in cells if cell["cell_type"] == "markdown"]
    assert len(prose) >= len(cells) / 2
    assert prose[0].startswith("# ")
    pictures = [
        c for c in cells if c["cell_type"] == "code" and any("image/png" in o.get("data", {}) for o in c["outputs"])
    ]
    assert pictures
