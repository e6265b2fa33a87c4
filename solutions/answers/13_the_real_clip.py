"""Answers to the exercises on the real CLIP: right ones written differently, and wrong ones.

A function's name is EXERCISE__WHAT; where WHAT begins with `right`, all checks must accept it, and
otherwise they must reject it. Each wrong one says what a student who wrote it believes.
"""

import torch

# 1. What the encoder reads


def to_input__right_colour_by_colour(pixels, mean, std):
    colours = [(pixels[..., c].to(mean.dtype) / 255 - mean[c]) / std[c] for c in range(3)]
    return torch.stack(colours)


def to_input__reshaped(pixels, mean, std):
    """reshape for permute. Belief: the shape is all that matters."""
    return (pixels.reshape(3, *pixels.shape[:2]) / 255 - mean[:, None, None]) / std[:, None, None]


def to_input__bytes(pixels, mean, std):
    """Leaves 0 to 255. Belief: the mean and the deviation take care of the range."""
    return (pixels.permute(2, 0, 1).float() - mean[:, None, None]) / std[:, None, None]


def to_input__colours_last(pixels, mean, std):
    """Leaves the axes. Belief: a picture is (H, W, 3) everywhere."""
    return (pixels / 255 - mean) / std


def to_input__variance(pixels, mean, std):
    """Divides by the square. Belief: std is a variance."""
    return (pixels.permute(2, 0, 1) / 255 - mean[:, None, None]) / std[:, None, None] ** 2


def to_input__blue_first(pixels, mean, std):
    """Turns the colours round. Belief: pictures are BGR (as one library's are)."""
    return (pixels.flip(2).permute(2, 0, 1) / 255 - mean[:, None, None]) / std[:, None, None]


def to_input__rows_for_columns(pixels, mean, std):
    """All axes turned round. Belief: transposing puts colours first."""
    return (pixels.permute(2, 1, 0) / 255 - mean[:, None, None]) / std[:, None, None]


def to_input__right_by_numpy(pixels, mean, std):
    x = (pixels.numpy() / 255 - mean.numpy()) / std.numpy()  # float64, since 255 is no tensor
    return torch.from_numpy(x.transpose(2, 0, 1).copy())


# 2. Three matrices under one name


def _rest(state):
    return {name: tensor for name, tensor in state.items() if name.startswith("out_proj")}


def stacked_projections__right_by_slices(state):
    width = len(state["q_proj.bias"])
    weight = state["q_proj.weight"].new_empty(3 * width, width)
    bias = state["q_proj.bias"].new_empty(3 * width)
    for place, part in enumerate("qkv"):
        weight[place * width : (place + 1) * width] = state[f"{part}_proj.weight"]
        bias[place * width : (place + 1) * width] = state[f"{part}_proj.bias"]
    return {"in_proj_weight": weight, "in_proj_bias": bias, **_rest(state)}


def _stacked(state, order, turn=lambda w: w, bias_order=None):
    return {
        "in_proj_weight": torch.cat([turn(state[f"{p}_proj.weight"]) for p in order]),
        "in_proj_bias": torch.cat([state[f"{p}_proj.bias"] for p in bias_order or order]),
        **_rest(state),
    }


def stacked_projections__by_alphabet(state):
    """Keys, queries, values. Belief: sorted is safe."""
    return _stacked(state, "kqv")


def stacked_projections__as_they_come(state):
    """In the dictionary's order. Belief: a state dict is in the order of the model."""
    order = [name[0] for name in state if name.endswith("_proj.weight") and not name.startswith("out")]
    return _stacked(state, order)


def stacked_projections__transposed(state):
    """Each transposed. Belief: one of the two libraries keeps (inputs, outputs), as it does for the projections."""
    return _stacked(state, "qkv", turn=lambda w: w.T)


def stacked_projections__side_by_side(state):
    """Along the inputs. Belief: three matrices beside each other make a wider one."""
    weight = torch.cat([state[f"{p}_proj.weight"] for p in "qkv"], dim=1)
    return _stacked(state, "qkv") | {"in_proj_weight": weight}


def stacked_projections__biases_in_another_order(state):
    """Weights in one order, biases in another. Belief: biases are small."""
    return _stacked(state, "qkv", bias_order="kqv")


def stacked_projections__output_transposed(state):
    """Turns out_proj, too. Belief: what holds for text_projection holds for every projection."""
    return _stacked(state, "qkv") | {"out_proj.weight": state["out_proj.weight"].T}


def stacked_projections__another_bias_for_the_keys(state):
    """The queries' bias for the keys, too. Belief: where attention comes out the same, the weights are the same."""
    return _stacked(state, "qkv", bias_order="qqv")


# 3. What 400 million pairs cost


def training_days__right_in_gpu_hours(forward, pairs, epochs, gpus, peak, utilisation):
    gpu_hours = pairs * epochs * (forward * 3) / (peak * utilisation) / 3600
    return gpu_hours / gpus / 24


def training_days__forward_alone(forward, pairs, epochs, gpus, peak, utilisation):
    """A forward pass a pair. Belief: training is looking at the data."""
    return forward * pairs * epochs / (gpus * peak * utilisation) / 86_400


def training_days__backward_as_forward(forward, pairs, epochs, gpus, peak, utilisation):
    """Twice a forward pass. Belief: backward costs what forward costs."""
    return 2 * forward * pairs * epochs / (gpus * peak * utilisation) / 86_400


def training_days__one_epoch(forward, pairs, epochs, gpus, peak, utilisation):
    """Each pair once. Belief: 400 million pairs are 400 million steps of one pair."""
    return 3 * forward * pairs / (gpus * peak * utilisation) / 86_400


def training_days__by_the_rating(forward, pairs, epochs, gpus, peak, utilisation):
    """The peak as it is. Belief: the data sheet says what one gets."""
    return 3 * forward * pairs * epochs / (gpus * peak) / 86_400


def training_days__utilisation_multiplied(forward, pairs, epochs, gpus, peak, utilisation):
    """Multiplies by the utilisation. Belief: less of the machine, less time."""
    return 3 * forward * pairs * epochs * utilisation / (gpus * peak) / 86_400


def training_days__in_hours(forward, pairs, epochs, gpus, peak, utilisation):
    """Divides by 3,600. Belief: that was days."""
    return 3 * forward * pairs * epochs / (gpus * peak * utilisation) / 3_600
