"""The order in which the README has the package read: nothing imports what comes after it."""

import ast
import re
from pathlib import Path

import pytest

import minclip

ROOT = Path(__file__).parent.parent
TABLE = re.findall(r"^\| (`[^|]+`) \|", (ROOT / "README.md").read_text().partition("## The package")[2], re.MULTILINE)


def order_of_the_readme() -> list[str]:
    """Modules as paths below minclip/, a folder for all that is in it; a bare name lies beside the one before it."""
    order = []
    for row in TABLE:
        folder = ""
        for name in re.findall(r"`([^`]+)`", row):
            if name.startswith("minclip/"):
                name = name.removeprefix("minclip/")
                folder = name.rpartition("/")[0]
                order.append(name.rstrip("/").removesuffix(".py"))
            else:
                order.append(f"{folder}/{name}".lstrip("/").removesuffix(".py"))
    return order


def order_of_the_package() -> list[str]:
    return re.search(r"in this order: (.+?)\.\n", minclip.__doc__, re.DOTALL)[1].split(",")


@pytest.mark.parametrize("told", (order_of_the_readme, order_of_the_package))
def test_imports_point_upwards_only(told):
    order = [name.strip() for name in told()]
    assert len(order) > 20
    for place, name in enumerate(order):
        path = ROOT / "minclip" / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
            later = imported(file) & set(order[place + 1 :])
            assert not later, f"{file.relative_to(ROOT)} imports {later}, which are read after it"


def imported(file: Path) -> set[str]:
    """The package's own modules that a file imports, and the folders they lie in."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = file.parents[node.level - 1].relative_to(ROOT / "minclip")
            module = folder.joinpath(*(node.module or "").split("."))
            names = {module.as_posix(), *((module / alias.name).as_posix() for alias in node.names)}
            found |= {parent for name in names for parent in (name, name.rpartition("/")[0]) if parent}
    return found
