"""The widgets in a real browser: Chromium opens JupyterLab, runs a lesson, types, drags, draws and presses.

Needs the `playwright` package and Debian's `chromium`; skipped by name where either is missing. On failure a
picture of the page is left in the test's temporary folder.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; see the README for how to install it")

expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds, as all of Playwright's times; a shared machine stalls
ROOT = Path(__file__).parent.parent
MINUTE = 60_000

SETUP = """
import numpy as np
import torch
import minclip
from minclip import widgets
from minclip.data.glyphs import load_atlas
from minclip.data.painting import GlyphPairs
from minclip.data.tasks import handwritten_digits
torch.manual_seed(0)
model, tokenizer = minclip.load("glyphs-tiny")
glyphs = load_atlas()
u = torch.nn.functional.normalize(torch.randn(64, 16), dim=1)
v = torch.nn.functional.normalize(u + 0.3 * torch.randn(64, 16), dim=1)
"""
NOTEBOOKS = {
    "widgets.ipynb": [
        "widgets.ClassifierDesigner(model, tokenizer, handwritten_digits(32))",
        'widgets.Derivation(u[:8], v[:8], 14.3, list(glyphs.ink[100:108]), list("abcdefgh"))',
        "widgets.Temperature(u, v)",
    ],
    "training.ipynb": [
        """
from minclip.presets import PRESETS, new_model
pairs = GlyphPairs(glyphs.training().select(np.arange(400)))
fresh, own_tokenizer = new_model(PRESETS["cpu"].model, list(pairs.names), seed=0)
widgets.TrainingWindow(fresh, own_tokenizer, pairs, minclip.TrainConfig(
    images_seen=32 * 300, batch_size=32, lr=2e-3, log_every=2))
""",
        "6 * 7",
    ],
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a free port, with a token, over copies of the lessons: (its address, its folder)."""
    folder = tmp_path_factory.mktemp("lab")
    for lesson in ROOT.glob("notebooks/00_*.ipynb"):
        shutil.copy(lesson, folder)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for name, cells in NOTEBOOKS.items():
        cells = [nbformat.v4.new_code_cell(cell.strip()) for cell in (SETUP, *cells)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = folder / ".own"  # nothing of the reader's settings, and nothing into them
    silent = own / "jupyterlab_settings_dir" / "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    silent.parent.mkdir(parents=True)
    silent.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    names = ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_RUNTIME_DIR",
             "IPYTHONDIR", "XDG_CACHE_HOME")  # fmt: skip
    environment = os.environ | {name: str(own / name.lower()) for name in names} | {"PYTHONPATH": str(ROOT)}
    environment.pop("MPLBACKEND", None)  # the notebook's own
    address, token = f"http://127.0.0.1:{port}", "a-token-of-the-tests"
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--ServerApp.allow_root=True")
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"{address}/api?token={token}", timeout=5)
                    break
                except OSError:
                    assert server.poll() is None, (folder / "lab.log").read_text()[-2000:]
                    time.sleep(0.5)
            yield f"{address}/lab/tree/{{}}?token={token}&reset"  # reset: no tabs of the test before
        finally:
            server.terminate()
            server.wait(20)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        sandbox = [] if not hasattr(os, "geteuid") or os.geteuid() else ["--no-sandbox"]  # root has none
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@contextmanager
def opened(browser, address: str, tmp_path: Path):
    """A page on a notebook with a live kernel; a picture of it is kept where the test fails."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(MINUTE)
    try:
        page.goto(address)
        page.wait_for_selector("text=/Python 3.*Idle/")
        yield page
    except BaseException:
        page.screenshot(path=tmp_path / "page.png")
        print(f"The page as it was: {tmp_path / 'page.png'}")
        raise
    finally:
        page.close()


def choose(page, *menu: str) -> None:
    """Press entries of the menu bar, one below the other."""
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{menu[0]}$")).click()
    for entry in menu[1:]:
        item = page.locator(".lm-Menu-item:visible", has_text=entry).first
        item.hover()
        if entry == menu[-1]:
            item.click()


def widget(page, label: str):
    """The course's widget that has a part with this label."""
    return page.locator(".minclip", has_text=label).first


def number(text: str, pattern: str) -> float:
    return float(re.search(pattern, text)[1])


