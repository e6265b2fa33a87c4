"""The encoders against slow references, and against what OpenAI calls their parameters."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from minclip import CLIP, CLIPConfig, MinclipError
from minclip.encoders import Attention, ModifiedResNet, QuickGELU, ResidualAttentionBlock

SMALL = dict(
    embed_dim=8, image_resolution=8, vision_layers=2, vision_width=16, vision_patch_size=4, context_length=10,
    vocab_size=30, transformer_width=16, transformer_heads=2, transformer_layers=2, vision_heads=2,
)  # fmt: skip
RESNET = SMALL | dict(vision_layers=(1, 2, 1, 1), vision_width=4, vision_patch_size=None, image_resolution=32)


@pytest.fixture(scope="module")
def model() -> CLIP:
    torch.manual_seed(0)
    return CLIP(CLIPConfig(**SMALL)).double().eval()


def captions(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    """Random ids below end-of-text, with one end-of-text a row and padding behind it."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 29, (rows, length), generator=generator)
    end = torch.randint(1, length, (rows,), generator=generator)
    tokens[torch.arange(rows), end] = 29
    return torch.where(torch.arange(length) > end[:, None], 0, tokens)


def test_vit_b_32_has_openais_302_tensors():
    with torch.device("meta"):
        state = CLIP(CLIPConfig()).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert len(shapes) == 302 and sum(map(math.prod, shapes.values())) == 151_277_313
    expected = {
        "logit_scale": (), "positional_embedding": (77, 512), "text_projection": (512, 512),
        "token_embedding.weight": (49408, 512), "ln_final.weight": (512,),
        "visual.class_embedding": (768,), "visual.positional_embedding": (50, 768), "visual.proj": (768, 512),
        "visual.conv1.weight": (768, 3, 32, 32), "visual.ln_pre.bias": (768,), "visual.ln_post.weight": (768,),
        "visual.transformer.resblocks.11.attn.in_proj_weight": (2304, 768),
        "visual.transformer.resblocks.0.mlp.c_fc.weight": (3072, 768),
        "transformer.resblocks.11.attn.in_proj_bias": (1536,), "transformer.resblocks.3.attn.out_proj.weight": (512, 512),
        "transformer.resblocks.0.mlp.c_proj.weight": (512, 2048), "transformer.resblocks.7.ln_2.bias": (512,),
    }  # fmt: skip
    assert expected.items() <= shapes.items()


def test_rn50_has_openais_489_tensors():
    with torch.device("meta"):
        state = CLIP(CLIPConfig(1024, 224, (3, 4, 6, 3), 64, None)).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert len(shapes) == 489
    expected = {
        "visual.conv1.weight": (32, 3, 3, 3), "visual.bn3.running_mean": (64,), "visual.conv3.weight": (64, 32, 3, 3),
        "visual.layer1.0.downsample.0.weight": (256, 64, 1, 1), "visual.layer1.0.downsample.1.running_var": (256,),
        "visual.layer4.2.bn3.num_batches_tracked": (), "visual.layer3.5.conv2.weight": (256, 256, 3, 3),
        "visual.attnpool.positional_embedding": (50, 2048), "visual.attnpool.c_proj.weight": (1024, 2048),
        "visual.attnpool.q_proj.bias": (2048,), "text_projection": (512, 1024),
    }  # fmt: skip
    assert expected.items() <= shapes.items()


@given(st.integers(1, 4), st.integers(1, 7), st.sampled_from([1, 2, 4]), st.booleans())
def test_attention_against_loops(batch, length, heads, causal):
    torch.manual_seed(length)
    attention = Attention(8, heads, causal).double()
    torch.nn.init.normal_(attention.in_proj_weight)
    torch.nn.init.normal_(attention.in_proj_bias)
    x, size = torch.randn(batch, length, 8, dtype=torch.float64), 8 // heads
    q, k, v = (x @ attention.in_proj_weight.T + attention.in_proj_bias).split(8, dim=-1)
    gathered = torch.zeros_like(x)
    for b in range(batch):
        for h in range(heads):
            own = slice(h * size, (h + 1) * size)
            for i in range(length):
                seen = range(i + 1 if causal else length)
                scores = torch.stack([q[b, i, own] @ k[b, j, own] / size**0.5 for j in seen])
                gathered[b, i, own] = sum(w * v[b, j, own] for w, j in zip(scores.softmax(0), seen))
    torch.testing.assert_close(attention(x), gathered @ attention.out_proj.weight.T + attention.out_proj.bias)


def test_attention_is_that_of_torch(model):
    block = model.transformer.resblocks[0]
    reference = torch.nn.MultiheadAttention(16, 2, batch_first=True).double()
    reference.load_state_dict(block.attn.state_dict())
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    mask = torch.ones(5, 5).triu(1).bool()
    torch.testing.assert_close(block.attn(x), reference(x, x, x, attn_mask=mask)[0])


