"""Answers to the exercises on architectures: right ones written differently, and wrong ones.

A function's name is EXERCISE__WHAT; where WHAT begins with `right`, all checks must accept it, and
otherwise they must reject it. Each wrong one says what a student who wrote it believes.
"""

import math

import numpy as np

# 1. What training costs


def training_flops__right_pass_by_pass(products):
    total = 0
    for place, (n, k, m) in enumerate(products):
        passes = 2 if place == 0 else 3
        total += passes * n * m * (k + k)
    return total


def training_flops__forward_alone(products):
    """The forward pass. Belief: training costs what using costs."""
    return sum(2 * n * k * m for n, k, m in products)


def training_flops__picture_too(products):
    """Three times everything. Belief: every input needs its gradient, the picture included."""
    return 3 * sum(2 * n * k * m for n, k, m in products)


def training_flops__one_operation(products):
    """A multiplication and its addition as one. Belief: that is one operation (it is one *MAC*)."""
    forward = [n * k * m for n, k, m in products]
    return 3 * sum(forward) - forward[0]


def training_flops__backward_as_forward(products):
    """Twice the forward pass. Belief: backward is the same way back."""
    return 2 * sum(2 * n * k * m for n, k, m in products)


def training_flops__last_spared(products):
    """Spares the last product's inputs. Belief: the backward pass begins where nothing is needed."""
    forward = [2 * n * k * m for n, k, m in products]
    return 3 * sum(forward) - forward[-1]


def training_flops__weights_alone(products):
    """Counts the weights. Belief: compute and parameters are the same thing."""
    return sum(6 * k * m for _, k, m in products)


def training_flops__in_floats(products):
    """Counts in floats. Belief: a float holds any whole number."""
    forward = [2.0 * n * k * m for n, k, m in products]
    return int(3 * sum(forward) - forward[0])


# 2. How far can a place see?


def receptive_field__right_backwards(layers):
    after = []
    for depth in range(1, len(layers) + 1):
        field = 1
        for kernel, stride in reversed(layers[:depth]):
            field = (field - 1) * stride + kernel
        after.append((field, math.prod(stride for _, stride in layers[:depth])))
    return after


def _walk(layers, grow, stretch):
    field, apart, after = 1, 1, []
    for kernel, stride in layers:
        field, apart = grow(field, apart, kernel, stride), stretch(apart, stride)
        after.append((field, apart))
    return after


def receptive_field__strides_forgotten(layers):
    """Adds kernels as if all places were pixels. Belief: a stride only makes the picture smaller."""
    return _walk(layers, lambda f, a, k, s: f + k - 1, lambda a, s: a * s)


def receptive_field__own_stride_first(layers):
    """Lets a stride stretch its own kernel. Belief: a kernel with stride 2 takes every second pixel."""
    return _walk(layers, lambda f, a, k, s: f + (k - 1) * a * s, lambda a, s: a * s)


def receptive_field__whole_kernels(layers):
    """Adds k in place of k - 1. Belief: each kernel adds its width."""
    return _walk(layers, lambda f, a, k, s: f + k * a, lambda a, s: a * s)


def receptive_field__products(layers):
    """Multiplies kernels. Belief: 3 of 3 are 9."""
    return _walk(layers, lambda f, a, k, s: f * k, lambda a, s: a * s)


def receptive_field__strides_added(layers):
    """Adds strides. Belief: two steps of 2 are a step of 4, and three are 6."""
    return _walk(layers, lambda f, a, k, s: f + (k - 1) * a, lambda a, s: a + s - 1)


def receptive_field__last_layer_alone(layers):
    """Only where it ends. Belief: the last layer is all that counts."""
    field = apart = 1
    for kernel, stride in layers:
        field, apart = field + (kernel - 1) * apart, apart * stride
    return [(field, apart)] * len(layers)


def receptive_field__takes_the_list_apart(layers):
    """Pops each layer. Belief: the list is done with afterwards."""
    field, apart, after = 1, 1, []
    while layers:
        kernel, stride = layers.pop(0)
        field += (kernel - 1) * apart
        apart *= stride
        after.append((field, apart))
    return after


# 3. A factor in compute


def _lines(compute_a, accuracy_a, compute_b, accuracy_b, log=np.log):
    rows = [[1.0, 0.0, log(c)] for c in compute_a] + [[0.0, 1.0, log(c)] for c in compute_b]
    (a, b, slope), *_ = np.linalg.lstsq(np.array(rows), np.array([*accuracy_a, *accuracy_b]), rcond=None)
    return a, b, slope


