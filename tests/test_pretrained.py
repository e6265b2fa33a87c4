"""Other people's weights: the same features from the same tensors, exact round trips, and nothing unpickled."""

import json
import os
import pickle
import shutil
import warnings
import zipfile

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image

import minclip
from minclip import CLIP, CLIPConfig, CLIPTokenizer, MinclipError
from minclip.checkpoint import write_checkpoint
from minclip.pretrained import (
    check_preprocessing,
    from_openai,
    from_transformers,
    load,
    read_weights,
    save,
    to_transformers,
)
from minclip.transformers_weights import (
    from_transformers_config,
    from_transformers_state,
    to_transformers_config,
    to_transformers_state,
)

TINY = dict(
    embed_dim=24, image_resolution=32, vision_layers=2, vision_width=64, vision_patch_size=8, context_length=16,
    vocab_size=560, transformer_width=64, transformer_heads=1, transformer_layers=2,
)  # fmt: skip
TINY_RESNET = TINY | dict(image_resolution=64, vision_layers=(1, 2, 1, 1), vision_width=16, vision_patch_size=None)
# The three sizes of OpenAI's Vision Transformers, narrower and shallower, and one with the plain GELU.
PEERS = {
    "B/32": TINY | dict(image_resolution=224, vision_width=192, vision_layers=3, vision_patch_size=32, quick_gelu=True),
    "B/16": TINY | dict(image_resolution=224, vision_width=192, vision_patch_size=16, quick_gelu=True),
    "L/14": TINY | dict(image_resolution=224, vision_width=256, vision_layers=4, vision_patch_size=14, quick_gelu=True),
    "gelu": TINY | dict(vision_heads=4, transformer_heads=2),
}


@pytest.fixture(scope="module")
def transformers():
    try:
        import transformers
        from transformers import CLIPModel  # noqa: F401  found only now, and not where torchvision is broken
    except ImportError as error:
        pytest.skip(f"transformers does not import here: {error}")
    transformers.logging.set_verbosity_error()
    return transformers


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.train(["a black chess knight", "greek small letter alpha"] * 9, TINY["vocab_size"], 16)


def shaken(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """No gain is 1 and no bias 0 any more, so that two tensors mixed up would show."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bn3.weight"):  # 0 at first, which would hide all that stands before it
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def with_statistics(model: torch.nn.Module, side: int) -> torch.nn.Module:
    """A ResNet whose BatchNorm has seen pictures, so that its features differ from one to the next."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain average over all batches
    with torch.no_grad():
        model.visual.train()(torch.randn(2, 3, side, side))
        for norm in norms:
            norm.running_mean += 0.1 * torch.randn_like(norm.running_mean)
            norm.running_var *= 1 + 0.2 * torch.rand_like(norm.running_var)
    return model.eval()


def some_input(config: CLIPConfig) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    side = config.image_resolution
    tokens = torch.randint(1, config.vocab_size - 1, (3, config.context_length))
    tokens[torch.arange(3), torch.tensor([2, 9, config.context_length - 1])] = config.vocab_size - 1
    return torch.randn(2, 3, side, side), tokens


def assert_same_weights(a: torch.nn.Module, b: torch.nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)
    assert a.std(dim=0).mean() > 1e-3, "one row like the next: agreement would prove nothing"


# --- transformers ---------------------------------------------------------------------------------


def random_peer(transformers, config: CLIPConfig):
    """A `transformers.CLIPModel` of this size that was never ours."""
    activation = "quick_gelu" if config.quick_gelu else "gelu"
    text = dict(
        vocab_size=config.vocab_size, hidden_size=config.transformer_width, num_hidden_layers=config.transformer_layers,
        intermediate_size=4 * config.transformer_width, num_attention_heads=config.transformer_heads,
        max_position_embeddings=config.context_length, hidden_act=activation, eos_token_id=config.vocab_size - 1,
    )  # fmt: skip
    vision = dict(
        hidden_size=config.vision_width, intermediate_size=4 * config.vision_width, hidden_act=activation,
        num_hidden_layers=config.vision_layers, num_attention_heads=config.image_heads,
        image_size=config.image_resolution, patch_size=config.vision_patch_size,
    )  # fmt: skip
    return shaken(
        transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=config.embed_dim)
        )
    )


