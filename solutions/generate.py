"""Makes exercises/ from solutions/ with nbgrader's own preprocessors: `make exercises`.

The same as `nbgrader generate_assignment NAME --no-db --force` for each assignment.
"""

import sys
from pathlib import Path

from nbgrader.apps import NbGraderAPI
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent


def assignments(root: Path = ROOT) -> list[str]:
    """Names of the folders in solutions/ that hold a notebook of their own name."""
    return sorted(path.stem for path in (root / "solutions").glob("*/*.ipynb") if path.stem == path.parent.name)


def course(root: Path, **settings: str) -> NbGraderAPI:
    """nbgrader over a course that lies in `root`, in this repository's names of folders."""
    config = Config()
    config.CourseDirectory.root = str(root)
    config.CourseDirectory.source_directory = "solutions"
    config.CourseDirectory.release_directory = "exercises"
    config.CourseDirectory.merge(settings)
    config.NbGraderAPI.log_level = "ERROR"
    return NbGraderAPI(config=config)


def generate(destination: Path = ROOT / "exercises") -> list[str]:
    """Write every assignment's student version below `destination`; returns their names.

    Raises RuntimeError, with nbgrader's own words, when it refuses a notebook.
    """
    api = course(ROOT, release_directory=str(destination))
    api.config.GenerateAssignment.no_database = True
    api.config.SaveCells.enabled = False
    for name in assignments():
        result = api.generate_assignment(name)
        if not result["success"]:
            raise RuntimeError(f"{name}: {result.get('error', '')}{result['log']}")
    return assignments()


if __name__ == "__main__":
    print("\n".join(generate()), file=sys.stderr)
