"""The followed run: its candidates differ, its floor is a floor, and it goes on where it was killed."""

import math
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F

from minclip import MinclipError, contrastive_loss
from minclip.data.glyphs import load_atlas
from minclip.data.painting import GlyphPairs, Paint
from minclip.experiments import common, pretraining
from minclip.presets import find_preset
from minclip.train import TrainConfig
from minclip.zeroshot import retrieval


@pytest.fixture(scope="module")
def pairs():
    return GlyphPairs(load_atlas().training(), find_preset("gpu").paint)


def run_of(steps: int, log_every: int = 1) -> TrainConfig:
    return TrainConfig(images_seen=8 * steps, batch_size=8, log_every=log_every)


def test_moments_spread_out_are_logged_and_end_with_the_run():
    assert pretraining.moments(run_of(400)) == [10, 17, 29, 49, 83, 140, 237, 400]
    assert pretraining.moments(run_of(3)) == [3]
    assert pretraining.moments(run_of(403, log_every=10)) == [10, 20, 30, 50, 90, 150, 240, 403]


def test_of_a_long_run_the_beginning_and_the_moments_are_recorded():
    records = [{"step": n} for n in range(1, 403)]
    kept = [record["step"] for record in pretraining.thinned(records, run_of(402))]
    assert kept[:100] == list(range(1, 101)) and {140, 238, 402} <= set(kept) and len(kept) == 100 + 30 + 2


def test_candidates_differ_and_keep_their_pictures(pairs):
    count = len(pairs) + 3000  # more than an epoch: some captions come again
    images, captions, passed_over = pretraining.distinct_pairs(pairs, count)
    assert len(images) == len(captions) == len(set(captions)) == count
    stream = pairs.captions(count + passed_over, pretraining.TEST_SEED)
    assert len(set(stream)) == count and passed_over > 0
    for place in (0, 1500, count - 1):
        again, _ = pairs.batch(1, pretraining.TEST_SEED, stream.index(captions[place]))
        assert torch.allclose(images[place], again[0], atol=1e-6)


def test_a_stream_of_few_captions_is_refused():
    few = load_atlas().training()
    few = few.select(few.script == "Hebrew")
    with pytest.raises(MinclipError, match="only .* differ"):
        pretraining.distinct_pairs(GlyphPairs(few, Paint(described=0, coloured=0)), 1000)


def test_no_features_get_below_the_floor_of_duplicates():
    captions = ["a", "b", "a", "c", "a", "b"]
    sides = torch.eye(3)[[0, 1, 0, 2, 0, 1]]  # a model that knows all there is to know
    floor = pretraining.duplicates_floor(captions)
    assert floor == pytest.approx((3 * math.log(3) + 2 * math.log(2)) / 6)
    assert contrastive_loss(sides, sides, torch.tensor(1000.0)).item() == pytest.approx(floor, abs=1e-6)
    assert pretraining.duplicates_floor(["a", "b"]) == 0


def test_recall_in_strips_is_recall_of_the_whole():
    torch.manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(5000, 8), dim=1)
    texts = torch.nn.functional.normalize(images + 0.5 * torch.randn(5000, 8), dim=1)
    similarity = images @ texts.T
    found = retrieval(images, texts, ks=(1,))
    hits = similarity.argmax(1) == torch.arange(5000)
    assert found["image_to_text_R@1"] == pytest.approx(hits.float().mean().item(), abs=1e-3)
    assert 0.01 < found["image_to_text_R@1"] < 0.9


@pytest.mark.parametrize("gib, batch", [(8, 4096), (24, 32_768)])
def test_the_recipe_on_a_gpu_fits_its_memory_and_a_short_run_is_not_compiled(gib, batch, monkeypatch):
    card = SimpleNamespace(total_memory=gib * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    quick, whole = (
        pretraining.recipe(common.Setting(scale, device=torch.device("cuda"))) for scale in ("quick", "recorded")
    )
    assert quick.train.batch_size == whole.train.batch_size == batch and quick.train.steps == 40
    assert not quick.train.compile and whole.train.compile == (batch == 32_768)


def test_the_experiment_end_to_end_and_again_from_what_it_kept(tmp_path, monkeypatch):
    preset = find_preset("cpu")
    small = replace(preset.model, vision_layers=(1, 1, 1, 1), vision_width=8, transformer_width=32, embed_dim=32)
    short = replace(preset.train, images_seen=3 * 64, batch_size=64, chunk=32, log_every=1)
    monkeypatch.setattr(pretraining, "recipe", lambda setting: replace(preset, model=small, train=short))
    monkeypatch.setattr(pretraining, "TASKS", ("unseen-typeface-digits", "unseen-names"))
    monkeypatch.setattr(pretraining, "CANDIDATES", {"quick": 128})
    setting = common.Setting(seeds=1, runs=tmp_path)
    results = pretraining.run(setting)
    [found] = results["runs"]
    assert [record["step"] for record in found["records"]] == [1, 2, 3]
    assert list(found["moments"][-1]["candidates"]) == [32, 64, 128]
    assert results["step"]["candidates"] == 128 and 0 < results["step"]["utilisation"] < 2
    assert results["step"]["flops_of_loss"] == pytest.approx(
        3 * 2 * 128**2 * 32, rel=1e-5
    )  # one product forwards, two back
    monkeypatch.setattr(pretraining, "train_step", None)  # but the whole step, nothing is trained again
    monkeypatch.setattr(pretraining, "whole_step", lambda *_: results["step"])
    assert pretraining.run(setting)["runs"] == results["runs"]
    assert "R@1 of 128" in pretraining.as_text(results)
    pretraining.plot(results)
    plt.close("all")


def test_recall_is_among_the_first_n_and_the_mean_of_both_ways(monkeypatch):
    images, texts = torch.eye(64), torch.eye(64)
    texts[0] = F.normalize(torch.ones(64), dim=0)  # a caption that is near to all pictures, and nearest to none
    images[40] = images[1]  # a double, outside of the first 32
    monkeypatch.setattr(pretraining, "preprocess", lambda some, config: some)
    monkeypatch.setattr(pretraining, "encode_images", lambda *_: images)
    monkeypatch.setattr(pretraining, "encode_texts", lambda *_: texts)
    monkeypatch.setattr(pretraining, "evaluate_tasks", lambda *_: {})
    found = pretraining.look(SimpleNamespace(config=None), None, None, [""] * 64, {})["candidates"]
    for n in (32, 64):
        recalls = retrieval(images[:n], texts[:n], ks=(1,))
        assert len(set(recalls.values())) == 2 or n == 32
        assert found[n] == pytest.approx(sum(recalls.values()) / 2)
    assert found[32] > found[64]


def test_the_share_of_the_machine_that_is_used(monkeypatch):
    counted = iter([1000.0, 16.0 * 32**2])  # of the encoders for 32 pairs; of the loss for 32 squared
    monkeypatch.setattr(pretraining, "flops", lambda step: next(counted))
    monkeypatch.setattr(pretraining, "seconds", lambda step, device: 0.5)
    monkeypatch.setattr(pretraining, "peak_memory", lambda step, device: step() or 0.25)
    monkeypatch.setattr(pretraining, "matmul_peak", lambda *_: 1e6)
    found = pretraining.whole_step(common.find_preset("cpu"), torch.device("cpu"), 32)
    assert found["flops_of_loss"] == 16 * 32**2 and found["flops"] == 1000 + 16 * 32**2
    assert found["utilisation"] == pytest.approx((1000 + 16 * 32**2) / 0.5 / 1e6) and found["gib"] == 0.25