def assert_agree(model: CLIP, peer) -> None:
    images, tokens = some_input(model.config)
    with torch.no_grad():
        image_features, text_features, scale = model(images, tokens)
        theirs = peer(pixel_values=images, input_ids=tokens)
        close(image_features, theirs.image_embeds)
        close(text_features, theirs.text_embeds)
        close(scale * image_features @ text_features.T, theirs.logits_per_image)


@pytest.mark.parametrize("size", PEERS)
def test_a_transformers_model_gives_the_same_features_here_and_comes_back_to_the_same_bits(transformers, size):
    config = CLIPConfig(**PEERS[size])
    peer = random_peer(transformers, config)
    model = from_transformers(peer)
    assert model.config == config
    assert_agree(model, peer)
    images, tokens = some_input(config)
    with torch.no_grad():
        close(model.encode_image(images, normalize=False), peer.get_image_features(images).pooler_output)
        close(model.encode_text(tokens, normalize=False), peer.get_text_features(tokens).pooler_output)
    back = to_transformers(model)
    assert_same_weights(back, peer)
    assert_agree(model, back)


def test_vit_b32_at_full_size_agrees_with_transformers(transformers):
    peer = shaken(transformers.CLIPModel(transformers.CLIPConfig()))  # its defaults are ViT-B/32
    model = from_transformers(peer)
    assert model.config == CLIPConfig(quick_gelu=True)
    assert_agree(model, peer)


def test_an_old_configuration_that_calls_end_of_text_2_means_argmax(transformers):
    config = CLIPConfig(**TINY)
    peer = random_peer(transformers, config)
    peer.text_model.eos_token_id = peer.config.text_config.eos_token_id = 2
    assert_agree(from_transformers(peer), peer)


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("text_config", {"intermediate_size": 100}, "intermediate_size in text_config is 100"),
        ("vision_config", {"layer_norm_eps": 1e-6}, "layer_norm_eps"),
        ("vision_config", {"hidden_act": "gelu_new"}, "hidden_act"),
        ("vision_config", {"num_hidden_layers": 3}, "missing"),
        ("text_config", {"vocab_size": 7}, "size mismatch for token_embedding.weight"),
        (None, {"model_type": "siglip"}, "'siglip', not 'clip'"),
    ],
)
def test_a_transformers_model_that_is_no_clip_of_ours_is_refused_by_name(section, change, said):
    from minclip.transformers_weights import from_transformers_state, to_transformers_config, to_transformers_state

    model = CLIP(CLIPConfig(**TINY))
    config = to_transformers_config(model.config)
    (config[section] if section else config).update(change)
    with pytest.raises(MinclipError, match=said):
        from_transformers_state(to_transformers_state(model), config)


def test_transformers_has_no_resnet():
    with pytest.raises(MinclipError, match="no CLIP with a ResNet"):
        to_transformers(CLIP(CLIPConfig(**TINY_RESNET)))


# --- OpenAI and open_clip -------------------------------------------------------------------------


def test_the_names_and_shapes_are_openais():
    rn50 = dict(embed_dim=1024, vision_layers=(3, 4, 6, 3), vision_width=64, vision_patch_size=None)
    with torch.device("meta"):
        vit = {name: tuple(t.shape) for name, t in CLIP(CLIPConfig()).state_dict().items()}
        resnet = {name: tuple(t.shape) for name, t in CLIP(CLIPConfig(**rn50)).state_dict().items()}
    assert (len(vit), len(resnet)) == (302, 489)
    assert vit["visual.proj"] == (768, 512)
    assert vit["visual.positional_embedding"] == (50, 768)
    assert vit["visual.conv1.weight"] == (768, 3, 32, 32)
    assert vit["transformer.resblocks.11.attn.in_proj_weight"] == (1536, 512)
    assert vit["token_embedding.weight"] == (49408, 512)
    assert vit["logit_scale"] == ()
    assert resnet["visual.attnpool.positional_embedding"] == (50, 2048)
    assert resnet["visual.attnpool.c_proj.weight"] == (1024, 2048)
    assert resnet["visual.layer4.0.downsample.0.weight"] == (2048, 1024, 1, 1)
    assert resnet["visual.layer3.5.bn3.num_batches_tracked"] == ()


