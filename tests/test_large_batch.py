"""Gradient caching: however a batch is cut into chunks, the gradients are those of the whole."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minclip
from minclip import CLIP, CLIPConfig, MinclipError, TrainConfig, contrastive_loss
from minclip.train import backward_in_chunks

VIT = CLIPConfig(8, 8, 2, 16, 4, 8, 40, 16, 2, 1, vision_heads=2)
RESNET = CLIPConfig(8, 32, (1, 1, 1, 1), 4, None, 8, 40, 16, 2, 1, vision_heads=2)


def make(config: CLIPConfig, seed: int = 0) -> CLIP:
    torch.manual_seed(seed)
    model = CLIP(config).double().train()
    for name, parameter in model.named_parameters():
        if "bn3" in name:  # starts at zero, which would hide the blocks behind it
            torch.nn.init.normal_(parameter)
    return model


def batch(config: CLIPConfig, size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    side = config.image_resolution
    images = torch.randn(size, 3, side, side, generator=generator, dtype=torch.float64)
    return images, torch.randint(config.vocab_size, (size, 6), generator=generator)


def gradients(model: CLIP, backward) -> dict[str, torch.Tensor]:
    """What `backward` leaves in every parameter's .grad, and the loss it returns."""
    model.zero_grad()
    loss = backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()} | {"loss": loss.detach()}


def whole(model: CLIP, images: torch.Tensor, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    def backward():
        loss = contrastive_loss(*model(images, tokens))
        loss.backward()
        return loss

    return gradients(model, backward)


def chunk_by_chunk(model: CLIP, images: torch.Tensor, tokens: torch.Tensor, chunk: int) -> dict[str, torch.Tensor]:
    """The same computation as the chunked one, but with one graph over all chunks: the slow reference."""

    def backward():
        parts = [model(*part) for part in zip(images.split(chunk), tokens.split(chunk))]
        loss = contrastive_loss(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), parts[0][2])
        loss.backward()
        return loss

    return gradients(model, backward)


def cached(model: CLIP, images: torch.Tensor, tokens: torch.Tensor, chunk: int) -> dict[str, torch.Tensor]:
    return gradients(model, lambda: backward_in_chunks(model, images, tokens, chunk))


def assert_same(got: dict, expected: dict) -> None:
    assert got.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@settings(max_examples=12, deadline=None)
@given(size=st.integers(2, 17), chunk=st.integers(1, 20), seed=st.integers(0, 1000))
def test_any_chunking_gives_every_gradient_of_the_whole_batch(size, chunk, seed):
    model, (images, tokens) = make(VIT, seed), batch(VIT, size, seed)
    assert_same(cached(model, images, tokens, chunk), whole(model, images, tokens))


def test_gradients_are_added_to_what_was_there():
    model, (images, tokens) = make(VIT), batch(VIT, 6)
    once = cached(model, images, tokens, 4)
    backward_in_chunks(model, images, tokens, 4)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[name])


def test_dropout_is_replayed_with_the_same_random_numbers():
    model, (images, tokens) = make(VIT), batch(VIT, 11)
    model.visual.ln_post = torch.nn.Sequential(model.visual.ln_post, torch.nn.Dropout(0.5))
    model.ln_final = torch.nn.Sequential(model.ln_final, torch.nn.Dropout(0.5))
    torch.manual_seed(7)
    expected = chunk_by_chunk(model, images, tokens, 4)
    after = torch.rand(1)
    torch.manual_seed(7)
    assert_same(cached(model, images, tokens, 4), expected)
    assert torch.equal(torch.rand(1), after), "a step must leave the generator where one pass over the batch would"
    other = cached(model, images, tokens, 4)  # other random numbers, another gradient: the dropout was on
    assert (other["visual.proj"] - expected["visual.proj"]).abs().max() > 1e-3


@pytest.mark.parametrize("frozen", ["logit_scale", "visual"])
def test_what_is_frozen_is_left_out_and_the_rest_is_exact(frozen):
    model, (images, tokens) = make(VIT), batch(VIT, 9)
    expected = whole(model, images, tokens)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
        parameter.grad = None
    backward_in_chunks(model, images, tokens, 4)
    for name, parameter in model.named_parameters():
        if name.startswith(frozen):
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=1e-10)


