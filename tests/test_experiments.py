"""Each experiment measures what it says: on cases whose answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import minclip
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