def reference_resnet(state: dict[str, torch.Tensor], x: torch.Tensor, heads: int) -> torch.Tensor:
    """CLIP's ResNet as plainly as it can be said, straight from a state dict with OpenAI's names."""
    state = {name.removeprefix("visual."): tensor for name, tensor in state.items() if name.startswith("visual.")}

    def conv_bn(x, conv, bn, **options):
        x = F.conv2d(x, state[f"{conv}.weight"], **options)
        return F.batch_norm(x, *(state[f"{bn}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))

    x = F.relu(conv_bn(x, "conv1", "bn1", stride=2, padding=1))
    x = F.relu(conv_bn(x, "conv2", "bn2", padding=1))
    x = F.avg_pool2d(F.relu(conv_bn(x, "conv3", "bn3", padding=1)), 2)
    for stage in (1, 2, 3, 4):
        block = 0
        while (at := f"layer{stage}.{block}") + ".conv1.weight" in state:
            stride = 2 if stage > 1 and block == 0 else 1
            out = F.relu(conv_bn(x, f"{at}.conv1", f"{at}.bn1"))
            out = F.relu(conv_bn(out, f"{at}.conv2", f"{at}.bn2", padding=1))
            out = conv_bn(F.avg_pool2d(out, stride), f"{at}.conv3", f"{at}.bn3")
            if f"{at}.downsample.0.weight" in state:
                x = conv_bn(F.avg_pool2d(x, stride), f"{at}.downsample.0", f"{at}.downsample.1")
            x, block = F.relu(x + out), block + 1
    x = x.flatten(2).permute(2, 0, 1)  # (H W, B, C), as torch's own attention wants it
    x = torch.cat([x.mean(dim=0, keepdim=True), x]) + state["attnpool.positional_embedding"][:, None]
    weights = {kind: state[f"attnpool.{kind}_proj.weight"] for kind in "qkvc"}
    biases = {kind: state[f"attnpool.{kind}_proj.bias"] for kind in "qkvc"}
    pooled, _ = F.multi_head_attention_forward(
        x[:1], x, x, x.shape[-1], heads, None, torch.cat([biases[kind] for kind in "qkv"]), None, None, False, 0.0,
        weights["c"], biases["c"], training=False, use_separate_proj_weight=True, q_proj_weight=weights["q"],
        k_proj_weight=weights["k"], v_proj_weight=weights["v"],
    )  # fmt: skip
    return pooled[0]


def test_a_resnets_features_are_those_of_its_plain_definition():
    model = with_statistics(shaken(CLIP(CLIPConfig(**TINY_RESNET))), 64)
    images, _ = some_input(model.config)
    with torch.no_grad():
        features = from_openai(model.state_dict()).encode_image(images, normalize=False)
        close(features, reference_resnet(model.state_dict(), images, heads=16 * 32 // 64))


@pytest.mark.parametrize("name", ["RN50", "ViT-B-32", "ViT-B-32-quickgelu"])
def test_open_clips_models_give_the_same_features_here(name):
    try:
        from open_clip.factory import get_model_config
        from open_clip.model import CLIP as OpenCLIP
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        pytest.skip(f"open_clip does not import here: {error}")
    settings = get_model_config(name)
    settings["text_cfg"] |= {"layers": 2, "vocab_size": 560}
    peer = shaken(OpenCLIP(**settings))
    if name == "RN50":
        peer = with_statistics(peer, 224)
    model = from_openai(peer.state_dict(), quick_gelu=settings.get("quick_gelu", False))
    images, tokens = some_input(model.config)
    # A ResNet's logits, 16 random BatchNorm blocks deep, lose 3e-5 to float32 in either library. So the
    # features are compared in float32, and that both are one function is shown in float64.
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-11)):
        with torch.no_grad():
            image_features, text_features, scale = peer.to(dtype)(images.to(dtype), tokens)
            ours = model.to(dtype)(images.to(dtype), tokens)
        close(ours[0], image_features, tolerance)
        close(ours[1], text_features, tolerance)
    close(ours[2] * ours[0] @ ours[1].T, scale * image_features @ text_features.T, tolerance)


@pytest.mark.parametrize("sizes", [TINY, TINY_RESNET, *PEERS.values()], ids=["tiny", "resnet", *PEERS])
def test_sizes_are_read_from_the_shapes(sizes):
    config = CLIPConfig(**sizes)
    model = shaken(CLIP(config))
    extras = dict(input_resolution=torch.tensor(1), context_length=torch.tensor(2), vocab_size=torch.tensor(3))
    state = torch.random.get_rng_state()
    loaded = from_openai(
        model.state_dict() | extras, config.quick_gelu, config.vision_heads, sizes["transformer_heads"]
    )
    assert torch.equal(torch.random.get_rng_state(), state)  # loading leaves the caller's seed alone
    assert loaded.config == config
    assert_same_weights(loaded, model)
    loaded.logit_scale.data.fill_(9)
    assert model.logit_scale != 9  # its own copy
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_openais_weights_are_taken_for_quick_gelu_ones():
    state = CLIP(CLIPConfig(**TINY)).state_dict()
    assert from_openai(state).config.quick_gelu
    assert not from_openai(state, quick_gelu=False).config.quick_gelu


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: s.clear(), "nothing"),
        (lambda s: s.pop("visual.conv1.weight"), "'visual.conv1.weight' is missing"),
        (lambda s: s.pop("ln_final.bias"), "ln_final.bias"),
        (lambda s: s.update({"text_decoder.weight": torch.ones(1)}), "text_decoder.weight"),
        (lambda s: s.update({"visual.proj": torch.ones(3, 3)}), "size mismatch for visual.proj"),
        (lambda s: s.update({"visual.positional_embedding": torch.ones(18, 64)}), "positional_embedding"),
    ],
)
def test_a_state_dict_that_is_no_clips_is_refused_by_name(spoil, said):
    state = CLIP(CLIPConfig(**TINY)).state_dict()
    spoil(state)
    with pytest.raises(MinclipError, match=said):
        from_openai(state)


