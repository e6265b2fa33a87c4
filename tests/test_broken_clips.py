"""Each mistake of `minclip.experiments.mistakes` is the mistake it says: in float64, beside the right loss."""

import json
import math
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F

from minclip import CLIP
from minclip.experiments import broken_clips, mistakes
from minclip.experiments.broken_clips import BATCH, encode, suspects, train
from minclip.experiments.common import Setting
from minclip.experiments.mistakes import MISTAKES, RIGHT, end_of_text, first_token, right

SCALE = torch.tensor(14.3, dtype=torch.float64)


def features(n=8, width=5, seed=0):
    """Features of pictures and captions (n, width) of any length, that have something to do with each other."""
    generator = torch.Generator().manual_seed(seed)
    images, noise = torch.randn(2, n, width, generator=generator, dtype=torch.float64)
    return images.requires_grad_(), (images.detach() + noise).requires_grad_()


def gradients(loss, images, texts):
    scale = SCALE.clone().requires_grad_()
    return torch.autograd.grad(loss(images, texts, scale), (images, texts, scale), allow_unused=True)


def test_the_right_loss_is_of_directions_alone():
    images, texts = features()
    assert torch.isclose(right(3 * images, texts / 7, SCALE), right(images, texts, SCALE))


def test_without_normalisation_length_counts():
    images, texts = features()
    loss = mistakes.no_normalisation
    assert torch.isclose(
        loss(F.normalize(images, dim=1), F.normalize(texts, dim=1), SCALE), right(images, texts, SCALE)
    )
    assert not torch.isclose(loss(3 * images, texts, SCALE), loss(images, texts, SCALE))


def test_a_one_sided_loss_is_one_of_two_halves():
    images, texts = features()
    there, back = mistakes.one_sided(images, texts, SCALE), mistakes.one_sided(texts, images, SCALE)
    assert not torch.isclose(there, back)
    assert torch.isclose((there + back) / 2, right(images, texts, SCALE))


def test_soft_targets_are_right_only_where_nothing_is_alike():
    apart = torch.eye(6, dtype=torch.float64)
    assert torch.isclose(mistakes.soft_targets(apart, apart, 100 * SCALE), right(apart, apart, 100 * SCALE), atol=1e-12)
    images, texts = features()
    assert not torch.isclose(mistakes.soft_targets(images, texts, SCALE), right(images, texts, SCALE))
    alike = torch.ones(8, 3, dtype=torch.float64)
    assert math.isclose(mistakes.soft_targets(alike, alike, SCALE).item(), math.log(8))
    # Where pictures and captions agree, the target is what is predicted anyway: only its entropy is left to lower.
    predicted = (SCALE * (unit := F.normalize(images, dim=1)) @ unit.T).softmax(dim=1)
    entropy = -(predicted * predicted.log()).sum(dim=1).mean()
    assert torch.isclose(mistakes.soft_targets(images, images, SCALE), entropy)


def test_a_scale_before_normalising_cancels_and_leaves_a_floor():
    images, texts = features()
    loss = mistakes.scale_before_normalisation
    one = torch.ones((), dtype=torch.float64)
    assert torch.isclose(loss(images, texts, SCALE), right(images, texts, one))
    assert gradients(loss, images, texts)[2].abs() < 1e-12
    n = 8
    simplex = torch.eye(n, dtype=torch.float64) - 1 / n  # as far apart as eight pairs can be
    floor = math.log1p((n - 1) * math.exp(-n / (n - 1)))
    assert math.isclose(loss(simplex, simplex, SCALE).item(), floor)
    assert right(simplex, simplex, SCALE) < 1e-4 < floor


def test_gathering_without_gradient_has_the_right_value_and_the_wrong_gradient():
    images, texts = features()
    wanted = gradients(right, images, texts)
    for processes in (1, 2, 4):
        loss = partial(mistakes.gathered_without_gradient, processes=processes)
        found = gradients(loss, images, texts)
        assert torch.isclose(loss(images, texts, SCALE), right(images, texts, SCALE))
        assert torch.allclose(found[2], wanted[2])
        for mine, theirs in zip(found[:2], wanted[:2]):
            assert torch.allclose(mine, theirs) == (processes == 1)


def test_misaligned_captions_are_all_there_and_all_elsewhere():
    captions = [f"caption {i}" for i in range(9)]
    moved = mistakes.misaligned(captions)
    assert sorted(moved) == captions and not any(a == b for a, b in zip(moved, captions))


def test_captions_all_alike_cost_ln_n_and_no_picture_can_tell(tiny, tokenizer):
    captions = mistakes.all_alike(["one", "two", "three", "four"])
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    images, texts = encode(tiny.double(), images, tokenizer(captions), end_of_text)
    assert math.isclose(mistakes.one_sided(images, texts, SCALE).item(), math.log(4))  # each picture can but guess
    assert right(images, texts, SCALE).item() > math.log(4) - 1e-12  # captions at best
    assert math.isclose(right(images[:1].expand(4, -1), texts, SCALE).item(), math.log(4))


