"""The projects: their starters run, and the leaderboard measures what it says and refuses what it should."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import minclip
from minclip import MinclipError
from minclip.data.tasks import validation_task
from minclip.evaluation import evaluate_task

PROJECTS = Path(__file__).resolve().parent.parent / "exercises" / "projects"


@pytest.fixture(scope="module")
def leaderboard():
    spec = importlib.util.spec_from_file_location("leaderboard", PROJECTS / "2_a_better_recipe" / "leaderboard.py")
    module = sys.modules["leaderboard"] = importlib.util.module_from_spec(spec)  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["leaderboard"]


def make_run(folder: Path, images_seen: int = 149_952, batch: int = 192, name: str = "glyphs-tiny") -> Path:
    """A run as `pretrain` leaves it, of a bundled model's weights."""
    minclip.save(*minclip.load(name), folder)
    steps = [*range(10, images_seen // batch, 100), images_seen // batch]
    lines = [{"step": s, "images_seen": s * batch, "loss": 1.0, "logit_scale": 14.3, "seconds": s / 8} for s in steps]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_the_score_is_measured_and_not_read(leaderboard, tmp_path, atlas, capsys):
    small, large = make_run(tmp_path / "tiny"), make_run(tmp_path / "vit", name="glyphs-vit")
    (small / "results.json").write_text(json.dumps({"images_seen": 149_952, "zero_shot": {"unseen-names": 0.99}}))
    leaderboard.main((small, large), json=tmp_path / "board.json")
    entries = json.loads((tmp_path / "board.json").read_text())
    assert [Path(entry["run"]).name for entry in entries] == ["vit", "tiny"]  # the better one first
    want = evaluate_task(*minclip.load("glyphs-tiny"), validation_task(atlas)).accuracy
    assert entries[1]["accuracy"] == want
    assert entries[1]["images_seen"] == 149_952 and 0.005 < entries[1]["margin"] < 0.03
    printed = capsys.readouterr().out
    assert f"{100 * want:.1f} ±" in printed and "149,952" in printed


def test_a_run_over_the_budget_is_refused(leaderboard, tmp_path, capsys):
    run = make_run(tmp_path / "long", images_seen=150_144)
    with pytest.raises(SystemExit) as stop:
        leaderboard.main((run,))
    assert stop.value.code == 1
    said = capsys.readouterr()
    assert "saw 150,144 pictures; the budget is 150,000" in said.err and "%" not in said.out
    assert leaderboard.pictures_seen(run, 150_144)["images_seen"] == 150_144  # within a larger one


def test_files_that_contradict_each_other_are_refused(leaderboard, tmp_path):
    run = make_run(tmp_path / "run")
    good = (run / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in good.splitlines()]

    def refused(reason):
        with pytest.raises(MinclipError, match=reason):
            leaderboard.pictures_seen(run, 150_000)

    assert leaderboard.pictures_seen(run, 150_000) == lines[-1]
    (run / "results.json").write_text(json.dumps({"images_seen": 512_000}))
    refused("ends at 149952 pictures, and results.json says 512000")
    (run / "results.json").write_text("{}")
    refused("results.json is missing or damaged")
    (run / "results.json").unlink()
    for damage in ("", "not json", json.dumps({"step": 3}), json.dumps([1])):
        (run / "metrics.jsonl").write_text(damage)
        refused("missing or damaged")
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines[:-1] + [lines[-1] | {"images_seen": 140_000}])))
    refused("not of one run")
    (run / "metrics.jsonl").write_text(good + "\n" + good)
    refused("not of one run")
    (run / "metrics.jsonl").unlink()
    refused("missing or damaged")


def test_a_checkpoint_that_went_further_is_believed_over_the_metrics(leaderboard, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    (run / "checkpoint.pt").touch()
    checkpoint = {"step": 800, "train_config": {"batch_size": 192}}
    monkeypatch.setattr(leaderboard, "read_checkpoint", lambda folder: checkpoint)
    with pytest.raises(MinclipError, match="checkpoint.pt says 153600"):
        leaderboard.pictures_seen(run, 150_000)
    checkpoint["step"] = 781
    assert leaderboard.pictures_seen(run, 150_000)["step"] == 781


def test_one_bad_run_does_not_stop_the_others(leaderboard, tmp_path, capsys):
    good, torn = make_run(tmp_path / "good"), make_run(tmp_path / "torn")
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    leaderboard.main((torn, tmp_path / "nowhere", good))
    said = capsys.readouterr()
    assert said.err.count("refused: ") == 2 and said.out.count("good") == 1


@pytest.mark.parametrize("path", sorted(PROJECTS.glob("*/starter.ipynb")), ids=lambda path: path.parent.name)
def test_a_starter_runs_from_top_to_bottom(path, tmp_path, monkeypatch, atlas):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(shutil.copytree(path.parent, tmp_path / path.parent.name))
    namespace = {"__name__": "starter"}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), path.parent.name, "exec"), namespace)
    plt.close("all")


def test_every_project_has_a_task_and_a_table_of_twenty_points():
    folders = [folder for folder in sorted(PROJECTS.iterdir()) if folder.is_dir()]
    assert len(folders) == 4
    for text in [*(folder / "README.md" for folder in folders), PROJECTS / "README.md"]:
        lines = text.read_text("utf-8").splitlines()
        points = [
            int(line.split("|")[1]) for line in lines if line.startswith("| ") and line.split("|")[1].strip().isdigit()
        ]
        assert sum(points) == 20, text
        assert "starter" in (PROJECTS / "README.md").read_text("utf-8")
