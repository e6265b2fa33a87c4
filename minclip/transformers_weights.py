"""Weights under the names of the `transformers` library, both ways, through one table.

transformers' `CLIPModel` is the same network with other names: queries, keys and values apart where
OpenAI stacks them, and both projections transposed. Moving them about is exact, so a round trip
returns the same bits. It has no CLIP ResNet.
"""

from collections.abc import Mapping

import torch

from .clip import CLIP, CLIPConfig
from .errors import MinclipError
from .openai_weights import model_from_state

# OpenAI's name -> transformers' name.
NAMES = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # sic
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
}
# The same inside block N, which is `transformer.resblocks.N` to one, `encoder.layers.N` to the other.
BLOCK_NAMES = {
    "attn.in_proj_{}": ("self_attn.q_proj.{}", "self_attn.k_proj.{}", "self_attn.v_proj.{}"),
    "attn.out_proj.{}": "self_attn.out_proj.{}",
    "ln_1.{}": "layer_norm1.{}",
    "ln_2.{}": "layer_norm2.{}",
    "mlp.c_fc.{}": "mlp.fc1.{}",
    "mlp.c_proj.{}": "mlp.fc2.{}",
}
TRANSPOSED = ("visual.proj", "text_projection")

# What a transformers configuration leaves out has these values there: those of ViT-B/32.
TEXT_DEFAULTS = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
VISION_DEFAULTS = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "num_channels": 3, "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip


def from_transformers(hf_model) -> CLIP:
    """A `transformers.CLIPModel` -> CLIP in float32, in evaluation mode, with its own copy of the weights.

    Raises MinclipError where the model is not one that `CLIP` can be.
    """
    return from_transformers_state(hf_model.state_dict(), hf_model.config.to_dict())


def to_transformers(model: CLIP):
    """CLIP -> `transformers.CLIPModel` in evaluation mode, with its own copy of the weights.

    Raises MinclipError for a ResNet, which transformers does not have, or where transformers is missing.
    """
    weights, config = to_transformers_state(model), to_transformers_config(model.config)
    try:
        import transformers
    except ImportError as error:
        raise MinclipError("to_transformers needs the transformers library: pip install transformers.") from error
    hf_model = transformers.CLIPModel(transformers.CLIPConfig(**config))
    hf_model.load_state_dict(weights)
    return hf_model.eval()


def name_table(config: CLIPConfig) -> dict[str, tuple[str, ...]]:
    """Each of OpenAI's names -> the one of transformers, or the three whose tensors are stacked there."""
    if config.is_resnet:
        raise MinclipError("transformers has no CLIP with a ResNet; minclip.save and open_clip's names keep it.")
    table = {ours: (theirs,) for ours, theirs in NAMES.items()}
    for ours_in, theirs_in, layers in (
        ("visual.transformer", "vision_model", config.vision_layers),
        ("transformer", "text_model", config.transformer_layers),
    ):
        for n in range(layers):
            for ours, theirs in BLOCK_NAMES.items():
                for kind in ("weight", "bias"):
                    several = theirs if isinstance(theirs, tuple) else (theirs,)
                    table[f"{ours_in}.resblocks.{n}.{ours.format(kind)}"] = tuple(
                        f"{theirs_in}.encoder.layers.{n}.{name.format(kind)}" for name in several
                    )
    return table


def to_transformers_state(model: CLIP) -> dict[str, torch.Tensor]:
    """The model's tensors under transformers' names. Raises MinclipError for a ResNet."""
    state, renamed = model.state_dict(), {}
    for ours, theirs in name_table(model.config).items():
        tensor = state[ours].T if ours in TRANSPOSED else state[ours]
        parts = tensor.chunk(len(theirs)) if len(theirs) > 1 else (tensor,)
        renamed |= {name: part.clone(memory_format=torch.contiguous_format) for name, part in zip(theirs, parts)}
    return renamed