def test_lesson_00_is_run_searched_and_drawn_in(lab, browser, tmp_path):
    with opened(browser, lab.format("00_a_clip_in_five_minutes.ipynb"), tmp_path) as page:
        choose(page, "Run", "Run All Cells")
        search = widget(page, "Search for")
        expect(search).to_be_visible(timeout=3 * MINUTE)

        # Type, by the box's label, as a screen reader's user finds it.
        search.get_by_label("Search for").fill("black chess knight")
        first = search.get_by_role("button").first
        expect(first).to_contain_text("black chess knight")
        picture = first.evaluate("button => getComputedStyle(button).backgroundImage")
        assert picture.startswith('url("data:image/png')
        search.get_by_label("Search for").fill("")
        expect(search.get_by_text("Type words to search for")).to_be_visible()

        # Press a picture, with the keyboard.
        search.get_by_label("Search for").fill("snowman")
        expect(search.get_by_text("the words “snowman”")).to_be_visible()  # the last thing that changes
        expect(first).to_contain_text("snowman")
        third = search.get_by_role("button").nth(2)
        name = re.sub(r"^[\d.]+\s*", "", third.inner_text())
        third.press("Enter")
        expect(search.get_by_text("pictures to the picture of")).to_contain_text(name)
        expect(first).to_contain_text(f"1.00 {name}")

        # Draw a one with the mouse, then again with the keyboard.
        draw = widget(page, "Draw here")
        canvas = draw.locator("canvas")
        canvas.scroll_into_view_if_needed()
        expect(draw.get_by_text("says the model")).to_contain_text("digit seven")  # drawn by the lesson
        draw.get_by_role("button", name="Clear").click()
        expect(draw.get_by_text("Draw something on the left")).to_be_visible()
        box = canvas.bounding_box()
        x, y = box["x"] + 128, box["y"] + 40
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x, y + 170, steps=12)
        page.mouse.up()
        expect(draw.get_by_text("says the model")).to_contain_text("digit one")
        assert ink(canvas) > 0.03
        draw.get_by_role("button", name="Clear").click()
        expect(draw.get_by_text("Draw something on the left")).to_be_visible()
        canvas.click(position={"x": 128, "y": 40})
        for key in [" ", *["ArrowDown"] * 20, " "]:
            canvas.press(key)
        expect(draw.get_by_text("says the model")).to_contain_text("digit one")
        canvas.press("Tab")  # and the focus is not caught
        expect(draw.get_by_role("button", name="Clear")).to_be_focused()
        draw.get_by_label("Classes").fill("vertical line\nblack chess knight")
        expect(draw.get_by_role("rowheader")).to_have_text(["vertical line", "black chess knight"])
        draw.get_by_label("Classes").fill("")
        expect(draw.get_by_role("alert")).to_contain_text("empty")


def ink(canvas) -> float:
    """The share of the canvas that is dark."""
    return canvas.evaluate(
        """canvas => {
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            let dark = 0;
            for (let i = 0; i < pixels.length; i += 4) dark += pixels[i + 3] > 128 && pixels[i] < 128;
            return dark / (canvas.width * canvas.height);
        }"""
    )


def test_the_other_widgets_answer_and_keep_their_layout(lab, browser, tmp_path):
    with opened(browser, lab.format("widgets.ipynb"), tmp_path) as page:
        choose(page, "Run", "Run All Cells")
        designer, derivation = widget(page, "Distractors"), widget(page, "Back")
        temperature = widget(page, "pairs N")
        expect(temperature).to_be_visible(timeout=2 * MINUTE)

        # A distractor takes ones; a bad list of names is answered in words; and back.
        expect(designer.get_by_text("pictures right")).to_contain_text("(+0.0 points")
        designer.get_by_label("Distractors").fill("latin small letter l")
        expect(designer.get_by_text("pictures right")).to_contain_text("Distractors take")
        assert number(designer.inner_text(), r"([-+][\d.]+) points") < -1
        expect(designer.get_by_role("columnheader", name="latin small letter l")).to_be_visible()
        designer.get_by_label("Classes").fill("one\ntwo")
        expect(designer.get_by_role("alert")).to_contain_text("10 classes")
        designer.get_by_role("button", name="As at the start").click()
        expect(designer.get_by_text("pictures right")).to_contain_text("(+0.0 points")

        # Forwards and backwards, with the mouse and with keys; the formula is set, not shown as source.
        derivation.get_by_role("button", name="Next").click()
        expect(derivation.get_by_role("heading")).to_have_text("2. Logits")
        expect(derivation.locator("mjx-container").first).to_be_visible()
        derivation.locator(".noUi-handle").press("ArrowRight")
        expect(derivation.get_by_role("heading")).to_have_text("3. Every picture asks")
        derivation.get_by_role("button", name="Back").press("Enter")
        expect(derivation.get_by_role("heading")).to_have_text("2. Logits")
        expect(derivation.get_by_role("img")).to_have_attribute("alt", re.compile("Logits"))

        # Drag the scale; press a key on N: the loss and ln N follow.
        handle = temperature.locator(".noUi-handle").first
        expect(temperature.get_by_text("ln N = 2.77")).to_be_visible()
        before = temperature.get_by_role("img").get_attribute("src")
        handle.scroll_into_view_if_needed()
        box = handle.bounding_box()
        page.mouse.move(box["x"] + 8, box["y"] + 8)
        page.mouse.down()
        page.mouse.move(box["x"] + 120, box["y"] + 8, steps=6)
        page.mouse.up()
        at_the_end = re.compile(r"s = [2-9]\d\.")  # and not at a scale that was passed on the way
        expect(temperature.get_by_text("ln N = 2.77")).to_contain_text(at_the_end)
        expect(temperature.get_by_role("img")).not_to_have_attribute("src", before)
        temperature.locator(".noUi-handle").nth(1).press("ArrowRight")
        expect(temperature.get_by_text("ln N = 3.47")).to_be_visible()

        for theme in ("Light", "Dark"):
            if theme == "Dark":
                choose(page, "Settings", "Theme", "JupyterLab Dark")
                page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
            for width in (1024, 1600):
                page.set_viewport_size({"width": width, "height": 1000})
                for part in (designer, derivation, temperature):
                    part.scroll_into_view_if_needed()
                    assert part.evaluate("part => part.scrollWidth - part.clientWidth") <= 1, (theme, width)
                    assert contrast(part) > 4.5, (theme, width)  # WCAG 2.1, AA


