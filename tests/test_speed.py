"""What is done for speed changes nothing: each lever against the plain form, in float64, gradients included."""

import itertools

import pytest
import torch

from minclip import CLIP, CLIPConfig, TrainConfig, contrastive_loss
from minclip.encoders import Transformer, pick
from minclip.train import make_optimizer, prepare

TINY = CLIPConfig(8, 16, 2, 16, 8, 12, 64, 16, 2, 2, vision_heads=2)
RESNET = CLIPConfig(8, 32, (1, 1, 1, 1), 4, None, 12, 64, 16, 2, 1, vision_heads=2)


def make(config: CLIPConfig = TINY) -> CLIP:
    torch.manual_seed(0)
    return CLIP(config).double()


def batch(config: CLIPConfig = TINY, size: int = 6):
    """Pictures, and captions that end at places 2 to 7 of 12, padded with 0."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(size, 3, config.image_resolution, config.image_resolution, generator=generator).double()
    tokens = torch.randint(1, config.vocab_size - 1, (size, config.context_length), generator=generator)
    ends = torch.arange(size) % 6 + 2
    tokens[torch.arange(size), ends] = config.vocab_size - 1
    tokens[torch.arange(config.context_length) > ends[:, None]] = 0
    return images, tokens


def gradients(model: CLIP, images, tokens) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss = contrastive_loss(*model(images, tokens))
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()} | {"loss": loss.detach()}


def assert_same(got: dict, expected: dict) -> None:
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("causal", [False, True])
def test_the_last_block_at_one_place_is_what_it_gives_there_among_all(causal):
    torch.manual_seed(0)
    transformer = Transformer(16, 3, 2, causal, quick_gelu=False).double()
    x, place = torch.randn(5, 7, 16, dtype=torch.float64, requires_grad=True), torch.tensor([0, 6, 3, 1, 5])
    weights = torch.randn(5, 16, dtype=torch.float64)
    parameters = [x, *transformer.parameters()]
    all_places, one_place = pick(transformer(x), place), transformer.at(x, place)
    torch.testing.assert_close(one_place, all_places, rtol=0, atol=1e-12)
    for got, expected in zip(
        *(torch.autograd.grad((out * weights).sum(), parameters) for out in (one_place, all_places))
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_captions_trimmed_to_the_longest_change_no_gradient():
    model, (images, tokens) = make(), batch()
    longest = int((tokens != 0).sum(dim=1).max())
    assert longest < tokens.shape[1]
    assert_same(gradients(model, images, tokens[:, :longest]), gradients(model, images, tokens))


def test_the_fused_optimiser_takes_the_plain_ones_steps():
    (images, tokens), weights = batch(), []
    for fused in (True, False):
        model = make()
        optimizer = make_optimizer(model, TrainConfig())
        for group in optimizer.param_groups:
            assert group["fused"], "AdamW in one kernel"
            group["fused"] = fused
        for _ in range(4):
            contrastive_loss(*model(images, tokens)).backward()
            optimizer.step()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=0, atol=1e-10)


def test_the_memory_format_of_pictures_changes_no_gradient():
    model, (images, tokens) = make(RESNET), batch(RESNET)
    expected = gradients(model, images, tokens)
    assert_same(gradients(model, images.contiguous(memory_format=torch.channels_last), tokens), expected)


def test_half_precision_is_close_and_leaves_the_weights_and_the_loss_in_float32():
    model, (images, tokens) = make().float(), batch()
    whole, half = (prepare(model, TrainConfig(precision=precision)) for precision in ("float32", "bfloat16"))
    losses = [contrastive_loss(*forward(images.float(), tokens)) for forward in (whole, half)]
    assert losses[1].dtype == torch.float32 and model.visual.conv1.weight.dtype == torch.float32
    assert losses[1].item() == pytest.approx(losses[0].item(), abs=0.1) and losses[1] != losses[0]


def test_captions_of_all_lengths_are_compiled_once_and_to_the_same_gradients(monkeypatch):
    from torch._dynamo.testing import CompileCounterWithBackend

    counter, compile_with = CompileCounterWithBackend("aot_eager"), torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compile_with(model, backend=counter, fullgraph=True))
    torch._dynamo.reset()
    model, (images, tokens) = make(), batch()
    for length in (8, 10, 9):
        found = []
        for compiled in (True, False):
            model.zero_grad()
            loss = contrastive_loss(*prepare(model, TrainConfig(compile=compiled))(images, tokens[:, :length]))
            loss.backward()
            found.append({name: p.grad.clone() for name, p in model.named_parameters()} | {"loss": loss.detach()})
        assert_same(*found)
    assert counter.frame_count == 1


def test_a_step_asks_the_device_for_nothing(monkeypatch):
    """Between log lines no number travels back, for which a GPU would have to finish first."""
    from minclip.train import train_step

    model, (images, tokens) = make(), batch()
    config = TrainConfig(batch_size=6, chunk=4)
    forward, optimizer = prepare(model, config), make_optimizer(model, config)
    train_step(forward, model, optimizer, images, tokens, config)  # the first step makes the optimiser's state
    for method in ("item", "tolist", "__bool__", "__int__", "__float__", "nonzero", "cpu", "numpy", "new_tensor"):
        monkeypatch.setattr(torch.Tensor, method, lambda *_, m=method: pytest.fail(f"a step calls Tensor.{m}"))
    for config_, _ in itertools.product((config, TrainConfig(batch_size=6)), range(2)):
        train_step(forward, model, optimizer, images, tokens, config_)
