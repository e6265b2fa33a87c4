"""Candidates, temperature and twins: the loss, the batches and the floor are what they are said to be."""

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from minclip.experiments import batch_size
from minclip.experiments.batch_size import BARE, DESCRIBED, Case, RepeatedPairs
from minclip.experiments.common import Setting
from minclip.loss import contrastive_loss


def unit(rows: int, width: int = 6) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, dtype=torch.float64), dim=1)


def test_groups_as_large_as_the_batch_are_the_whole_loss_and_groups_of_one_know_it_all():
    torch.manual_seed(0)
    images, texts, scale = unit(12), unit(12), torch.tensor(7.0, dtype=torch.float64)
    torch.testing.assert_close(
        batch_size.loss_within_groups(images, texts, scale, 12), contrastive_loss(images, texts, scale)
    )
    assert batch_size.loss_within_groups(images, texts, scale, 1) == 0
    by_hand = sum(contrastive_loss(images[i : i + 4], texts[i : i + 4], scale) for i in (0, 4, 8)) / 3
    torch.testing.assert_close(batch_size.loss_within_groups(images, texts, scale, 4), by_hand)


@pytest.mark.parametrize("copies", [1, 4, 16])
def test_each_name_stands_so_often_in_a_batch(atlas, copies):
    pairs = RepeatedPairs(atlas.training(), BARE)
    pairs.copies = copies
    images, captions = pairs.batch(64, 0, 128)
    assert set(Counter(captions).values()) == {copies}
    assert len(torch.unique(images.flatten(1), dim=0)) == 64  # no two pictures are alike


def test_captions_that_say_more_are_seldom_alike(atlas):
    pairs = RepeatedPairs(atlas.training(), DESCRIBED)
    pairs.copies = 16
    captions = pairs.batch(256)[1]
    assert len(set(captions)) > 0.6 * 256
    large = GlyphCaptions(atlas).share_alone(32_768)
    assert large > 0.5


class GlyphCaptions:
    def __init__(self, atlas):
        self.pairs = RepeatedPairs(atlas.training(), DESCRIBED)

    def share_alone(self, count: int) -> float:
        """Share of captions without a twin in a batch."""
        counts = Counter(self.pairs.captions(count))
        return sum(times for times in counts.values() if times == 1) / count


def test_twins_keep_the_loss_above_ln_of_their_number():
    """Even for an oracle: identical captions have identical features."""
    names = torch.eye(8, dtype=torch.float64).repeat_interleave(4, dim=0)
    assert contrastive_loss(names, names, torch.tensor(100.0, dtype=torch.float64)).item() == pytest.approx(math.log(4))


def test_a_fixed_scale_stays_and_a_learned_one_moves():
    *_, losses = batch_size.train(Case(64, 64), 320, 0, torch.device("cpu"))
    assert len(losses) == 5
    fixed, _, _ = batch_size.train(Case(64, 64, scale=30.0), 320, 0, torch.device("cpu"))
    assert fixed.logit_scale.exp().item() == pytest.approx(30)
    learned, _, _ = batch_size.train(Case(64, 16), 320, 0, torch.device("cpu"))
    assert learned.logit_scale.exp().item() != pytest.approx(batch_size.START, rel=1e-4)


def test_chunks_change_nothing(monkeypatch):
    """The same batch embedded at once and in parts: the same weights, but for rounding."""
    whole, _, losses = batch_size.train(Case(96, 96), 192, 0, torch.device("cpu"))
    monkeypatch.setattr(batch_size, "CHUNK", 40)
    parts, _, again = batch_size.train(Case(96, 96), 192, 0, torch.device("cpu"))
    assert again == pytest.approx(losses, rel=1e-4)
    torch.testing.assert_close(parts.visual.proj, whole.visual.proj, atol=3e-4, rtol=0)


def test_learning_rates_grow_with_the_root_of_the_batch():
    assert [Case(batch).lr for batch in (64, 256, 1024, 32_768)] == pytest.approx([1e-3, 2e-3, 4e-3, 8e-3])


def test_run_end_to_end_on_almost_nothing_and_find_it_again(tmp_path, monkeypatch):
    plan = replace(batch_size.PLANS["quick"], pictures=256, batches=(64, 256))
    monkeypatch.setattr(batch_size, "PLANS", {"quick": plan})
    monkeypatch.setattr(batch_size, "NAMED", ("planets", "chess"))
    setting = Setting("quick", 1, runs=tmp_path)
    results = batch_size.run(setting)
    assert [run["steps"] for run in results["batch"]] == [4, 1]
    assert results["chance"] == pytest.approx((1 / 9 + 1 / 12) / 2)
    assert len(results["copies"]) == 4 and len(results["claims"]) == 4
    batch_size.plot(results)
    assert batch_size.as_text(results).count("\n") > 15
    monkeypatch.setattr(batch_size, "train", None)
    assert batch_size.run(setting) == results


def test_the_tasks_are_the_atlas_own():
    assert 0.03 < batch_size.chance() < 0.08


def test_what_is_measured_is_kept_by_case_and_seed(monkeypatch, tmp_path, tiny):
    trained = []
    monkeypatch.setattr(
        batch_size,
        "train",
        lambda case, pictures, seed, device: trained.append(seed) or (tiny, None, [float(n) for n in range(20)]),
    )
    monkeypatch.setattr(
        batch_size, "evaluate_retrieval", lambda *_: {"image_to_text_R@1": 0.2, "text_to_image_R@1": 0.4}
    )
    monkeypatch.setattr(batch_size, "evaluate_task", lambda *_: SimpleNamespace(accuracy=0.5))
    setting = Setting(runs=tmp_path)
    found = [batch_size.measure(batch_size.Case(), 100, seed, setting) for seed in (0, 1, 0)]
    assert trained == [0, 1] and [run["seed"] for run in found] == [0, 1, 0]
    assert found[0]["retrieval"] == pytest.approx(0.3) and found[0]["zero_shot"] == 0.5
    assert (found[0]["first_loss"], found[0]["last_loss"], found[0]["steps"]) == (0, 18.5, 20)  # the last tenth


@pytest.mark.parametrize("candidates", [64, 16])
def test_each_step_has_pictures_of_its_own_and_the_scale_its_limit(candidates, monkeypatch):
    asked, deal = [], batch_size.RepeatedPairs.batch
    monkeypatch.setattr(
        batch_size.RepeatedPairs, "batch", lambda self, *place: asked.append(place) or deal(self, *place)
    )
    new_model = batch_size.new_model

    def nearly_there(*arguments):
        model, tokenizer = new_model(*arguments)
        model.logit_scale.data.fill_(6.0)
        return model, tokenizer

    monkeypatch.setattr(batch_size, "new_model", nearly_there)
    model, _, _ = batch_size.train(batch_size.Case(64, candidates), 192, 3, torch.device("cpu"))
    assert asked == [(64, 3, 0), (64, 3, 64), (64, 3, 128)]
    assert model.logit_scale.exp().item() <= 100 * (1 + 1e-6)
