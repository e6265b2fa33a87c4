"""The command line, as its user meets it: results in files, mistakes in one sentence, never a traceback."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import minclip
from minclip import cli
from minclip.data.painting import GlyphPairs

# A model too small to learn much, on a few pictures: what is tested is the way, not the score.
SHORT = [
    "--train.images-seen", "256", "--train.batch-size", "64", "--train.log-every", "2", "--train.checkpoint-every", "2",
    "--model.embed-dim", "16", "--model.vision-layers", "1", "--model.vision-width", "32", "--model.vision-patch-size", "8",
    "--model.vision-heads", "2", "--model.transformer-width", "32", "--model.transformer-heads", "2",
    "--model.transformer-layers", "1", "--model.vocab-size", "600", "--device", "cpu",
]  # fmt: skip


def said(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, run in this process."""
    capsys.readouterr()
    try:
        code = cli.main(list(map(str, arguments)))
    except SystemExit as stop:  # how tyro ends
        code = stop.code
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def demo(tmp_path_factory, atlas) -> Path:
    """The folder of a very short demo."""
    run = tmp_path_factory.mktemp("demo") / "run"
    assert cli.main(["demo", "--run", str(run), "--json", str(run / "copy.json"), *SHORT]) == 0
    return run


def test_the_demo_leaves_its_results(demo):
    results = json.loads((demo / "results.json").read_text())
    promised = {"images_seen", "seconds", "zero_shot", "chance", "retrieval", "linear_probe", "raw_pixels", "seed",
                "device", "parameters", "ceiling", "skipped_fonts"}  # fmt: skip
    assert promised <= results.keys() and results["images_seen"] == 256 and results["seed"] == 0
    assert {"unseen-names", "unseen-typeface-digits", "handwritten-digits"} <= results["zero_shot"].keys()
    assert len(results["zero_shot"]) >= 20 and results["zero_shot"].keys() == results["chance"].keys()
    for name, accuracy in results["zero_shot"].items():
        assert 0 <= accuracy <= results["ceiling"][name] <= 1 and 0 < results["chance"][name] <= 0.5
    recalls = {f"{d}_R@{k}" for d in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
    assert results["retrieval"].keys() == {"candidates"} | recalls
    assert 0.85 < results["raw_pixels"] < 1 and results["linear_probe"] > 0.2  # ten digits
    assert json.loads((demo / "copy.json").read_text()) == results
    records = [json.loads(line) for line in (demo / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [2, 4] and records[-1]["images_seen"] == 256
    assert {"checkpoint.pt", "model.safetensors", "config.json", "tokenizer.json"} <= {p.name for p in demo.iterdir()}
    assert not list(demo.glob("*.partial"))


def test_the_report_is_one_page_that_needs_nothing_else(demo):
    page = (demo / "report.html").read_text()
    sources = re.findall(r"""(?:src|href|srcset|data)\s*=\s*["']([^"']*)""", page)
    assert len(sources) >= 7 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page) and "<script" not in page and "url(" not in page
    assert "@import" not in page and "{{" not in page and "{%" not in page
    results = json.loads((demo / "results.json").read_text())
    for name, accuracy in results["zero_shot"].items():
        assert f"<td>{name}</td>" in page and f"<td>{100 * accuracy:.1f}%</td>" in page


def test_what_the_demo_saved_can_be_loaded_and_evaluated_to_the_same_figures(demo, atlas, monkeypatch, capsys):
    results = json.loads((demo / "results.json").read_text())
    few = {
        name: task
        for name, task in minclip.data.tasks.glyph_tasks(atlas).items()
        if name in ("dice", "chess", "handwritten-digits")
    }
    monkeypatch.setattr(minclip.evaluation, "glyph_tasks", lambda _: few)
    code, out, _ = said(capsys, "evaluate", demo, "--device", "cpu", "--json", demo / "again.json")
    again = json.loads((demo / "again.json").read_text())
    assert code == 0 and again["zero_shot"] == {name: results["zero_shot"][name] for name in few}
    assert again["retrieval"] == results["retrieval"] and again["linear_probe"] == results["linear_probe"]
    for name, accuracy in again["zero_shot"].items():
        assert re.search(rf"^{name} +{100 * accuracy:.1f}%", out, re.MULTILINE)


def test_the_demo_resumes(demo, monkeypatch, capsys):
    monkeypatch.setattr(minclip.demo, "evaluate_glyphs", lambda *_: pytest.skip("trained; the rest is tested above"))
    before = (demo / "model.safetensors").read_bytes()
    with pytest.raises(pytest.skip.Exception):
        cli.main(["demo", "--run", str(demo), "--resume", *SHORT])
    assert (demo / "model.safetensors").read_bytes() == before
    code, _, err = said(capsys, "demo", "--run", demo, "--resume", *SHORT, "--train.lr", "0.5")
    assert code == 1 and "another training configuration (lr" in err


@pytest.mark.parametrize("command", [[], *([name] for name in cli.COMMANDS)])
def test_help(capsys, command):
    code, out, err = said(capsys, *command, "--help")
    assert code == 0 and err == "" and "python -m minclip" in out
    assert (
        all(name in out for name in cli.COMMANDS)
        or cli.COMMANDS[command[0]].__doc__.split(".")[0].split(",")[0][:40] in out
    )


@pytest.fixture
def no_training(monkeypatch, atlas):
    """The small atlas's start of a run, not its end: mistakes must be met before or at the first step."""
    few = atlas.select(atlas.name == "digit two")
    monkeypatch.setattr(cli, "load_atlas", lambda *_: few)
    monkeypatch.setattr(minclip.demo, "load_atlas", lambda *_: few)
    monkeypatch.setattr(type(few), "training", lambda self: self)


MISTAKES = {
    "unknown preset": (["demo", "--preset", "nope"], "There is no preset 'nope'"),
    "unknown device": (["pretrain", "--device", "potato"], "The device 'potato' cannot be used"),
    "photographs for nothing": (
        ["experiment", "probes", "--photographs", "x"],
        "--photographs belongs to the experiment boundaries",
    ),
    "seeds of a quick one": (["experiment", "bias", "--seeds", "5"], "--seeds belongs to --preset recorded"),
    "picture of no kind": (["experiment", "bias", "--picture", "p.xyz"], "--picture is p.xyz; let its name end"),
    "picture in a file": (["experiment", "bias", "--picture", "file/p.png"], "p.png cannot be written"),
    "results over a folder": (["evaluate", "glyphs-tiny", "--json", "."], ". cannot be written"),
    "picture of nothing": (["bench", "--what", "large-batch", "--picture", "p.png"], "add growth to --what"),
    "no rounds": (["bench", "--rounds", "0"], "rounds is 0"),
    "device without numbers": (["pretrain", "--device", "meta"], "The device 'meta' cannot be used"),
    "name too long": (["evaluate", "x" * 300], "There is no model"),
    "missing model": (["evaluate", "no/such/model/here"], "There is no model 'no/such/model/here'"),
    "empty folder": (["evaluate", "."], "holds no weights"),
    "missing fonts": (["pretrain", "--fonts", "nowhere"], "No font file"),
    "run folder is a file": (["pretrain", "--run", "file", *SHORT], "Could not write"),
    "below a file": (["pretrain", "--run", "file/deeper", *SHORT], "Could not write"),
    "nothing to resume": (["pretrain", "--run", "nothing", "--resume", *SHORT], "There is no checkpoint"),
    "context too short": (["pretrain", "--run", "r", *SHORT, "--model.context-length", "1"], "context_length is 1"),
    "vocabulary too small": (["pretrain", "--run", "r", *SHORT, "--model.vocab-size", "100"], "vocab_size is 100"),
}


@pytest.mark.parametrize(("arguments", "complaint"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_ends_in_one_sentence(arguments, complaint, no_training, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way")
    if "--fonts" in arguments:
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
    code, out, err = said(capsys, *arguments)
    assert code == 1 and out == "" and err.startswith("minclip: ") and err.count("\n") == 1
    assert complaint in err and "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and Path("file").read_text() == "in the way"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--train.batch-size", "1"], "batch_size is 1; a contrast needs"),
        (["--train.log-every", "0"], "log_every is 0"),
        (["--train.seed", "-1"], "seed is -1"),
        (["--train.lr", "fast"], "'fast'"),
        (["--train.precision", "fp16"], "fp16"),
        (["--model.transformer-heads", "7"], "7 attention heads do not divide"),
        (["--model.vision-layers", "0"], "vision_layers is 0"),
        (["--paint.noise", "-1"], "paint.noise is -1"),
        (["--no-such-option", "1"], "--no-such-option"),
    ],
)
def test_a_bad_value_among_the_options_is_named(arguments, complaint, capsys):
    code, out, err = said(capsys, "demo", *arguments)
    in_words = " ".join(re.sub("[│╭╮╰╯─]", " ", err).split())
    assert code == 2 and out == "" and complaint in in_words and "Traceback" not in err


def test_a_command_that_is_none(capsys):
    code, _, err = said(capsys, "nonsense")
    assert code == 2 and "nonsense" in err and "demo, pretrain, evaluate" in err


def test_a_damaged_model_is_named(demo, tmp_path, capsys):
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / file).write_bytes((demo / file).read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    code, _, err = said(capsys, "evaluate", tmp_path)
    assert code == 1 and err.startswith("minclip: ") and str(weights) in err and err.count("\n") == 1


def test_nan_ends_in_one_sentence(tmp_path, monkeypatch, capsys, no_training):
    monkeypatch.setattr(
        GlyphPairs, "paint_pictures", lambda self, rows, *_: torch.full((len(rows), 3, 32, 32), torch.nan)
    )
    code, _, err = said(capsys, "pretrain", "--run", tmp_path / "run", *SHORT)
    assert code == 1 and re.fullmatch(r"minclip: The loss became nan by step 2 .*\n", err)


def test_skipped_fonts_are_counted_and_named(tmp_path, monkeypatch, capsys, atlas):
    (tmp_path / "broken.ttf").write_bytes(b"nothing of a font")
    monkeypatch.setattr(minclip.data.glyphs, "bundled_fonts", lambda: [Path(atlas.faces[0].path)])
    monkeypatch.setattr(cli, "train_on_glyphs", lambda *_: (None, None, [{"step": 1}]))
    code, _, err = said(capsys, "pretrain", "--fonts", tmp_path, "--run", tmp_path / "run", *SHORT)
    assert code == 0 and "1 font file" in err and "broken.ttf" in err


def test_check_reports_versions_device_and_ten_steps(capsys, atlas, tmp_path):
    code, out, _ = said(capsys, "check", "--device", "cpu", "--json", tmp_path / "check.json")
    facts = json.loads((tmp_path / "check.json").read_text())
    assert code == 0 and facts["torch"] == torch.__version__.split("+")[0] or facts["torch"] == torch.__version__
    assert re.search(r"^python +3\.", out, re.MULTILINE) and re.search(r"^device +\d+ CPU threads?", out, re.MULTILINE)
    assert re.search(r"^ten steps +loss \d\.\d{3} to \d\.\d{3} in \d", out, re.MULTILINE)


def test_a_command_that_is_no_work_for_several_processes_says_so(monkeypatch, capsys):
    monkeypatch.setattr(cli.distributed, "world_size", lambda: 2)
    code, _, err = said(capsys, "evaluate", "glyphs-tiny")
    assert code == 1 and re.fullmatch(r"minclip: .*torchrun.*pretrain alone.*\n", err)


def test_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "minclip", "demo", "--preset", "nope"], capture_output=True, text=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    assert re.fullmatch(r"minclip: There is no preset 'nope'; .*\n", done.stderr)


def test_who_reads_the_output_may_stop():
    reading, writing = os.pipe()
    os.close(reading)  # as `head` does once it has its lines
    done = subprocess.run(
        [sys.executable, "-m", "minclip", "progress", "exercises/01_pictures_that_came_with_names"],
        stdout=writing, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 1 and done.stderr == ""