def test_batch_normalisation_sees_the_chunk_and_so_a_resnet_is_not_exact():
    model, (images, tokens) = make(RESNET), batch(RESNET, 16)
    got, all_at_once = cached(model, images, tokens, 8), whole(model, images, tokens)
    name = "visual.layer1.0.conv2.weight"
    error = (got[name] - all_at_once[name]).norm() / all_at_once[name].norm()
    assert error > 0.01, "with its statistics taken over half the pictures, this is another function"
    assert_same(got, chunk_by_chunk(model, images, tokens, 8))  # of which the gradient is exact
    model.eval()  # with fixed statistics a picture's embedding depends on nothing but the picture
    assert_same(cached(model, images, tokens, 8), whole(model, images, tokens))


@pytest.mark.parametrize("k", [2, 4])
def test_the_temperatures_gradient_is_not_multiplied_by_the_number_of_chunks(k):
    """Common practice (open_clip's --accum-freq k) embeds everything, then for each of the k chunks puts
    its fresh embeddings among the cached ones and calls backward on the whole loss. That is exact for
    the encoders, but the scale takes part in all k losses."""
    model, (images, tokens) = make(VIT), batch(VIT, 8)
    expected = whole(model, images, tokens)

    def accumulate():
        parts = list(zip(images.chunk(k), tokens.chunk(k)))
        with torch.no_grad():
            cache = [model(*part)[:2] for part in parts]
        for place, part in enumerate(parts):
            image, text, scale = model(*part)
            sides = [list(side) for side in zip(*cache)]
            sides[0][place], sides[1][place] = image, text
            loss = contrastive_loss(torch.cat(sides[0]), torch.cat(sides[1]), scale)
            loss.backward()
        return loss

    accumulated, ours = gradients(model, accumulate), cached(model, images, tokens, 8 // k)
    torch.testing.assert_close(accumulated["visual.conv1.weight"], expected["visual.conv1.weight"])
    assert (accumulated["logit_scale"] / expected["logit_scale"]).item() == pytest.approx(k)
    assert (ours["logit_scale"] / expected["logit_scale"]).item() == pytest.approx(1, abs=1e-10)


def test_no_more_than_a_chunk_is_embedded_at_a_time():
    model, (images, tokens) = make(VIT), batch(VIT, 10)
    sizes = []
    model.visual.register_forward_hook(lambda module, inputs, output: sizes.append((len(output), output.requires_grad)))
    backward_in_chunks(model, images, tokens, 4)
    assert sizes == [(4, False), (4, False), (2, False), (4, True), (4, True), (2, True)]


class Noise:
    """Pairs that are fixed by (seed, place in the stream) alone."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype

    def batches(self, batch_size: int, seed: int, start: int):
        while True:
            draw = [torch.Generator().manual_seed(10_000 * seed + start + i) for i in range(batch_size)]
            images = torch.stack([torch.rand(3, 8, 8, generator=g, dtype=self.dtype) for g in draw])
            yield images, [" ".join(["ab", "cd", "ef", "gh"][: 1 + (start + i) % 4]) for i in range(batch_size)]
            start += batch_size


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_in_chunks_is_training(precision):
    """`fit` with and without chunks: the same curve, to the accuracy of what it is computed in."""
    tokenizer = minclip.CLIPTokenizer.train(["ab cd ef gh"], 514, context_length=8)
    config = CLIPConfig(8, 8, 1, 16, 4, 8, tokenizer.vocab_size, 16, 2, 1, vision_heads=2)
    dtype, curves = torch.float64 if precision == "float32" else torch.float32, []
    for chunk in (None, 5):
        torch.manual_seed(0)
        model = CLIP(config).to(dtype)
        how = TrainConfig(images_seen=60, batch_size=12, log_every=1, precision=precision, chunk=chunk)
        curves.append([record["loss"] for record in minclip.fit(model, tokenizer, Noise(dtype), how)])
    assert all(math.isfinite(loss) for loss in curves[0]) and len(curves[0]) == 5
    assert curves[1] == pytest.approx(curves[0], abs=1e-10 if precision == "float32" else 0.05)


def test_a_chunk_below_1_gets_one_clear_sentence():
    model, (images, tokens) = make(VIT), batch(VIT, 4)
    with pytest.raises(MinclipError, match="chunk"):
        backward_in_chunks(model, images, tokens, 0)
    with pytest.raises(MinclipError, match="chunk"):
        TrainConfig(chunk=0)


@pytest.mark.parametrize("chunk", [4, 256])
def test_more_captions_than_pictures_are_refused_not_dropped(chunk):
    model, (images, _), (_, tokens) = make(VIT), batch(VIT, 8), batch(VIT, 12)
    with pytest.raises(MinclipError, match="8 pictures and 12 captions"):
        backward_in_chunks(model, images, tokens, chunk)