# --- OpenAI's TorchScript archives ----------------------------------------------------------------


class Part(torch.nn.Module):
    """A module of an archive: parameters, children, and code that nobody should run."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        for name, parameter in module.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in module.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        for name, child in module.named_children():
            self.add_module(name, Part(child))
        if hasattr(module, "in_proj_weight"):
            self.attn_mask = torch.zeros(3, 3)  # OpenAI keeps it as a plain attribute

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


@pytest.fixture(scope="module", params=[TINY, TINY_RESNET], ids=["vit", "resnet"])
def archive(request, tmp_path_factory):
    """A half-precision TorchScript archive with the three extra tensors, as OpenAI publishes; and its model."""
    model = shaken(CLIP(CLIPConfig(**request.param, quick_gelu=True))).half()
    whole = Part(model)
    for name in ("input_resolution", "context_length", "vocab_size"):
        whole.register_buffer(name, torch.tensor(224))
    path = tmp_path_factory.mktemp("archive") / "ViT-B-32.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(whole), path)
    return path, model.float()


def rewritten(path, target, change) -> None:
    """A copy of a zip file with each entry's bytes passed through `change(name, bytes)`."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


def test_openais_archive_loads_without_its_code(archive, tokenizer, tmp_path):
    path, model = archive
    copy = tmp_path / "archive.pt"
    # With its code unreadable torch.jit.load fails, so whoever reads the archive did not compile it.
    rewritten(path, copy, lambda name, data: b"not code (" if name.endswith(".py") else data)
    with pytest.raises(RuntimeError), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.load(copy)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an archive is known to be OpenAI's: no question which GELU
        loaded, _ = load(copy)
    assert loaded.config == model.config
    assert_same_weights(loaded, model)
    assert loaded.logit_scale.dtype == torch.float32


