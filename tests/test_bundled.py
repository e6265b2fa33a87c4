"""A bundled model does what its card says."""

import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import minclip
from minclip import plots
from minclip.data.tasks import glyph_tasks
from minclip.evaluation import evaluate_task
from minclip.pretrained import BUNDLED

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))
import readme_picture  # noqa: E402

MODELS = sorted(path.name for path in BUNDLED.iterdir())


@pytest.fixture(scope="module")
def tasks(atlas):
    return glyph_tasks(atlas)


@pytest.mark.parametrize("name", MODELS)
def test_a_bundled_model_is_as_good_as_its_card_says(name, tasks):
    card = (BUNDLED / name / "README.md").read_text()
    model, tokenizer = minclip.load(name)
    for task, claim in (
        ("unseen-names", r"([\d.]+)% on `unseen-names`"),
        ("unseen-typeface-digits", r"([\d.]+)% on digits in a typeface never seen"),
    ):
        accuracy = 100 * evaluate_task(model, tokenizer, tasks[task]).accuracy
        assert accuracy == pytest.approx(float(re.search(claim, card)[1]), abs=0.3)


def test_all_bundled_models_together_stay_small():
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) < 20_000_000


def test_the_readme_shows_what_the_bundled_model_says(tmp_path):
    plots.write(readme_picture.draw, readme_picture.guesses(), tmp_path / "now.png")
    now, shown = (
        plt.imread(folder / name)
        for folder, name in ((tmp_path, "now.png"), (NOTEBOOKS / "recorded", "unseen_names.png"))
    )
    assert now.shape == shown.shape
    assert (abs(now - shown).max(-1) > 0.1).mean() < 0.002  # room for a percent rounded otherwise, not for a bar