def test_later_tokens_never_change_earlier_positions(model):
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    changed = x.clone()
    changed[:, 5:] = torch.randn(2, 4, 16)  # a shift alone would vanish in LayerNorm
    before, after = model.transformer(x), model.transformer(changed)
    assert torch.equal(before[:, :5], after[:, :5]) and not torch.isclose(before[:, 5:], after[:, 5:]).any(dim=-1).all()
    seen = model.visual.transformer(x)[:, :5]  # pictures have no direction
    assert not torch.allclose(seen, model.visual.transformer(changed)[:, :5])


@given(st.integers(0, 50), st.integers(1, 5), st.integers(2, 9))
def test_trimmed_captions_have_the_same_features(model, seed, rows, length):
    tokens = captions(rows, length, seed)
    padded = F.pad(tokens, (0, 10 - length))
    torch.testing.assert_close(model.encode_text(tokens), model.encode_text(padded), atol=1e-13, rtol=0)


def test_what_stands_behind_end_of_text_changes_nothing_and_what_stands_before_does(model):
    tokens = captions(6, 10)
    end = tokens.argmax(dim=1, keepdim=True)
    behind = torch.where(torch.arange(10) > end, torch.randint(28, (6, 10)), tokens)
    assert not torch.equal(behind, tokens)
    torch.testing.assert_close(model.encode_text(behind), model.encode_text(tokens), atol=1e-13, rtol=0)
    before = tokens.clone()
    before[:, 0] = before[:, 0] % 28 + 1
    assert ((model.encode_text(before) - model.encode_text(tokens)).norm(dim=1) > 1e-4).all()


def test_patches_are_words_row_by_row(model):
    """The tokens of a Vision Transformer against slices of the picture times the kernel."""
    image = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    seen = []
    hook = model.visual.ln_pre.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.encode_image(image)
    hook.remove()
    kernel = model.visual.conv1.weight.flatten(1)  # (W, 3 * 4 * 4)
    patches = [image[0, :, r : r + 4, c : c + 4].flatten() for r in (0, 4) for c in (0, 4)]
    tokens = torch.stack([model.visual.class_embedding, *(kernel @ patch for patch in patches)])
    torch.testing.assert_close(seen[0][0], tokens + model.visual.positional_embedding)


def test_resnet_reads_every_pixel_and_halves_five_times():
    torch.manual_seed(0)
    visual = ModifiedResNet((1, 1, 1, 1), 4, 2, 64, 8).double().eval()
    for module in visual.modules():
        if hasattr(module, "bn3") and module is not visual:
            torch.nn.init.ones_(module.bn3.weight)  # starts at zero, which hides the block
    assert visual.attnpool.positional_embedding.shape == (2 * 2 + 1, 128)
    images = torch.randn(16, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    visual(images).sum().backward()
    assert (images.grad.abs().sum(dim=(0, 1)) > 0).all()  # no stride skips over any


def test_attention_pool_is_attention_asked_by_the_mean():
    pool = CLIP(CLIPConfig(**RESNET | dict(image_resolution=64))).double().visual.attnpool
    x = torch.randn(2, 128, 2, 2, dtype=torch.float64)
    tokens = x.flatten(2).permute(2, 0, 1)  # OpenAI's own call, in words
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + pool.positional_embedding[:, None]
    reference, _ = F.multi_head_attention_forward(
        tokens[:1], tokens, tokens, 128, pool.heads, in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]), bias_k=None, bias_v=None,
        add_zero_attn=False, dropout_p=0, out_proj_weight=pool.c_proj.weight, out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True, training=False, need_weights=False, q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
    )  # fmt: skip
    torch.testing.assert_close(pool(x), reference[0])


@pytest.mark.parametrize("sizes", [SMALL, RESNET])
def test_forward_returns_unit_rows_and_the_scale_and_trains_everything(sizes):
    torch.manual_seed(0)
    model = CLIP(CLIPConfig(**sizes))
    side = model.config.image_resolution
    images, tokens = torch.randn(4, 3, side, side), captions(4, 8)
    image_features, text_features, logit_scale = model(images, tokens)
    for features in (image_features, text_features):
        torch.testing.assert_close(features.norm(dim=1), torch.ones(4))
    assert logit_scale.item() == pytest.approx(1 / 0.07, rel=1e-6)
    (image_features * text_features.roll(1, 0)).sum().mul(logit_scale).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None]
    assert not still
    longer = model.encode_image(images, normalize=False)
    torch.testing.assert_close(F.normalize(longer, dim=1), model.encode_image(images))


def test_the_scale_never_exceeds_100(model):
    tiny = CLIP(CLIPConfig(**SMALL))
    torch.nn.init.constant_(tiny.logit_scale, 7.0)
    tiny.clamp_logit_scale()
    assert tiny.logit_scale.exp().item() == pytest.approx(100)
    for low in (1.0, -1.0):
        torch.nn.init.constant_(tiny.logit_scale, low)
        tiny.clamp_logit_scale()
        assert tiny.logit_scale.item() == low