# --- save and load --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes", [TINY, TINY_RESNET, PEERS["gelu"], PEERS["B/32"]], ids=["vit", "resnet", "gelu", "B/32"]
)
def test_what_save_wrote_load_reads_to_the_same_bits(sizes, tokenizer, tmp_path):
    model = shaken(CLIP(CLIPConfig(**sizes)))
    minclip.save(model, tokenizer, tmp_path / "model")
    loaded, its_tokenizer = minclip.load(str(tmp_path / "model"))
    assert loaded.config == model.config
    assert not loaded.training
    assert_same_weights(loaded, model)
    assert its_tokenizer.to_json() == tokenizer.to_json()
    images, tokens = some_input(model.config)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(loaded(images, tokens), model(images, tokens), strict=True))
    save(loaded, its_tokenizer, tmp_path / "again")
    for file in (tmp_path / "model").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_a_saved_model_is_one_of_transformers_own(transformers, tokenizer, tmp_path):
    # More embeddings than the tokenizer has entries, so that its end-of-text is not the model's last id.
    model = shaken(CLIP(CLIPConfig(**TINY | dict(vocab_size=tokenizer.vocab_size + 5))))
    save(model, tokenizer, tmp_path)
    assert_same_weights(transformers.CLIPModel.from_pretrained(tmp_path), to_transformers(model))

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8))
    labels = ["a black chess knight", "Greek small letter ALPHA", "é <|endoftext|> x"]  # rows of three lengths
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torchvision, and padding of its own choice
        # Resized by PIL, as we do: where torchvision is installed, transformers takes that, and it resizes otherwise.
        by_pil = transformers.AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)
        pipeline = transformers.pipeline("zero-shot-image-classification", model=str(tmp_path), image_processor=by_pil)
        answers = pipeline(picture, candidate_labels=labels, hypothesis_template="{}")
        processor = transformers.CLIPProcessor.from_pretrained(tmp_path)
    with torch.no_grad():
        image_features, text_features, scale = model(minclip.preprocess(picture, model.config), tokenizer(labels))
    ours = (scale * image_features @ text_features.T).softmax(dim=1)[0].tolist()
    theirs = {answer["label"]: answer["score"] for answer in answers}
    assert [theirs[label] for label in labels] == pytest.approx(ours, abs=1e-5)

    # And what transformers saves of it comes back.
    pipeline.model.save_pretrained(tmp_path / "theirs")
    processor.save_pretrained(tmp_path / "theirs")
    loaded, its_tokenizer = load(tmp_path / "theirs")
    assert_same_weights(loaded, model)
    assert torch.equal(its_tokenizer(labels), tokenizer(labels))
    assert its_tokenizer.decode(its_tokenizer(labels)[1]) == "greek small letter alpha"


def test_save_refuses_a_tokenizer_that_is_too_big(tokenizer, tmp_path):
    with pytest.raises(MinclipError, match="do not belong together"):
        save(CLIP(CLIPConfig(**TINY | dict(vocab_size=530))), tokenizer, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def saved_checkpoint(folder, model, tokenizer) -> None:
    from dataclasses import asdict

    state = {"model": model.state_dict(), "model_config": asdict(model.config), "tokenizer": tokenizer.to_json()}
    write_checkpoint(folder, state | {"optimizer": {}, "step": 3})


def test_load_reads_a_run_folder_and_its_checkpoint(tokenizer, tmp_path):
    model = shaken(CLIP(CLIPConfig(**TINY_RESNET)))
    saved_checkpoint(tmp_path, model, tokenizer)
    for name in (tmp_path, tmp_path / "checkpoint.pt"):
        loaded, its_tokenizer = load(name)
        assert loaded.config == model.config
        assert_same_weights(loaded, model)
        assert its_tokenizer.to_json() == tokenizer.to_json()


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.pt"])
def test_load_reads_a_file_of_openais_names(file, tokenizer, tmp_path):
    model = shaken(CLIP(CLIPConfig(**TINY))).half()
    write = safetensors.torch.save_file if file.endswith("s") else torch.save
    write(model.state_dict(), tmp_path / file)
    with pytest.raises(MinclipError, match="no tokenizer beside it"), pytest.warns(UserWarning, match="QuickGELU"):
        load(tmp_path / file)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json())
    loaded, _ = load(tmp_path / file, quick_gelu=False)
    assert loaded.config == model.config
    assert_same_weights(loaded, model.float())
    assert_same_weights(from_openai(read_weights(tmp_path / file)), model)


@pytest.mark.parametrize(("sizes", "vision"), [
    (TINY, {"width": 64, "head_width": 16}), (TINY_RESNET, {"width": 16, "head_width": 128}),
])  # fmt: skip
def test_load_reads_open_clips_folder_and_training_checkpoint(sizes, vision, tokenizer, tmp_path):
    model = shaken(CLIP(CLIPConfig(**sizes | dict(vision_heads=4, transformer_heads=2))))
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json())
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {"vision_cfg": vision, "text_cfg": {"heads": 2}}})
    )
    wrapped = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": wrapped}, tmp_path / "open_clip_pytorch_model.bin")
    loaded, _ = load(tmp_path)
    assert loaded.config == model.config
    assert_same_weights(loaded, model)


