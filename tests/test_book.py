"""`make book`: pages that open from the disk, at the width of a desk and of a hand, with nothing left unrendered."""

import html
import importlib.util
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WIDTHS = (390, 1280)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

# Each page in a frame of a given width; what sticks out of it, and how many formulas take no room.
HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body><script>
const pages = PAGES, widths = WIDTHS, found = [];
async function measure(page, width) {
  const frame = document.createElement("iframe");
  frame.style = `border: 0; width: ${width}px; height: 800px`;
  frame.src = page;
  await new Promise(loaded => { frame.onload = loaded; document.body.append(frame); });
  const inside = frame.contentDocument, formulas = [...inside.querySelectorAll("math")];
  const boxes = [...inside.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .output_png, pre, math, details"));
  found.push({page, width, scroll: inside.documentElement.scrollWidth,
              wide: boxes.filter(e => e.getBoundingClientRect().right > width + 1).map(e => e.outerHTML.slice(0, 120)),
              flat: formulas.filter(e => !e.closest("details") && e.getBoundingClientRect().height < 4).length});
  frame.remove();
}
(async () => {
  for (const page of pages) for (const width of widths) await measure(page, width);
  document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
})();
</script></body>"""


@pytest.fixture(scope="module")
def book():
    pytest.importorskip("latex2mathml", reason="latex2mathml comes with the book extra")
    spec = importlib.util.spec_from_file_location("book", ROOT / "notebooks" / "book.py")
    book = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(book)
    return book


@pytest.fixture(scope="module")
def pages(book, tmp_path_factory) -> list[Path]:
    return book.make_book(tmp_path_factory.mktemp("book"))


class Reader(HTMLParser):
    """What a page says outside code, its images and its addresses."""

    def __init__(self, page: Path):
        super().__init__()
        self.words, self.formulas, self.images, self.addresses, self.inside = [], [], [], [], []
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in ("pre", "code", "style", "math"):
            self.inside.append(tag)
        if tag == "img":
            self.images.append(attributes)
        self.addresses += [attributes[key] for key in ("href", "src") if attributes.get(key)]

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, text):
        if "math" in self.inside:
            self.formulas.append(text)
        elif not self.inside:
            self.words.append(text)


def test_every_lesson_and_exercise_has_a_page_and_the_index_leads_to_it(pages):
    notebooks = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("exercises/*/*.ipynb")]
    assert len(pages) == len(notebooks) + 1
    addresses = Reader(pages[0]).addresses
    for lesson in ROOT.glob("notebooks/*.ipynb"):
        assert f"notebooks/{lesson.stem}.html" in addresses


def test_a_folder_that_holds_something_else_is_left_alone(book, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SystemExit, match="is not empty"):
        book.make_book(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_numbers_and_functions_in_formulas_are_spaced_as_in_print(book):
    words = re.sub(r"<[^>]*>", " ", book.mathml(r"\ln N = 32{,}768", "inline")).split()
    assert words == ["ln", "N", "&#x0003D;", "32", ",", "768"]
    assert "<mspace" in book.mathml(r"\log p", "inline") and "<mspace" not in book.mathml(r"\log(p)", "inline")
    assert "<mtext>,</mtext>" in book.mathml("32{,}768", "inline")


def test_pages_need_no_network_and_no_script_and_their_links_resolve(pages):
    for page in pages:
        text = page.read_text("utf-8")
        assert "<script" not in text and "@import" not in text
        assert "prefers-color-scheme: dark" in text
        assert "output_stderr" not in text, page.name
        for address in Reader(page).addresses:
            if address.startswith(("#", "data:", "https://")):
                continue
            assert (page.parent / address.split("#")[0]).exists(), f"{page.name} leads to {address}"
        assert not re.search(r'src="https?:', text)


def test_formulas_are_rendered_and_pictures_described(pages):
    for page in pages:
        reader = Reader(page)
        assert not re.search(r"\$[^$\n]*\\\w|\$\$|\\begin\{", "".join(reader.words)), page.name
        assert not [text for text in reader.formulas if "\\" in text], page.name
        assert "<merror" not in page.read_text("utf-8")
        for image in reader.images:
            assert len(image.get("alt") or "") > 20, f"a picture of {page.name} has no alternative text"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the pages in")
def test_nothing_sticks_out_on_a_phone_or_a_desk(pages, tmp_path):
    harness = pages[0].parent / "harness.html"
    addresses = [page.relative_to(harness.parent).as_posix() for page in pages]
    harness.write_text(HARNESS.replace("PAGES", json.dumps(addresses)).replace("WIDTHS", json.dumps(WIDTHS)), "utf-8")
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path}", "--window-size=1400,900", "--virtual-time-budget=100000", "--dump-dom",
        harness.as_uri(),
    ]  # fmt: skip
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=240).stdout
    found = json.loads(html.unescape(re.search(r"FOUND(.*)END", dumped, re.DOTALL)[1]))
    assert len(found) == len(pages) * len(WIDTHS)
    for page in found:
        where = f"{page['page']} at {page['width']} pixels"
        assert page["scroll"] <= page["width"] and not page["wide"], f"{where}: {page['wide'][:3]}"
        assert page["flat"] == 0, f"{where}: {page['flat']} formulas take no room"
