"""Makes book/ (or the folder that is named) from the notebooks and the exercises: `make book`, then open book/index.html.

Pages are files: no server, no script, no network. nbconvert's HTML exporter writes the cells;
formulas become MathML here, which browsers draw by themselves, so that nothing is fetched from
elsewhere. A cell's `alt` becomes its picture's alternative text.
"""

import argparse
import re
import shutil
from pathlib import Path

import latex2mathml.converter
import nbformat
from jinja2 import Environment, FileSystemLoader
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).resolve().parent.parent
PAGE = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=False).get_template("page.html.j2")
COLOURS = {
    scheme: HtmlFormatter(style=style).get_style_defs(".highlight")
    for scheme, style in (("light", "default"), ("dark", "github-dark"))
}


def mathml(tex: str, display: str) -> str:
    """A formula in TeX -> a MathML element."""
    tex = re.sub(r"\\operatorname(\*?)", r"\\operatorname", tex.strip())
    tex = tex.replace("{,}", "\\text{,}")  # in a number: no space behind it
    tex = re.sub(r"(\\(?:log|ln|exp|max|min)) *(?=[a-zA-Z]|\\(?!left|big))", r"\1\\, ", tex)
    return latex2mathml.converter.convert(tex, display=display)


class Renderer(IPythonRenderer):
    """nbconvert's, with formulas as MathML, and tables that scroll where the page is narrow."""

    def inline_math(self, body: str) -> str:
        formula = mathml(body, "inline")  # browsers do not break it, so a long one scrolls by itself
        return f'<span class="scroll">{formula}</span>' if len(body) > 24 else formula

    def block_math(self, body: str) -> str:
        return f'<div class="scroll">{mathml(body, "block")}</div>'

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def table(self, text: str) -> str:
        return f'<div class="scroll"><table>{text}</table></div>'


def to_html(source: str) -> str:
    return MarkdownWithMath(renderer=Renderer(escape=False)).render(source)


def cells_as_html(path: Path) -> tuple[str, str]:
    """A notebook -> the text of its first heading, and all cells as HTML."""
    notebook = nbformat.read(path, as_version=4)
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.register_filter("markdown2html", to_html)
    exporter.register_preprocessor("nbconvert.preprocessors.CoalesceStreamsPreprocessor", enabled=True)
    body, _ = exporter.from_notebook_node(notebook)
    title = notebook.cells[0].source.split("\n")[0].removeprefix("# ")
    return title, re.sub(r'(href="[^":]*)\.ipynb"', r'\1.html"', body)


def question(path: Path) -> str:
    """What a lesson asks, from its first cell, as HTML."""
    opening = nbformat.read(path, as_version=4).cells[0].source
    found = re.search(r"\*\*The question\.\*\*(.+?)\n\n", opening, re.DOTALL)
    return to_html(found[1].strip()) if found else ""


def write(path: Path, title: str, body: str, top: str, links: list[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PAGE.render(title=title, body=body, top=top, links=links, colours=COLOURS), "utf-8")


def make_book(folder: Path, root: Path = ROOT) -> list[Path]:
    """Write all pages below `folder`; returns their paths, the index first. An older book in it is taken away.

    Raises SystemExit where the folder holds anything else.
    """
    lessons, pages = sorted((root / "notebooks").glob("*.ipynb")), [folder / "index.html"]
    if folder.exists() and any(folder.iterdir()) and not pages[0].exists():
        raise SystemExit(f"{folder} is not empty, and no book is in it. Name another folder.")
    shutil.rmtree(folder, ignore_errors=True)
    entries = []
    for place, path in enumerate(lessons):
        title, body = cells_as_html(path)
        neighbours = [
            (f"{lessons[other].stem}.html", words)
            for other, words in ((place - 1, "← the lesson before"), (place + 1, "the next lesson →"))
            if 0 <= other < len(lessons)
        ]
        page = folder / "notebooks" / f"{path.stem}.html"
        write(page, title, body, "../index.html", neighbours)
        exercise = root / "exercises" / path.stem / path.name
        link = f' <a href="exercises/{path.stem}/{path.stem}.html">Exercises</a>' if exercise.exists() else ""
        entries.append(f'<h2><a href="notebooks/{path.stem}.html">{title}</a></h2>\n{question(path)}\n<p>{link}</p>')
        pages.append(page)
    for path in sorted((root / "exercises").glob("*/*.ipynb")):
        title, body = cells_as_html(path)
        page = folder / "exercises" / path.parent.name / f"{path.stem}.html"
        write(page, title, body, "../../index.html", [])
        pages.append(page)
    heading = "<h1>minclip</h1>\n<p>Build CLIP from nothing, train it, and measure every claim made for it.</p>\n"
    write(pages[0], "minclip", heading + "\n".join(entries), "", [])
    return pages


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "book")
    print(make_book(parser.parse_args().folder)[0])