def write_old_hub_model(folder, model, tokenizer) -> None:
    """As the first CLIP models lie on the hub: torch's format, position ids among the weights, defaults left out."""
    from minclip.transformers_weights import to_transformers_config, to_transformers_state

    folder.mkdir(parents=True)
    weights = to_transformers_state(model) | {"text_model.embeddings.position_ids": torch.arange(16)[None]}
    torch.save(weights, folder / "pytorch_model.bin")
    config = to_transformers_config(model.config)
    config["text_config"] |= {"eos_token_id": 2}
    del config["vision_config"]["layer_norm_eps"]
    (folder / "config.json").write_text(json.dumps(config | {"text_config_dict": None}))
    (folder / "tokenizer.json").write_text(tokenizer.to_json())


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The hub's cache, empty and without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_load_takes_a_name_of_the_hub(hub, tokenizer):
    model = shaken(CLIP(CLIPConfig(**TINY)))
    repository = hub / "models--someone--clip-tiny"
    write_old_hub_model(repository / "snapshots" / "0123", model, tokenizer)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    loaded, its_tokenizer = load("someone/clip-tiny")
    assert_same_weights(loaded, model)
    assert torch.equal(its_tokenizer(["a knight"]), tokenizer(["a knight"]))


def test_offline_the_error_says_what_to_download(hub):
    with pytest.raises(MinclipError, match="hf download openai/clip-vit-base-patch32 .*--local-dir FOLDER"):
        load("openai/clip-vit-base-patch32")


@pytest.mark.parametrize("name", ["glyphs-nonsense", "./a/b", "folder/nothing", "a b/c"])
def test_what_is_no_name_of_the_hub_is_not_looked_up_there(name, monkeypatch, tmp_path):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("looked it up"))
    with pytest.raises(MinclipError, match="There is no model"):
        load(name)