def test_the_first_token_reads_no_word(tiny, tokenizer):
    tokens = tokenizer(["black chess knight", "omega", "latin small letter a"])
    images = torch.zeros(3, 3, 32, 32)
    _, read = encode(tiny, images, tokens, end_of_text)
    _, unread = encode(tiny, images, tokens, first_token)
    assert torch.allclose(F.normalize(read, dim=1), tiny.encode_text(tokens), atol=1e-6)
    assert torch.allclose(unread[0], unread[1], atol=1e-6) and torch.allclose(unread[0], unread[2], atol=1e-6)
    assert not torch.allclose(read[0], read[1], atol=1e-3)


def test_another_activation_loads_the_same_weights_and_gives_other_features(tiny, tokenizer):
    tiny = CLIP(replace(tiny.config, quick_gelu=True)).double()
    other = CLIP(replace(tiny.config, quick_gelu=False)).double()
    other.load_state_dict(tiny.state_dict())
    tokens = tokenizer(["omega", "knight"])
    cosine = (tiny.encode_text(tokens) * other.encode_text(tokens)).sum(1)
    assert (cosine < 1 - 1e-9).all() and (cosine > 0.9).all()
    assert MISTAKES["GELU for QuickGELU"].quick_gelu is False


@pytest.mark.parametrize("clamp", [True, False])
def test_only_the_clamp_keeps_the_scale_at_100(clamp, atlas, monkeypatch):
    # This loss wants nothing but a larger scale.
    greedy = replace(RIGHT, loss=lambda images, texts, scale: -scale.log() + 0 * images.sum(), clamp=clamp)
    new_model = broken_clips.new_model

    def nearly_there(*arguments):
        model, tokenizer = new_model(*arguments)
        model.logit_scale.data.fill_(math.log(99.9))
        return model, tokenizer

    monkeypatch.setattr(broken_clips, "new_model", nearly_there)
    highest = max(record["logit_scale"] for record in train(greedy, atlas, 0, 6 * BATCH, records=6))
    assert highest == pytest.approx(100, abs=1e-3) if clamp else highest > 100.1


def curve(losses, scales):
    return [{"loss": loss, "logit_scale": scale} for loss, scale in zip(losses, scales)]


def test_suspects_follow_from_ln_n():
    guessing = math.log(BATCH)
    known = {
        ("no normalisation",): curve([150.0, 2.0], [14.3, 9.0]),
        ("scale before normalising",): curve([4.2, 3.5], [14.3, 14.302]),
        ("no clamp",): curve([5.0, 1.0], [14.3, 130.0]),
        ("captions misaligned", "captions all alike", "first token read"): curve([5.0, guessing], [14.3, 13.0]),
    }
    for names, records in known.items():
        assert suspects(records) == set(names)
    rest = suspects(curve([5.0, 1.0], [14.3, 13.0]))
    assert rest | {name for names in known for name in names} == set(MISTAKES), "each mistake is suspected somewhere"


def test_a_short_run_of_all_of_them_is_told_and_drawn(atlas, monkeypatch, tmp_path):
    def short(mistake, atlas, seed, images_seen, device):
        return train(mistake, atlas, seed, 6 * BATCH, records=3)

    monkeypatch.setattr(broken_clips, "train", short)
    monkeypatch.setattr(broken_clips, "load_atlas", lambda size: atlas)
    known = {"glyphs-vit": {"as trained": 0.5, "the other": 0.25}}
    monkeypatch.setattr(broken_clips, "with_another_activation", lambda atlas, device: known)
    results = json.loads(json.dumps(broken_clips.run(Setting("quick", runs=tmp_path))))  # plain data, as it is recorded
    assert set(results["runs"]) == {"right", *MISTAKES}
    assert results["runs"]["no clamp"] == results["runs"]["right"]  # the scale is far from 100
    assert results["runs"]["captions misaligned"] != results["runs"]["right"]
    monkeypatch.setattr(broken_clips, "train", None)  # all runs are kept, and found again
    assert broken_clips.run(Setting("quick", runs=tmp_path))["runs"] == results["runs"]
    text = broken_clips.as_text(results)
    assert all(name in text for name in MISTAKES) and "50.0%, 25.0%" in text
    broken_clips.plot(results)
    plt.close("all")


def test_a_loss_a_little_above_or_below_ln_n_accuses_nobody_in_particular():
    guessing = math.log(broken_clips.BATCH)
    records = [
        {"loss": loss, "logit_scale": scale} for loss, scale in ((1.5 * guessing, 14.3), (0.95 * guessing, 13.0))
    ]
    assert broken_clips.suspects(records) >= {"soft targets", "GELU for QuickGELU"}
