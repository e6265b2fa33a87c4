"""The contrastive loss against the paper's definition in plain loops, and its tiled form against it."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minclip import MinclipError, contrastive_loss
from minclip.loss import TiledLogSumExp, strips, tiled_contrastive_loss


def features(n: int, width: int, seed: int = 0, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = [F.normalize(torch.randn(n, width, generator=generator, dtype=dtype), dim=-1) for _ in range(2)]
    return *(side.requires_grad_() for side in sides), torch.tensor(math.log(1 / 0.07), dtype=dtype, requires_grad=True)


def value_and_gradients(loss_function, n: int, width: int, seed: int, dtype=torch.float64, **options):
    images, texts, log_scale = features(n, width, seed, dtype)
    loss = loss_function(images, texts, log_scale.exp(), **options)
    (3 * loss).backward()  # an incoming gradient other than 1 must be passed on
    return loss.detach(), images.grad, texts.grad, log_scale.grad


def loss_in_loops(images, texts, scale) -> float:
    """Figure 3, one similarity at a time."""
    n, total = len(images), 0.0
    logits = [[float(scale) * sum(float(a * b) for a, b in zip(i, t)) for t in texts] for i in images]
    for k in range(n):
        row, column = [logits[k][j] for j in range(n)], [logits[j][k] for j in range(n)]
        total += math.log(sum(map(math.exp, row))) + math.log(sum(map(math.exp, column))) - 2 * logits[k][k]
    return total / (2 * n)


@pytest.mark.parametrize("loss_function", [contrastive_loss, tiled_contrastive_loss])
def test_the_loss_is_the_papers(loss_function):
    images, texts, log_scale = (side.detach() for side in features(7, 4))
    assert loss_function(images, texts, log_scale.exp()).item() == pytest.approx(
        loss_in_loops(images, texts, log_scale.exp()), abs=1e-12
    )


@pytest.mark.parametrize("loss_function", [contrastive_loss, tiled_contrastive_loss])
def test_features_that_say_nothing_cost_ln_n(loss_function):
    same = F.normalize(torch.ones(50, 3, dtype=torch.float64), dim=-1)
    assert loss_function(same, same, torch.tensor(30.0)).item() == pytest.approx(math.log(50))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), width=st.integers(1, 9), tile=st.integers(1, 50), seed=st.integers(0, 2**31))
def test_any_tiling_gives_the_same_value_and_gradients(n, width, tile, seed):
    plain = value_and_gradients(contrastive_loss, n, width, seed)
    tiled = value_and_gradients(tiled_contrastive_loss, n, width, seed, tile=tile)
    for expected, got in zip(plain, tiled):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_the_backward_pass_agrees_with_finite_differences():
    a, b = torch.randn(5, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda a, b: TiledLogSumExp.apply(a, b, 2), (a.requires_grad_(), b.requires_grad_())
    )


def test_a_scale_of_100_neither_overflows_nor_vanishes():
    images, texts, _ = features(64, 8, dtype=torch.float32)
    opposite = torch.cat([images[:32], -texts[:32]])  # cosines of -1 give logits of -100: exp() is 0 in float32
    plain = contrastive_loss(opposite, texts, torch.tensor(100.0))
    tiled = tiled_contrastive_loss(opposite, texts, torch.tensor(100.0), tile=9)
    assert torch.isfinite(tiled) and tiled.item() == pytest.approx(plain.item(), rel=1e-6)


def test_under_autocast_the_loss_is_still_reckoned_in_float32():
    expected = value_and_gradients(tiled_contrastive_loss, 33, 16, seed=1, dtype=torch.float32, tile=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = value_and_gradients(tiled_contrastive_loss, 33, 16, seed=1, dtype=torch.float32, tile=8)
    for e, g in zip(expected, got):
        assert torch.equal(e, g)


@pytest.mark.parametrize("loss_function", [contrastive_loss, tiled_contrastive_loss])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_features_in_half_precision_are_contrasted_in_float32(loss_function, precision):
    half = [side.detach().to(precision) for side in features(33, 16, dtype=torch.float32)[:2]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_function(*half, torch.tensor(14.0))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, loss_function(*(side.float() for side in half), torch.tensor(14.0)))


def test_memory_is_a_strip_and_not_the_square():
    """The largest tensor that either pass makes, seen from inside PyTorch's dispatcher."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                if isinstance(tensor, torch.Tensor):
                    self.elements = max(self.elements, tensor.numel())
            return out

    largest = {}
    for loss_function, options in ((contrastive_loss, {}), (tiled_contrastive_loss, {"tile": 16})):
        with Largest() as seen:
            value_and_gradients(loss_function, 512, 4, seed=0, **options)
        largest[loss_function] = seen.elements
    assert largest == {contrastive_loss: 512 * 512, tiled_contrastive_loss: 16 * 512}


def test_strips_cover_every_row_once_with_a_ragged_last():
    assert [(s.start, s.stop) for s in strips(10, 4)] == [(0, 4), (4, 8), (8, 10)]


@pytest.mark.parametrize(
    "images, texts, tile, complaint",
    [
        ((3, 4), (2, 4), 8, "shape"),
        ((3, 4), (3, 5), 8, "shape"),
        ((0, 4), (0, 4), 8, "shape"),
        ((3,), (3,), 8, "shape"),
        ((3, 4), (3, 4), 0, "tile"),
    ],
)
def test_sides_that_do_not_pair_up_get_one_clear_sentence(images, texts, tile, complaint):
    with pytest.raises(MinclipError, match=complaint):
        tiled_contrastive_loss(torch.zeros(images), torch.zeros(texts), torch.tensor(1.0), tile=tile)
