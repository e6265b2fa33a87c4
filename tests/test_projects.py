"""The projects: their starters run, and the leaderboard measures what it says and refuses what it should."""

import importlib.util
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest

import minclip
from minclip import MinclipError
from minclip.checkpoint import read_checkpoint, write_checkpoint
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
    model, tokenizer = minclip.load(name)
    minclip.save(model, tokenizer, folder)
    state = {"model": model.state_dict(), "optimizer": {}, "step": images_seen // batch, "random_states": {}}
    about = {"model_config": asdict(model.config), "train_config": {"batch_size": batch}}
    write_checkpoint(folder, state | about | {"tokenizer": tokenizer.to_json()})
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


def change_checkpoint(run: Path, **parts) -> None:
    write_checkpoint(run, read_checkpoint(run) | parts)


def test_a_checkpoint_that_went_further_is_believed_over_the_metrics(leaderboard, tmp_path):
    run = make_run(tmp_path / "run")
    change_checkpoint(run, step=800)
    with pytest.raises(MinclipError, match="checkpoint.pt says 153600"):
        leaderboard.pictures_seen(run, 150_000)
    change_checkpoint(run, step=781)
    assert leaderboard.pictures_seen(run, 150_000)["step"] == 781


def test_a_run_without_its_checkpoint_is_refused(leaderboard, tmp_path):
    run = make_run(tmp_path / "run", images_seen=300_000)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(lines[:5]))  # as if it had stopped there
    with pytest.raises(MinclipError, match="checkpoint.pt says"):
        leaderboard.pictures_seen(run, 150_000)
    (run / "checkpoint.pt").unlink()
    with pytest.raises(MinclipError, match="There is no checkpoint"):
        leaderboard.pictures_seen(run, 150_000)


@pytest.mark.parametrize("name", ["glyphs-tiny", "glyphs-vit"])
def test_weights_that_the_run_did_not_end_with_are_refused(leaderboard, tmp_path, name):
    run = make_run(tmp_path / "run", name=name)
    own, tokenizer = leaderboard.trained_model(run)  # in a ViT's folder they bear other names
    other = {"glyphs-tiny": "glyphs-vit", "glyphs-vit": "glyphs-tiny"}[name]
    for foreign in (minclip.load(other), (own, tokenizer)):
        foreign[0].logit_scale.data += 0.01
        minclip.save(*foreign, run)
        with pytest.raises(MinclipError, match="are not those of checkpoint.pt"):
            leaderboard.trained_model(run)


FORGED = {
    "pictures as text": {"images_seen": "149952"},
    "pictures below 0": {"images_seen": -149_952, "step": -781},
    "half a picture": {"images_seen": 149_952.5},
    "pictures without end": {"images_seen": float("inf")},
    "seconds as text": {"seconds": "fast"},
    "seconds without end": {"seconds": float("inf")},
    "seconds below 0": {"seconds": -1},
    "seconds with 400 digits": {"seconds": 10**400},
}


def forge(run: Path, **values) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([*lines[:-1], json.dumps(json.loads(lines[-1]) | values)]))


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_figure_is_refused_in_a_sentence(leaderboard, tmp_path, what):
    run = make_run(tmp_path / "run")
    forge(run, **FORGED[what])
    with pytest.raises(MinclipError, match="metrics.jsonl is missing or damaged: ValueError|Overflow"):
        leaderboard.pictures_seen(run, 150_000)


@pytest.mark.parametrize("parts", [{"train_config": {}}, {"train_config": 3}, {"step": "781"}, {"step": -781}], ids=str)
def test_a_forged_checkpoint_is_refused_in_a_sentence(leaderboard, tmp_path, parts):
    run = make_run(tmp_path / "run")
    change_checkpoint(run, **parts)
    with pytest.raises(MinclipError, match="checkpoint.pt is missing or damaged"):
        leaderboard.pictures_seen(run, 150_000)


def test_one_bad_run_does_not_stop_the_others(leaderboard, tmp_path, capsys, monkeypatch):
    good, torn, forged, odd = (make_run(tmp_path / name) for name in ("good", "torn", "forged", "odd"))
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    forge(forged, seconds="fast")
    change_checkpoint(odd, model_config={"embed_dim": {}})
    seen = leaderboard.pictures_seen
    unthought_of = tmp_path / "unthought of"
    monkeypatch.setattr(
        leaderboard, "pictures_seen", lambda run, budget: 1 // 0 if run == unthought_of else seen(run, budget)
    )
    leaderboard.main((torn, tmp_path / "nowhere", forged, odd, unthought_of, good))
    said = capsys.readouterr()
    assert said.err.count("refused: ") == said.err.count("\n") == 5 and said.out.count("good") == 1
    assert "unthought of cannot be judged (ZeroDivisionError" in said.err


def test_the_final_ranking_shows_validation_beside_and_stars_what_is_too_far_apart(
    leaderboard, tmp_path, capsys, monkeypatch
):
    runs = {name: make_run(tmp_path / name) for name in ("honest", "trained-on-the-test")}
    scores = iter([0.521, 0.511, 0.639, 0.141])
    monkeypatch.setattr(leaderboard, "evaluate_task", lambda *_: SimpleNamespace(accuracy=next(scores)))
    leaderboard.main(tuple(runs.values()), split="test", json=tmp_path / "board.json")
    _, first, second, note = capsys.readouterr().out.splitlines()
    assert "63.9 ± 1.5%" in first and "14.1 ± 1.2% *" in first and first.endswith("trained-on-the-test")
    assert "52.1 ± 1.6%" in second and "51.1 ± 1.7%" in second and "*" not in second
    assert note.startswith("* Test and validation are further apart than both margins")
    assert [entry["validation"][0] for entry in json.loads((tmp_path / "board.json").read_text())] == [0.141, 0.511]


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