def test_another_normalisation_is_refused(tokenizer, tmp_path):
    save(CLIP(CLIPConfig(**TINY)), tokenizer, tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert settings["image_mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings | {"image_mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(MinclipError, match="normalised with mean"):
        load(tmp_path)


# --- damage ---------------------------------------------------------------------------------------


class Opens:
    """Pickled, it runs code where it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("the file was unpickled",)


@pytest.mark.parametrize("file", ["model.safetensors", "checkpoint.pt", "pytorch_model.bin", "archive.pt"])
def test_nothing_unpickles(file, tmp_path):
    (tmp_path / file).write_bytes(pickle.dumps(Opens(), protocol=2))
    with pytest.raises(MinclipError, match="cannot be read"):
        load(tmp_path / file)
    torch.save({"model": Opens()}, tmp_path / file)
    with pytest.raises(MinclipError, match="cannot be read"):
        load(tmp_path / file)


@pytest.mark.parametrize("kind", ["save", "resnet", "checkpoint", "old"])
def test_a_damaged_folder_is_refused_in_one_sentence(kind, tokenizer, tmp_path):
    """Each file in turn cut short, emptied, filled with something else, or taken away."""
    folder = tmp_path / "model"
    model = CLIP(CLIPConfig(**(TINY_RESNET if kind == "resnet" else TINY)))
    if kind == "checkpoint":
        saved_checkpoint(folder, model, tokenizer)
    elif kind == "old":
        write_old_hub_model(folder, model, tokenizer)
    else:
        save(model, tokenizer, folder)
    load(folder)
    optional = {"tokenizer_config.json", "preprocessor_config.json"}  # the first is transformers' alone
    for file in sorted(set(folder.iterdir()) - {folder / "tokenizer_config.json"}):
        whole = file.read_bytes()
        damages = [whole[: len(whole) // 2], whole[:-1], b"", b"[]", b"null", b'{"a": 1}', bytes(100), None]
        for damage in damages:
            file.unlink()
            if damage is not None:
                file.write_bytes(damage)
            elif file.name in optional:
                continue
            if damage == b'{"a": 1}' and file.name in optional:
                continue  # a preprocessor that asks for nothing in particular
            if (kind, file.name, damage) == ("resnet", "config.json", None):
                with pytest.warns(UserWarning, match="QuickGELU"):  # what is left could be OpenAI's
                    load(folder)
                continue
            with pytest.raises(MinclipError) as raised:
                load(folder)
            assert "\n" not in str(raised.value)
            assert len(str(raised.value)) < 700
            file.write_bytes(whole)
        file.write_bytes(whole)


@pytest.mark.parametrize(
    "change",
    [
        {"vision_width": 128}, {"vocab_size": 99}, {"embed_dim": "large"}, {"vision_layers": None}, {"colour": "red"},
        {"image_resolution": 31}, {"vision_layers": [1, 1]}, {"transformer_heads": 7}, {"context_length": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_configuration_that_does_not_fit_is_refused(change, tokenizer, tmp_path):
    save(CLIP(CLIPConfig(**TINY_RESNET)), tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(MinclipError):
        load(tmp_path)


def test_a_model_that_cannot_be_saved_leaves_the_one_before(tokenizer, tmp_path, monkeypatch):
    sizes = TINY | dict(vocab_size=tokenizer.vocab_size)
    save(CLIP(CLIPConfig(**sizes)), tokenizer, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MinclipError, match="No space left on device"):
        save(shaken(CLIP(CLIPConfig(**sizes))), tokenizer, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "file, content",
    [
        ("preprocessor_config.json", {"image_std": [0.5, 0.5, 0.5]}),
        ("processor_config.json", {"image_processor": {"image_mean": [0.5, 0.5, 0.5]}}),  # since transformers 5
        ("open_clip_config.json", {"preprocess_cfg": {"std": [0.5, 0.5, 0.5]}}),
    ],
)
def test_another_normalisation_is_refused_wherever_it_stands(file, content, tmp_path):
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(MinclipError, match="normalised with"):
        check_preprocessing(tmp_path)


def test_load_prefers_what_was_said_and_what_was_saved_last(tokenizer, tmp_path):
    sizes = TINY | dict(vocab_size=tokenizer.vocab_size)
    model, other = (shaken(CLIP(CLIPConfig(**sizes)), seed) for seed in (0, 1))
    saved_checkpoint(tmp_path, other, tokenizer)
    save(model, tokenizer, tmp_path)
    assert_same_weights(load(tmp_path)[0], model)  # not the run's checkpoint
    folder = tmp_path / "open_clip"
    folder.mkdir()
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    (folder / "tokenizer.json").write_text(tokenizer.to_json())
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": False}}))
    for said in (None, False, True):
        assert load(folder, quick_gelu=said)[0].config.quick_gelu is bool(said)


def test_a_folder_whose_tokenizer_is_too_big_is_refused(tokenizer, tmp_path):
    save(CLIP(CLIPConfig(**TINY | dict(vocab_size=tokenizer.vocab_size))), tokenizer, tmp_path)
    bigger = minclip.CLIPTokenizer.train(["a black chess knight", "greek small letter alpha with psili"] * 9, 999, 16)
    assert bigger.vocab_size > tokenizer.vocab_size
    (tmp_path / "tokenizer.json").write_text(bigger.to_json())
    with pytest.raises(MinclipError, match="do not belong together"):
        load(tmp_path)


@pytest.mark.parametrize("foreign", [print, shutil.rmtree, np.frombuffer], ids=lambda foreign: foreign.__name__)
def test_an_archive_that_names_foreign_code_is_refused(foreign, archive, tmp_path):
    evil = pickle.dumps(foreign, protocol=2)
    rewritten(archive[0], tmp_path / "evil.pt", lambda name, data: evil if name.endswith("data.pkl") else data)
    with pytest.raises(MinclipError, match=rf"refers to .*{foreign.__name__}.*safetensors"):
        load(tmp_path / "evil.pt")


def test_narrow_encoders_have_one_head():
    narrow = CLIP(CLIPConfig(**TINY | dict(vision_width=32, transformer_width=32, vision_heads=1)))
    loaded = from_openai(narrow.state_dict()).config
    assert (loaded.image_heads, loaded.transformer_heads) == (1, 1)


def test_what_older_configurations_say_a_second_time_wins_and_colours_are_three():
    model = CLIP(CLIPConfig(**TINY))
    config = to_transformers_config(model.config)
    twice = config | {
        "text_config_dict": {"hidden_act": "quick_gelu"},
        "vision_config_dict": {"hidden_act": "quick_gelu"},
    }
    assert from_transformers_state(to_transformers_state(model), twice).config.quick_gelu
    config["vision_config"]["num_channels"] = 1
    with pytest.raises(MinclipError, match="num_channels in vision_config is 1"):
        from_transformers_config(config)


def test_what_a_configuration_leaves_out_is_as_in_vit_b_32():
    assert from_transformers_config({"model_type": "clip"}) == CLIPConfig(quick_gelu=True)
    assert from_transformers_config({"model_type": "clip", "projection_dim": 768}).embed_dim == 768


def test_a_model_for_transformers_is_in_evaluation_mode():
    assert not minclip.pretrained.to_transformers(CLIP(CLIPConfig(**TINY))).training