def compute_factor__right_by_base_two(compute_a, accuracy_a, compute_b, accuracy_b, least_slope=0.01):
    a, b, doubling = _lines(compute_a, accuracy_a, compute_b, accuracy_b, np.log2)
    if doubling / math.log(2) < least_slope:
        return math.nan
    return float(2 ** ((b - a) / doubling))


def compute_factor__the_other_way(compute_a, accuracy_a, compute_b, accuracy_b, least_slope=0.01):
    """What B needs of A's. Belief: who is better needs more."""
    a, b, slope = _lines(compute_a, accuracy_a, compute_b, accuracy_b)
    return math.nan if slope < least_slope else math.exp((a - b) / slope)


def compute_factor__always_a_number(compute_a, accuracy_a, compute_b, accuracy_b, least_slope=0.01):
    """Divides by whatever slope there is. Belief: a fit always means something."""
    a, b, slope = _lines(compute_a, accuracy_a, compute_b, accuracy_b)
    with np.errstate(all="ignore"):
        return float(np.exp((b - a) / np.float64(slope)))


def compute_factor__mixed_logarithms(compute_a, accuracy_a, compute_b, accuracy_b, least_slope=0.01):
    """Fits over log10 and goes back with e. Belief: logarithms cancel."""
    a, b, slope = _lines(compute_a, accuracy_a, compute_b, accuracy_b, np.log10)
    return math.nan if slope < least_slope else math.exp((b - a) / slope)


def compute_factor__one_line(compute_a, accuracy_a, compute_b, accuracy_b, least_slope=0.01):
    """One line through all points gives the slope. Belief: the families do not matter for the slope."""
    x, y = np.log([*compute_a, *compute_b]), np.array([*accuracy_a, *accuracy_b])
    slope = np.polyfit(x, y, 1)[0]
    if slope < least_slope:
        return math.nan
    lead = np.mean(accuracy_b - slope * np.log(compute_b)) - np.mean(accuracy_a - slope * np.log(compute_a))
    return float(np.exp(lead / slope))


def compute_factor__ratio_of_means(compute_a, accuracy_a, compute_b, accuracy_b, least_slope=0.01):
    """Compute per accuracy. Belief: efficiency is output over input."""
    _, _, slope = _lines(compute_a, accuracy_a, compute_b, accuracy_b)
    if slope < least_slope:
        return math.nan
    return float((np.mean(compute_a) / np.mean(accuracy_a)) / (np.mean(compute_b) / np.mean(accuracy_b)))


def compute_factor__slope_of_a(compute_a, accuracy_a, compute_b, accuracy_b, least_slope=0.01):
    """A's own line, read at B's accuracies. Belief: only the slower family needs a line."""
    slope, intercept = np.polyfit(np.log(compute_a), accuracy_a, 1)
    if slope < least_slope:
        return math.nan
    needed = (np.asarray(accuracy_b) - intercept) / slope
    return float(np.exp(np.mean(needed - np.log(compute_b))))


def compute_factor__threshold_for_tenfold(compute_a, accuracy_a, compute_b, accuracy_b, least_slope=0.01):
    """Holds the slope for tenfold compute against the threshold. Belief: a slope is a slope, whatever the logarithm."""
    a, b, slope = _lines(compute_a, accuracy_a, compute_b, accuracy_b, np.log10)
    return float(10 ** ((b - a) / slope)) if slope >= least_slope else float("nan")


def compute_factor__threshold_for_doubled(compute_a, accuracy_a, compute_b, accuracy_b, least_slope=0.01):
    """Holds the slope for doubled compute against it. Belief: sizes were doubled, so the slope is that of doubling."""
    a, b, slope = _lines(compute_a, accuracy_a, compute_b, accuracy_b, np.log2)
    return float(2 ** ((b - a) / slope)) if slope >= least_slope else float("nan")


def compute_factor__each_steep_enough(compute_a, accuracy_a, compute_b, accuracy_b, least_slope=0.01):
    """Wants each family by itself to rise. Belief: a line that falls cannot be one of two parallel ones."""
    slopes = [np.polyfit(np.log(c), a, 1)[0] for c, a in ((compute_a, accuracy_a), (compute_b, accuracy_b))]
    if min(slopes) < least_slope:
        return float("nan")
    return compute_factor__right_by_base_two(compute_a, accuracy_a, compute_b, accuracy_b, least_slope)


def compute_factor__steep_enough_in_a(compute_a, accuracy_a, compute_b, accuracy_b, least_slope=0.01):
    """Looks at A's slope alone. Belief: A is the one that has to catch up."""
    if np.polyfit(np.log(compute_a), accuracy_a, 1)[0] < least_slope:
        return float("nan")
    return compute_factor__right_by_base_two(compute_a, accuracy_a, compute_b, accuracy_b, -np.inf)
