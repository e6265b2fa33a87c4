"""The widgets, touched from Python: what a browser would set is set, and what it would show is read."""

import base64
import copy
import io
import json
import math
import re
import signal
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from ipycanvas.canvas import COMMANDS
from PIL import Image

import minclip
from minclip import CLIP, MinclipError, TrainConfig, contrastive_loss, widgets
from minclip.data.painting import GlyphPairs
from minclip.data.tasks import DIGITS, Task, handwritten_digits
from minclip.widgets.draw import on_the_line
from minclip.widgets.search import distinct, gallery_features
from minclip.zeroshot import encode_images, encode_texts, zero_shot_classifier


@pytest.fixture(scope="module")
def glyphs_tiny():
    return minclip.load("glyphs-tiny")


@pytest.fixture(scope="module")
def chess(atlas):
    return atlas.select(np.array(["chess" in name for name in atlas.name]))


def shown(html) -> np.ndarray:
    """The picture in an HTML widget, decoded."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", html.value)[1]))))


def pairs_of_features(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    u = torch.nn.functional.normalize(torch.randn(count, 16).double(), dim=1)
    return u, torch.nn.functional.normalize(u + 0.3 * torch.randn(count, 16).double(), dim=1)


# Search


def test_search_follows_the_words_and_a_pressed_picture(glyphs_tiny, chess):
    model, tokenizer = glyphs_tiny
    search = widgets.Search(model, tokenizer, chess.pictures(), chess.name, "black chess knight", shown=6, folder=False)
    assert search.found[0][0] == ["black chess knight"]
    search.words.value = "white chess rook"
    nearest = (search.features @ encode_texts(model, tokenizer, ["white chess rook"])[0]).argmax()
    assert search.found[0][0] == search.names[nearest] == ["white chess rook"]
    assert "white chess rook" in search.message.value
    cosines = [cosine for _, cosine in search.found]
    assert cosines == sorted(cosines, reverse=True)

    third = search.found[2][0]
    search.results[2].click()
    assert search.found[0][0] == third
    assert search.found[0][1] == pytest.approx(1, abs=2e-3)
    assert search.words.value == ""
    assert third[0] in search.results[0].description
    search.words.value = "black chess pawn"  # words go on working after a press
    assert search.found[0][0] == ["black chess pawn"]

    search.words.value = ""  # and without words there are no results
    assert search.found == []
    assert all(button.layout.display == "none" for button in search.results)
    search.words.value = "black chess pawn"
    assert all(button.layout.display != "none" for button in search.results)


def test_an_empty_search_says_what_to_do(glyphs_tiny, chess):
    search = widgets.Search(*glyphs_tiny, chess.pictures(), chess.name, "  ", folder=False)
    assert "Type words" in search.message.value
    assert all(not button.description for button in search.results)
    assert all(button.layout.display == "none" for button in search.results)
    search.picture()


def test_pictures_that_are_alike_are_one_result_with_all_names():
    pictures = np.zeros((4, 2, 2, 3), np.uint8)
    pictures[1] = 1
    kept, names = distinct(pictures, ["a", "b", "alpha", "a"])
    assert len(kept) == 2
    assert names == [["a", "alpha"], ["b"]]
    kept, names = distinct([Image.fromarray(p) for p in pictures], ["a", "b", "alpha", "a"])
    assert len(kept) == 2


def test_vectors_are_kept_by_weights_and_pictures_and_made_anew_when_damaged(glyphs_tiny, chess, tmp_path, tiny):
    model, _ = glyphs_tiny
    pictures = chess.pictures()[:20]
    features = gallery_features(model, pictures, tmp_path)
    assert torch.allclose(features, encode_images(model, minclip.preprocess(pictures, model.config)), atol=1e-3)
    (file,) = tmp_path.iterdir()
    when = file.stat().st_mtime_ns
    assert torch.equal(gallery_features(model, pictures, tmp_path), features)
    assert file.stat().st_mtime_ns == when  # read, not written
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(gallery_features(model, pictures, tmp_path), features)
    assert torch.equal(gallery_features(model, list(pictures), tmp_path), features)
    gallery_features(model, pictures[:10], tmp_path)
    gallery_features(tiny, pictures, tmp_path)
    other_gelu = CLIP(replace(tiny.config, quick_gelu=not tiny.config.quick_gelu))
    other_gelu.load_state_dict(tiny.state_dict())
    gallery_features(other_gelu, pictures, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    for count in range(11, 17):
        gallery_features(model, pictures[:count], tmp_path)
    assert len(list(tmp_path.iterdir())) == 5  # the oldest were removed
    unwritable = tmp_path / "file"
    unwritable.write_text("")
    assert torch.equal(gallery_features(model, pictures, unwritable / "below"), features)


# The classifier designer


def test_the_designer_measures_each_edit(glyphs_tiny):
    model, tokenizer = glyphs_tiny
    task = handwritten_digits(32)
    designer = widgets.ClassifierDesigner(model, tokenizer, task)
    features = encode_images(model, minclip.preprocess(task.images, model.config))

    def expected(names, templates):
        said = (features @ zero_shot_classifier(model, tokenizer, names, templates)).argmax(dim=1).numpy()
        return said, (said == task.labels).mean()

    assert designer.accuracy == designer.started == pytest.approx(expected(task.class_names, ["{}"])[1])
    designer.distractors.value = "latin small letter l\n\nlatin small letter t"
    said, accuracy = expected([*task.class_names, "latin small letter l", "latin small letter t"], ["{}"])
    assert designer.accuracy == pytest.approx(accuracy)
    assert designer.accuracy < designer.started
    assert designer.confusion.shape == (10, 12)
    assert designer.confusion[1, 10] == ((task.labels == 1) & (said == 10)).sum() > 0
    assert designer.confusion.sum() == len(task)
    assert "Distractors take" in designer.message.value
    assert "latin small letter t" in designer.table.value
    designer.templates.value = "the character {}\na picture of {}"
    assert designer.accuracy == pytest.approx(
        expected(designer.class_names, ["the character {}", "a picture of {}"])[1]
    )
    assert designer.per_class[3] == pytest.approx(designer.confusion[3, 3] / (task.labels == 3).sum())
    designer.reset.click()
    assert designer.accuracy == designer.started
    assert designer.distractors.value == ""


def test_the_designer_answers_bad_names_in_words_and_keeps_the_last_good_ones(glyphs_tiny):
    designer = widgets.ClassifierDesigner(*glyphs_tiny, handwritten_digits(32))
    before = designer.accuracy
    for box, value, words in (
        (designer.names, "", "0 names"),
        (designer.names, "a\nb", "10 classes"),
        (designer.templates, "no place for it", "{}"),
        (designer.templates, "", "{}"),
        (designer.distractors, "digit one", "both named"),
    ):
        good, box.value = box.value, value
        assert 'role="alert"' in designer.message.value
        assert words in designer.message.value
        assert designer.accuracy == before
        assert designer.picture().startswith(b"\x89PNG")
        box.value = good
        assert 'role="alert"' not in designer.message.value


def test_names_are_text_and_never_markup(glyphs_tiny):
    images = np.full((2, 32, 32, 3), 255, np.uint8)
    task = Task("two", images, np.array([0, 1]), ["<b>x", "<script>y"], ("{}",), "markup")
    designer = widgets.ClassifierDesigner(*glyphs_tiny, task)
    assert "<script>" not in designer.table.value
    assert "&lt;script&gt;" in designer.table.value
    draw = widgets.Draw(*glyphs_tiny, ["<b>x", "y"])
    draw.pen_down(50, 50)
    assert "<b>x" not in draw.bars.value + draw.message.value


# Drawing


def test_a_drawn_one_is_a_one(glyphs_tiny):
    draw = widgets.Draw(*glyphs_tiny)
    assert "Draw something" in draw.message.value
    assert draw.probabilities == {}
    draw.pen_down(128, 40)
    for y in range(50, 220, 10):
        draw.pen_move(128, y)
    draw.pen_up()
    assert list(draw.probabilities) == [f"digit {word}" for word in DIGITS]
    assert sum(draw.probabilities.values()) == pytest.approx(1)
    assert max(draw.probabilities, key=draw.probabilities.get) == "digit one"
    assert "digit one" in draw.message.value
    assert draw.seen.shape == (32, 32, 3)
    draw.pen_move(0, 0)  # the pen is up
    assert draw.sheet.getpixel((0, 0)) == 0
    draw.names.value = "vertical line\nblack chess knight"
    assert list(draw.probabilities) == ["vertical line", "black chess knight"]
    draw.names.value = ""
    assert "empty" in draw.message.value
    draw.clear.click()
    assert draw.probabilities == {}


def test_arrow_keys_draw_as_the_mouse_does(glyphs_tiny):
    keys, mouse = widgets.Draw(*glyphs_tiny), widgets.Draw(*glyphs_tiny)
    for key in ["ArrowUp", " ", *["ArrowDown"] * 12, " ", "ArrowLeft", "x"]:
        keys._key(key, False, False, False)
    mouse.pen_down(128, 120)
    for step in range(1, 13):
        mouse.pen_move(128, 120 + 8 * step)
    mouse.pen_up()
    assert np.array_equal(keys.sheet, mouse.sheet)
    assert keys.probabilities == mouse.probabilities


def test_each_repainting_names_its_canvas_for_a_page_that_was_opened_since(glyphs_tiny, monkeypatch):
    draw, sent = widgets.Draw(*glyphs_tiny), []
    monkeypatch.setattr(draw.canvas._canvas_manager, "_send_custom", lambda command, *_: sent.append(command[0]))
    draw._repaint()
    draw._repaint()
    assert sent[0] == sent[2] == COMMANDS["switchCanvas"]
    monkeypatch.delattr(draw.canvas._canvas_manager, "_current_canvas")  # as a later ipycanvas may have it
    monkeypatch.setattr(draw.canvas, "put_image_data", lambda picture: None)
    draw._repaint()


def test_a_picture_file_is_classified_and_a_broken_one_named(glyphs_tiny, chess):
    draw = widgets.Draw(*glyphs_tiny, ["black chess knight", "white chess king", "latin small letter a"])
    file = io.BytesIO()
    knight = chess.pictures()[chess.name == "black chess knight"][0]
    Image.fromarray(knight).save(file, "png")
    upload = {"name": "knight.png", "type": "image/png", "size": 1, "content": memoryview(file.getvalue())}
    draw.file.value = ({**upload, "last_modified": datetime.now()},)
    assert np.array_equal(draw.seen, knight)
    assert draw.probabilities["black chess knight"] > 0.5
    draw.file.value = ({**upload, "name": "junk.png", "content": memoryview(b"junk"), "last_modified": datetime.now()},)
    assert "junk.png is no picture" in draw.message.value
    draw.pen_down(100, 100)  # drawing replaces it
    assert draw.opened is None


def test_a_drawing_is_set_where_print_stands():
    tall = Image.new("L", (40, 200), 255)
    rows, columns = np.nonzero(on_the_line(tall, 32))
    assert (rows.min(), rows.max()) == (6, 23)  # a capital's height, on the base line at 24
    assert columns.min() + columns.max() in (30, 31, 32)
    dash = Image.new("L", (200, 20), 255)
    rows, _ = np.nonzero(on_the_line(dash, 32))
    assert 12 <= rows.min() <= rows.max() <= 18


# Temperature and derivation


def test_scale_and_count_move_the_loss():
    u, v = pairs_of_features(64)
    widget = widgets.Temperature(u, v, 16)
    assert widget.scale.value == pytest.approx(1 / 0.07)
    assert widget.loss == pytest.approx(contrastive_loss(u[:16], v[:16], torch.tensor(1 / 0.07)).item(), rel=1e-5)
    first = shown(widget.image)
    widget.scale.value = 3.0
    assert widget.loss == pytest.approx(contrastive_loss(u[:16], v[:16], torch.tensor(3.0)).item(), rel=1e-5)
    assert (shown(widget.image) != first).any()
    widget.pairs.value = 64
    assert widget.loss == pytest.approx(contrastive_loss(u, v, torch.tensor(3.0)).item(), rel=1e-5)
    assert f"ln N = {math.log(64):.2f}" in widget.message.value
    assert 'alt="' in widget.image.value


def test_a_loss_above_guessing_is_called_so():
    u, v = pairs_of_features(16)
    widget = widgets.Temperature(u, v.flip(0), 16)  # each picture with another's caption
    widget.scale.value = 100
    assert widget.loss > math.log(16)
    assert "worse than guessing among 16" in widget.message.value
    assert "in play" not in widget.message.value
    same = widgets.Temperature(u[:1].expand(16, -1), u[:1].expand(16, -1), 16)  # neither better nor worse
    assert "about 16.0 captions still in play" in same.message.value


def test_each_step_of_the_derivation_is_the_loss():
    u, v = pairs_of_features(5)
    widget = widgets.Derivation(u, v, 10.0, list("abcde"), list("abcde"))
    loss = contrastive_loss(u, v, torch.tensor(10.0).double())
    pictures = []
    while not widget.forward.disabled:
        pictures.append(widget.image.value)
        if widget.step.value == 3:
            assert torch.allclose(widget.values.sum(dim=1), torch.ones(5).double())
        if widget.step.value == 5:
            assert torch.allclose(widget.values.sum(dim=0), torch.ones(5).double())
        if widget.step.value == 7:
            assert torch.isclose(widget.values.diagonal().mean(), loss)
            assert f"{loss:.4f} nats" in widget.text.value
        widget.forward.click()
    assert len(set(pictures)) == 7
    z = (10 * u @ v.T).requires_grad_()
    labels = torch.arange(5)
    cross = torch.nn.functional.cross_entropy
    ((cross(z, labels) + cross(z.T, labels)) / 2).backward()
    assert torch.allclose(widget.values, z.grad)
    widget.back.click()
    assert widget.step.value == 7
    widget.step.value = 1
    assert widget.back.disabled
    widget.back.click()
    assert widget.step.value == 1


# The training window


@pytest.fixture
def window(tiny, tokenizer, atlas):
    pairs = GlyphPairs(atlas.select(np.arange(300)))
    window = widgets.TrainingWindow(tiny, tokenizer, pairs, TrainConfig(images_seen=40 * 8, batch_size=8, log_every=2))
    yield window
    window.close_run()


def until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_run_is_paused_resumed_and_finished(window):
    start = {name: tensor.clone() for name, tensor in window.model.state_dict().items()}
    assert "Press Start" in window.message.value
    first = window.image.value
    window.start.click()
    until(lambda: window.records)
    window.pause.click()
    assert (window.state, window.pause.description) == ("paused", "Resume")
    until(lambda: "Paused" in window.message.value)
    at = len(window.records)
    time.sleep(0.2)
    assert len(window.records) == at < 20
    window.pause.click()
    assert [record["step"] for record in window.wait()] == list(range(2, 41, 2))
    assert (window.state, window.bar.value) == ("finished", 40)
    assert "Finished" in window.message.value
    assert window.pause.disabled
    assert window.image.value != first
    assert window.cosines.shape == (16, 16)

    weights = window.model.state_dict()["visual.proj"].clone()
    assert not torch.equal(weights, start["visual.proj"])
    losses = [record["loss"] for record in window.records]
    window.start.click()  # again, from the beginning
    assert losses == [record["loss"] for record in window.wait()]
    assert torch.equal(weights, window.model.state_dict()["visual.proj"])


def test_a_run_is_that_of_fit(window, tiny):
    twin = copy.deepcopy(tiny)
    window.begin()
    window.wait()
    records = minclip.fit(twin, window.tokenizer, window.pairs, window.config)
    assert [r["loss"] for r in records] == [r["loss"] for r in window.records]


def test_a_failed_run_says_why(window):
    window.config = replace(window.config, lr=1e30)
    window.begin()
    window.wait()
    assert window.state == "failed"
    assert "learning rate" in window.message.value
    assert window.start.description == "Start again"


def test_a_new_window_and_a_new_run_let_go_of_the_run_of_another_window(window):
    window.begin()
    window.toggle()  # paused, so that it does not end by itself
    other = widgets.TrainingWindow(window.model, window.tokenizer, window.pairs, window.config)
    assert not window.thread.is_alive()
    assert window.state == "ready"
    window.begin()
    window.toggle()
    other.begin()
    assert not window.thread.is_alive()
    assert len(other.wait()) == 20


def test_an_interrupt_while_waiting_pauses(window):
    window.begin()
    until(lambda: window.records)
    threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()
    if window.thread.is_alive():
        with pytest.raises(KeyboardInterrupt):
            window.wait()
            time.sleep(1)  # it was over before the interrupt came
    assert window.state in ("paused", "finished")


# All


def test_each_widget_has_a_still_picture_and_words_for_who_cannot_see_it(glyphs_tiny, chess, window):
    u, v = pairs_of_features(8)
    for widget in (
        widgets.Search(*glyphs_tiny, chess.pictures(), chess.name, folder=False),
        widgets.ClassifierDesigner(*glyphs_tiny, handwritten_digits(32)),
        widgets.Draw(*glyphs_tiny),
        widgets.Temperature(u, v),
        widgets.Derivation(u, v, 10.0, list("abcdefgh"), list("abcdefgh")),
        window,
    ):
        bundle = widget._repr_mimebundle_()
        assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).width > 300
        assert "application/vnd.jupyter.widget-view+json" in bundle
        for part in descendants(widget):
            if hasattr(part, "disabled") and part.layout.display != "none":  # one can press, type or move it
                assert part.description, type(part).__name__
                assert part.tooltip, part.description


def test_a_dollar_sign_in_a_name_opens_no_formula(glyphs_tiny, chess):
    u, v = pairs_of_features(2)
    names = ["$x_{$", "y"]
    task = Task("two", chess.pictures()[:2], np.array([0, 1]), names, ("{}",), "dollars")
    for widget in (
        widgets.Search(*glyphs_tiny, chess.pictures()[:2], names, folder=False),
        widgets.ClassifierDesigner(*glyphs_tiny, task),
        widgets.Draw(*glyphs_tiny, names),
        widgets.Derivation(u, v, 10.0, names, names),
    ):
        assert widget.picture().startswith(b"\x89PNG")


def descendants(widget):
    for child in getattr(widget, "children", ()):
        yield child
        yield from descendants(child)


def test_something_that_is_no_model_is_named():
    with pytest.raises(MinclipError, match="minclip.load"):
        widgets.Draw("glyphs-tiny", None)
    with pytest.raises(MinclipError, match="one name a picture"):
        widgets.Search(*minclip.load("glyphs-tiny"), np.zeros((0, 32, 32, 3), np.uint8), [])
    with pytest.raises(MinclipError, match="pairs"):
        widgets.Temperature(torch.ones(1, 3), torch.ones(1, 3))


def test_lessons_store_a_picture_of_each_widget_and_no_view_that_needs_a_kernel():
    shown = set()
    for path in sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                assert "application/vnd.jupyter.widget-view+json" not in data, path.stem
                name = re.fullmatch(r"<(\w+)>", "".join(data.get("text/plain", "")))
                if name and name[1] in widgets.__all__:
                    shown.add((path.stem[:2], name[1]))
                    assert "image/png" in data
                    assert "nbval-ignore-output" in cell["metadata"]["tags"]
    assert shown >= {
        ("00", "Search"), ("00", "Draw"), ("04", "Derivation"), ("04", "Temperature"), ("05", "TrainingWindow"),
        ("06", "ClassifierDesigner"),
    }  # fmt: skip
