"""Appends the skeleton of an exercise to an assignment, which it begins if need be:

    python solutions/add_exercise.py 08_why_contrastive words_in_common

Then fill in what stands in capitals, run the notebook in order, and go on as README.md says.
"""

from pathlib import Path

import nbformat
import tyro
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

TEXT = """## N. TITLE

**Goal.** ONE SENTENCE.

**Why it matters.** TWO SENTENCES.

Difficulty 1 of 5. About 10 minutes. 3 points.

<details><summary>Hint 1</summary>

WHERE TO LOOK.

</details>
<details><summary>Hint 2</summary>

NEARLY EVERYTHING.

</details>"""

ANSWER = '''def NAME(x: torch.Tensor) -> torch.Tensor:
    """WHAT IT RETURNS.

    x: SHAPE
    """
    ### BEGIN SOLUTION
    return x
    ### END SOLUTION'''

VISIBLE = """import torch


def check_NAME(answer):
    def slow(numbers):
        return numbers

    got, want = answer(torch.ones(3)), torch.tensor(slow([1.0, 1.0, 1.0]))
    assert isinstance(got, torch.Tensor) and torch.allclose(got, want), f"EXPECTED {want}, GOT {got}. LIKELY MISTAKE."
    print("NAME: the visible checks pass.")


check_NAME(NAME)"""

HIDDEN = """# More checks run here once you have handed in.
### BEGIN HIDDEN TESTS
import torch


def check_NAME_further(answer):
    got = answer(torch.zeros(3))
    assert isinstance(got, torch.Tensor) and torch.equal(got, torch.zeros(3)), "LIKELY MISTAKE."


check_NAME_further(NAME)
### END HIDDEN TESTS"""


def add_exercise(assignment: str, function: str, solutions: Path = Path(__file__).parent) -> Path:
    """Append an exercise.

    Args:
        assignment: name of the notebook, such as 04_the_contrastive_loss
        function: name of the function that a student writes
        solutions: folder of the assignments
    """
    path = solutions / assignment / f"{assignment}.ipynb"
    if path.exists():
        notebook = nbformat.read(path, as_version=4)
    else:
        kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
        notebook = new_notebook(metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
        title = new_markdown_cell(f"# {assignment[:2]} Exercises: TITLE", id="title")
        notebook.cells = [title, new_code_cell("import torch", id="imports")]
    taken = {cell["id"] for cell in notebook.cells}
    slug = function.replace("_", "-")
    if slug in taken:
        raise SystemExit(f"{path} has an exercise {function} already.")

    def graded(kind: str, source: str, **metadata):
        about = {"schema_version": 3, "grade_id": f"{function}{kind}", "task": False, **metadata}
        return new_code_cell(source.replace("NAME", function), id=f"{slug}{kind}", metadata={"nbgrader": about})

    notebook.cells += [
        new_markdown_cell(TEXT, id=f"{slug}-text"),
        graded("", ANSWER, grade=False, solution=True, locked=False),
        graded("-visible", VISIBLE, grade=True, solution=False, locked=True, points=2),
        graded("-hidden", HIDDEN, grade=True, solution=False, locked=True, points=1),
    ]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)
    return path


if __name__ == "__main__":
    print(tyro.cli(add_exercise))