def from_transformers_state(state: Mapping[str, torch.Tensor], hf_config: dict) -> CLIP:
    """Tensors under transformers' names and their `config.json` -> CLIP.

    Raises MinclipError when one is missing or left over, or the configuration is not one of CLIP's.
    """
    config = from_transformers_config(hf_config)
    table = name_table(config)
    needed = {name for theirs in table.values() for name in theirs}
    given = {name for name in state if not name.endswith("position_ids")}  # 0, 1, 2, ...: older versions kept them
    if needed != given:
        missing, extra = sorted(needed - given)[:3], sorted(given - needed)[:3]
        raise MinclipError(
            f"The weights are not those of the transformers CLIPModel that its configuration describes: "
            f"missing {missing or 'none'}, unknown {extra or 'none'}."
        )
    renamed = {}
    for ours, theirs in table.items():
        tensor = torch.cat([state[name] for name in theirs]) if len(theirs) > 1 else state[theirs[0]]
        renamed[ours] = tensor.T.contiguous() if ours in TRANSPOSED else tensor
    return model_from_state(config, renamed)


def to_transformers_config(config: CLIPConfig, start: int | None = None, end: int | None = None) -> dict:
    """CLIPConfig -> what transformers reads from `config.json`.

    start, end: ids of start- and end-of-text; the vocabulary's last two if not given. transformers
    pools where `end` stands, and means something else by the number 2.
    """
    start, end = start or config.vocab_size - 2, end or config.vocab_size - 1
    activation = "quick_gelu" if config.quick_gelu else "gelu"
    common = {"hidden_act": activation, "layer_norm_eps": 1e-5, "projection_dim": config.embed_dim}
    text = {
        "model_type": "clip_text_model",
        "vocab_size": config.vocab_size,
        "hidden_size": config.transformer_width,
        "intermediate_size": 4 * config.transformer_width,
        "num_hidden_layers": config.transformer_layers,
        "num_attention_heads": config.transformer_heads,
        "max_position_embeddings": config.context_length,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": config.vision_width,
        "intermediate_size": 4 * config.vision_width,
        "num_hidden_layers": config.vision_layers,
        "num_attention_heads": config.image_heads,
        "image_size": config.image_resolution,
        "patch_size": config.vision_patch_size,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "text_config": text | common,
        "vision_config": vision | common,
    }


def from_transformers_config(hf_config: dict) -> CLIPConfig:
    """What transformers keeps in `config.json` -> CLIPConfig.

    Raises MinclipError for another kind of model, or a CLIP that differs from OpenAI's in more than size.
    """
    if hf_config.get("model_type") != "clip":
        raise MinclipError(
            f"The configuration is of model_type {hf_config.get('model_type')!r}, not 'clip'; "
            "minclip reads CLIP models with a text and an image encoder."
        )
    # Some older configurations give the same a second time as *_dict, which transformers lets win.
    text, vision = (
        defaults | (hf_config.get(key) or {}) | (hf_config.get(f"{key}_dict") or {})
        for key, defaults in (("text_config", TEXT_DEFAULTS), ("vision_config", VISION_DEFAULTS))
    )
    activation = text["hidden_act"]
    for what, section in (("text_config", text), ("vision_config", vision)):
        for key, value in (
            ("intermediate_size", 4 * section["hidden_size"]), ("layer_norm_eps", 1e-5), ("hidden_act", activation),
            ("num_channels", 3),
        ):  # fmt: skip
            if section.get(key, value) != value:
                raise MinclipError(f"{key} in {what} is {section[key]}; minclip's CLIP has {value} there.")
    if activation not in ("quick_gelu", "gelu"):
        raise MinclipError(f"hidden_act is {activation!r}; minclip's CLIP has 'quick_gelu' or 'gelu'.")
    heads = vision["num_attention_heads"]
    return CLIPConfig(
        embed_dim=hf_config.get("projection_dim", 512),
        image_resolution=vision["image_size"],
        vision_layers=vision["num_hidden_layers"],
        vision_width=vision["hidden_size"],
        vision_patch_size=vision["patch_size"],
        context_length=text["max_position_embeddings"],
        vocab_size=text["vocab_size"],
        transformer_width=text["hidden_size"],
        transformer_heads=text["num_attention_heads"],
        transformer_layers=text["num_hidden_layers"],
        quick_gelu=activation == "quick_gelu",
        vision_heads=None if heads == max(1, vision["hidden_size"] // 64) else heads,
    )
