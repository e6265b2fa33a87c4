"""Each experiment measures what it says: on cases whose answer is known."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import minclip
from minclip.checkpoint import CHECKPOINT
from minclip.data.painting import GlyphPairs
from minclip.data.tasks import Task
from minclip.experiments import common, prompts

ROOT = Path(__file__).parent.parent


class Oracle(torch.nn.Module):
    """Knows a few names, whatever stands around them: each caption and each picture is a direction of its own.

    A picture's top left pixel, in grey levels, is the place of its name.
    """

    def __init__(self, names: list[str], config):
        super().__init__()
        self.names, self.config = names, config
        self.logit_scale = torch.nn.Parameter(torch.tensor(3.0))

    def encode_image(self, images):
        return torch.eye(len(self.names))[images[:, 0, 0, 0].round().long()]

    def encode_text(self, captions):
        return torch.stack([torch.eye(len(self.names) + 1)[self.place(c)][:-1] for c in captions])

    def place(self, caption):
        return next((i for i, name in enumerate(self.names) if name in caption), -1)


def test_a_spread_is_the_deviation_between_seeds():
    assert common.spread([50.0]) == "50.0"
    assert common.spread([50.0, 52.0, 54.0]) == "52.0 ± 2.0"
    assert common.spread([1.0, 2.0], "+.1f") == "+1.5 ± 0.7"
    assert common.percent([0.5, 0.54]) == "52.0 ± 2.8%"
    assert (
        common.table(("name", "a"), [("long name", "10"), ("x", "9")]) == "name        a\nlong name  10\nx           9"
    )


def test_claims_fit_the_screen():
    text = common.claims_as_text([common.claim("this", "that", "word " * 40), common.claim("those", "-", "1%")], 50)
    assert max(map(len, text.split("\n"))) <= 50
    assert " ".join(text.split()) == f"this paper that measured {'word ' * 40}those paper - measured 1%"


def test_a_model_is_trained_once_and_found_again(tmp_path, monkeypatch):
    trained = []

    def train(preset, pairs, captions, run, device, resume):
        trained.append(preset.train.seed)
        minclip.save(*minclip.load("glyphs-vit"), run)

    monkeypatch.setattr(common, "train_on_pairs", train)
    setting = common.Setting("recorded", 2, runs=tmp_path)
    for _ in range(2):
        assert len(list(common.trained_models(setting))) == 2
    assert trained == [0, 1]


def test_prompts_of_an_oracle_and_of_exchanged_names(monkeypatch):
    names = ["digit one", "digit two", "greek small letter mu"]
    monkeypatch.setattr(prompts, "preprocess", lambda images, config: torch.as_tensor(images).float())
    monkeypatch.setattr(prompts, "RENAMINGS", {"in words it does not know": lambda name: name[::-1]})
    monkeypatch.setattr(prompts.np.random, "default_rng", lambda seed: Reversed())
    labels = np.array([0, 1, 2, 2])
    images = np.repeat(labels, 12).reshape(4, 3, 2, 2)
    task = Task("known", images, labels, names, ("{}",), "")
    results = prompts.measure(Oracle(names, None), lambda captions: Captions(captions), {"known": task})
    assert {results[way]["known"] for way in prompts.TEMPLATES} == {1.0}
    assert results["names exchanged"]["known"] == 0.25  # the one in the middle keeps its own
    assert results["in words it does not know"]["known"] == pytest.approx(0.25)  # all alike: the first is said


class Reversed:
    def permutation(self, names):
        return np.array(names[::-1])


class Captions(list):
    def to(self, device):
        return self


def test_where_git_is_not_installed_a_result_is_recorded_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert common.provenance(common.Setting(), 1.0)["commit"] == "not in a repository"


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/recorded/*.json")), ids=lambda path: path.stem)
def test_what_the_readme_tells_was_recorded(path):
    recorded = json.loads(path.read_text())
    assert {"command", "commit", "date", "device", "seeds", "seconds", "scale"} <= set(recorded["provenance"])
    assert recorded["provenance"]["scale"] == "recorded"
    readme = (ROOT / "README.md").read_text()
    for row in recorded["claims"]:
        assert f"| {row['claim']} | {row['paper']} | {row['measured']} | `{path.stem}` |" in readme


def test_times_is_the_geometric_mean():
    assert common.times([1.0, 4.0]) == "2.0 (1.0 to 4.0)" and common.times([3.0]) == "3.0"


def test_runs_are_kept_by_kind_and_go_on_where_they_were_killed(tmp_path, monkeypatch):
    resumed = []
    monkeypatch.setattr(
        common,
        "train_on_pairs",
        lambda preset, pairs, captions, run, device, resume: (
            resumed.append(resume) or minclip.save(*minclip.load("glyphs-vit"), run)
        ),
    )
    monkeypatch.setattr(common, "captions_to_read", lambda pairs, seed: [])
    preset, setting = common.find_preset("cpu"), common.Setting(runs=tmp_path)
    assert common.run_folder(preset, setting, "a") != common.run_folder(preset, setting, "b")
    folder = common.run_folder(preset, setting, "a")
    folder.mkdir(parents=True)
    (folder / CHECKPOINT).write_bytes(b"of a run that was killed")
    for kind in ("a", "b", "a"):
        common.trained_on(None, preset, kind, setting)
    assert resumed == [True, False]  # and the third was there


def test_ways_of_naming():
    assert prompts.last_words("greek small letter alpha") == "alpha" and prompts.last_words("digit one") == "one"
    assert prompts.turned_round("greek small letter alpha") == "alpha greek small letter"
    assert prompts.TEMPLATES["one template"] == ("the character {}",)
    many = prompts.many_templates()
    assert len(many) == len(set(many)) == 22 and {"{}", "bold {}", "bold italic {} in stix"} <= set(many)


def test_wordy_models_never_saw_a_bare_name(monkeypatch, atlas):
    monkeypatch.setattr(prompts, "trained_model", lambda preset, seed, setting: (preset, seed))
    (preset, _), (_, second) = prompts.wordy_models(common.Setting("quick", 2))
    captions = GlyphPairs(atlas.training(), preset.paint).captions(500)
    assert second == 1 and not set(captions) & set(atlas.name)


def test_other_names_are_compared_in_the_same_wordings(monkeypatch):
    asked = []
    monkeypatch.setattr(prompts, "encode_images", lambda *_: None)
    monkeypatch.setattr(prompts, "preprocess", lambda *_: None)
    monkeypatch.setattr(
        prompts,
        "task_accuracy",
        lambda model, tokenizer, features, task, names, templates: asked.append((tuple(names), templates)) or 0.5,
    )
    task = Task("two", np.zeros((2, 2, 2, 3), np.uint8), np.arange(2), ["digit one", "digit two"], ("{}",), "")
    found = prompts.measure(SimpleNamespace(config=None), None, {"two": task})
    by_way = dict(zip(found, asked))
    assert by_way["three templates"] == (("digit one", "digit two"), prompts.PLAIN)
    assert by_way["last words"] == (("one", "two"), prompts.PLAIN) and by_way["in capitals"][1] == prompts.PLAIN
    assert sorted(by_way["names exchanged"][0]) == task.class_names and by_way["names exchanged"][1] == prompts.PLAIN