def contrast(part) -> float:
    """The ratio of the luminance of a widget's words and of the page behind them."""
    return part.evaluate(
        r"""part => {
            const light = colour => {
                const [r, g, b] = colour.match(/[\d.]+/g).slice(0, 3).map(v => v / 255)
                    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            let paper = part;
            while (/rgba\(0, 0, 0, 0\)|transparent/.test(getComputedStyle(paper).backgroundColor)) paper = paper.parentElement;
            const words = part.querySelector("[role=status]");
            const pair = [light(getComputedStyle(words).color), light(getComputedStyle(paper).backgroundColor)].sort();
            return (pair[1] + 0.05) / (pair[0] + 0.05);
        }"""
    )


def test_a_run_is_watched_while_the_kernel_answers(lab, browser, tmp_path):
    with opened(browser, lab.format("training.ipynb"), tmp_path) as page:
        choose(page, "Run", "Run All Cells")
        training = widget(page, "choose their caption")
        expect(training).to_be_visible(timeout=2 * MINUTE)
        first = training.get_by_role("img").get_attribute("src")
        page.set_viewport_size({"width": 1024, "height": 1000})
        assert training.evaluate("part => part.scrollWidth - part.clientWidth") <= 1
        training.get_by_role("button", name="Start").click()
        expect(training.get_by_text("Mean cosine")).to_contain_text("Loss")
        expect(training.get_by_role("img")).not_to_have_attribute("src", first)

        # Another cell runs meanwhile.
        sum_cell = page.locator(".jp-CodeCell").last
        sum_cell.locator(".cm-content").click()
        page.keyboard.press("End")
        page.keyboard.type("0")
        page.keyboard.press("Control+Enter")
        expect(sum_cell.locator(".jp-OutputArea-output")).to_have_text("420")
        expect(training.get_by_role("button", name="Pause")).to_be_enabled()

        # Interrupt pauses, Resume goes on, Pause pauses.
        choose(page, "Kernel", "Interrupt Kernel")
        expect(training.get_by_text("Paused.")).to_be_visible()
        at = training.get_by_text("Mean cosine").inner_text()
        time.sleep(1)
        assert training.get_by_text("Mean cosine").inner_text() == at
        training.get_by_role("button", name="Resume").click()
        expect(training.get_by_text("Paused.")).not_to_be_visible()
        training.get_by_role("button", name="Pause").click()
        expect(training.get_by_text("Paused.")).to_be_visible()
        training.get_by_role("button", name="Resume").press("Enter")

        # The matrix turns diagonal.
        expect(training.get_by_text("Finished.")).to_be_visible(timeout=2 * MINUTE)
        words = training.get_by_text("Mean cosine").inner_text()
        assert number(words, r"true pairs ([-\d.]+)") > number(words, r"others ([-\d.]+)") + 0.3
        expect(training.get_by_role("button", name="Start again")).to_be_enabled()