def test_quick_gelu_only_where_asked():
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(QuickGELU()(x), x / (1 + torch.exp(-1.702 * x)))
    for quick in (True, False):
        model = CLIP(CLIPConfig(**SMALL | dict(quick_gelu=quick)))
        kinds = {type(m) for m in model.modules() if "GELU" in type(m).__name__}
        assert kinds == {QuickGELU if quick else torch.nn.GELU}


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        (torch.rand(3, 8, 8), "shape"),
        (torch.rand(2, 1, 8, 8), "shape"),
        (torch.rand(2, 8, 8, 3), "shape"),
        (torch.rand(2, 3, 9, 9), "reads \\(B, 3, 8, 8\\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "uint8"),
    ],
)
def test_pictures_that_do_not_fit(model, images, complaint):
    with pytest.raises(MinclipError, match=complaint):
        model.encode_image(images)


@pytest.mark.parametrize(
    ("tokens", "complaint"),
    [
        (torch.zeros(4, dtype=torch.int64), "shape"),
        (torch.zeros(2, 11, dtype=torch.int64), "from 1 to 10"),
        (torch.zeros(2, 0, dtype=torch.int64), "from 1 to 10"),
        (torch.zeros(2, 3), "float32"),
    ],
)
def test_tokens_that_do_not_fit(model, tokens, complaint):
    with pytest.raises(MinclipError, match=complaint):
        model.encode_text(tokens)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (dict(image_resolution=9), "does not divide"),
        (dict(vision_patch_size=None), "does not divide"),
        (dict(vision_heads=3), "3 attention heads"),
        (dict(transformer_heads=5), "5 attention heads"),
        (dict(vision_layers=0), "vision_layers is 0"),
        (dict(vision_layers=(1, 1, 1)), "four stages"),
        (dict(vision_layers=(1, 1, 0, 1)), "at least 1"),
        (dict(vision_layers=(1, 1, 1, 1), image_resolution=40), "multiple of 32"),
        (dict(embed_dim=0), "embed_dim is 0"),
        (dict(context_length=-1), "context_length is -1"),
        (dict(image_resolution=0), "image_resolution is 0"),
        (dict(transformer_layers=0), "transformer_layers is 0"),
        (dict(vision_heads=-2), "-2 attention heads"),
    ],
)
def test_sizes_that_make_no_model(change, complaint):
    with pytest.raises(MinclipError, match=complaint):
        CLIPConfig(**SMALL | change)


def test_heads_are_64_wide_and_at_least_one():
    for width, heads in ((32, 1), (192, 3)):
        assert CLIPConfig(**SMALL | dict(vision_heads=None, vision_width=width)).image_heads == heads


def test_weights_begin_as_openais_do():
    torch.manual_seed(0)
    sizes = SMALL | dict(embed_dim=64, image_resolution=32, vocab_size=500, transformer_width=128, transformer_layers=3)
    vit = CLIP(CLIPConfig(**sizes | dict(vision_layers=3, vision_width=128)))
    resnet = CLIP(CLIPConfig(**sizes | dict(vision_layers=(1, 1, 1, 1), vision_width=8, vision_patch_size=None)))
    deviations = {
        "token_embedding.weight": 0.02, "positional_embedding": 0.01, "text_projection": 128**-0.5,
        "visual.class_embedding": 128**-0.5, "visual.positional_embedding": 128**-0.5, "visual.proj": 128**-0.5,
    }  # fmt: skip
    for block in [f"{where}.resblocks.{n}" for where in ("transformer", "visual.transformer") for n in range(3)]:
        deviations |= {
            f"{block}.attn.in_proj_weight": 128**-0.5, f"{block}.attn.out_proj.weight": (128 * 2 * 3) ** -0.5,
            f"{block}.mlp.c_fc.weight": (2 * 128) ** -0.5, f"{block}.mlp.c_proj.weight": (128 * 2 * 3) ** -0.5,
            f"{block}.attn.in_proj_bias": 0, f"{block}.attn.out_proj.bias": 0,
        }  # fmt: skip
    of_resnet = {f"visual.attnpool.{part}_proj.weight": 256**-0.5 for part in "qkvc"}
    of_resnet |= {f"visual.layer{stage}.0.bn3.weight": 0 for stage in (1, 2, 3, 4)}
    for model, expected in ((vit, deviations), (resnet, of_resnet)):
        for name, deviation in expected.items():
            found = model.get_parameter(name).square().mean().sqrt().item()
            assert found == pytest.approx(deviation, rel=0.2), name


def test_a_block_outside_a_transformer_holds_no_uninitialised_memory():
    block = ResidualAttentionBlock(8, 2, causal=False, quick_gelu=False)
    assert not block.attn.in_proj_weight.any() and all(p.isfinite().all() for p in block.parameters())
