"""Answers to the exercises on linear probes: right ones written differently, and wrong ones.

A function's name is EXERCISE__WHAT; where WHAT begins with `right`, all checks must accept it, and
otherwise they must reject it. Each wrong one says what a student who wrote it believes.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

# 1. Comparable features


def standardise__right_in_two_steps(train, test):
    deviation = np.sqrt(np.mean(np.square(train - np.mean(train))))
    both = [rows - np.mean(train, axis=0, keepdims=True) for rows in (train, test)]
    return both[0] / deviation, both[1] / deviation


def standardise__each_by_its_own_numbers(train, test):
    """Treats each set by itself. Belief: both should have mean 0."""
    return (train - train.mean(0)) / train.std(), (test - test.mean(0)) / test.std()


def standardise__by_both_together(train, test):
    """Takes mean and deviation over both. Belief: more data, better estimates; labels are not looked at, after all."""
    both = np.concatenate([train, test])
    return (train - both.mean(0)) / both.std(), (test - both.mean(0)) / both.std()


def standardise__a_deviation_for_each_feature(train, test):
    """Scales each feature by itself. Belief: all features are equally important."""
    mean, deviation = train.mean(0), train.std(0) + 1e-12
    return (train - mean) / deviation, (test - mean) / deviation


def standardise__one_mean_for_all(train, test):
    """One mean for the whole matrix. Belief: mean() is mean(axis=0)."""
    return (train - train.mean()) / train.std(), (test - train.mean()) / train.std()


def standardise__along_the_features(train, test):
    """Subtracts each example's mean. Belief: axis=1 is the examples' axis."""
    return tuple((rows - rows.mean(1, keepdims=True)) / train.std() for rows in (train, test))


def standardise__deviation_of_what_is_left(train, test):
    """Takes the deviation after the means are gone. Belief: subtracting means does not change it."""
    centred = train - train.mean(0)
    return centred / centred.std(), (test - train.mean(0)) / centred.std()


def standardise__in_place(train, test):
    """Changes the caller's arrays. Belief: `-=` is a shorter way to write the same."""
    mean, deviation = train.mean(0), train.std()
    train -= mean
    test -= mean
    train /= deviation
    test /= deviation
    return train, test


def standardise__right_in_single_precision(train, test):
    mean, deviation = train.mean(axis=0), train.std()
    return [((x - mean) / deviation).astype(np.float32) for x in (train, test)]


# 2. The objective and its gradient


def probe_objective__right_by_autograd(weights, bias, features, labels, penalty):
    w, b = (torch.tensor(part, dtype=torch.float64, requires_grad=True) for part in (weights, bias))
    logits = torch.tensor(features, dtype=torch.float64) @ w + b
    value = F.cross_entropy(logits, torch.tensor(labels)) + penalty / 2 * w.square().sum()
    value.backward()
    return value.item(), w.grad.numpy(), b.grad.numpy()


def probe_objective__right_by_one_hot(weights, bias, features, labels, penalty):
    z = np.einsum("nd,dk->nk", features, weights) + bias[None]
    e = np.exp(z - z.max(1)[:, None])
    p, truth = e / e.sum(1)[:, None], np.eye(len(bias))[labels]
    highest = z.max(1)
    losses = highest + np.log(e.sum(1)) - (z * truth).sum(1)
    value = losses.mean() + 0.5 * penalty * np.sum(weights * weights)
    error = (p - truth) / len(labels)
    return value.item(), np.einsum("nd,nk->dk", features, error) + penalty * weights, error.sum(0)


def _right(weights, bias, features, labels, penalty):
    return probe_objective__right_by_one_hot(weights, bias, features, labels, penalty)


def probe_objective__summed(weights, bias, features, labels, penalty):
    """A sum over examples. Belief: the penalty does not mind how many there are (C and lambda then differ by N)."""
    n = len(labels)
    value, d_weights, d_bias = _right(weights, bias, features, labels, 0.0)
    return n * value + penalty / 2 * (weights**2).sum(), n * d_weights + penalty * weights, n * d_bias


def probe_objective__penalty_not_halved(weights, bias, features, labels, penalty):
    """The whole square, with its right gradient. Belief: a factor of two in lambda does not matter."""
    return _right(weights, bias, features, labels, 2 * penalty)


def probe_objective__bias_penalised(weights, bias, features, labels, penalty):
    """Penalises the bias as well. Belief: a bias is a weight."""
    value, d_weights, d_bias = _right(weights, bias, features, labels, penalty)
    return value + penalty / 2 * (bias**2).sum(), d_weights, d_bias + penalty * bias


def probe_objective__penalty_without_gradient(weights, bias, features, labels, penalty):
    """Leaves the penalty out of the gradient. Belief: it is a constant."""
    value, _, _ = _right(weights, bias, features, labels, penalty)
    return (value, *_right(weights, bias, features, labels, 0.0)[1:])


def probe_objective__gradient_summed(weights, bias, features, labels, penalty):
    """A mean for the value, a sum for the gradient. Belief: the size of a gradient is the line search's business."""
    value, _, _ = _right(weights, bias, features, labels, penalty)
    _, d_weights, d_bias = _right(weights, bias, features, labels, 0.0)
    return value, len(labels) * d_weights + penalty * weights, len(labels) * d_bias


def probe_objective__truth_not_subtracted(weights, bias, features, labels, penalty):
    """Probabilities for errors. Belief: the gradient of a softmax is the softmax."""
    value, d_weights, d_bias = _right(weights, bias, features, labels, penalty)
    truth = np.eye(len(bias))[labels] / len(labels)
    return value, d_weights + features.T @ truth, d_bias + truth.sum(0)


def probe_objective__softmax_over_examples(weights, bias, features, labels, penalty):
    """Normalises down the examples. Belief: axis 0 is the classes' axis."""
    logits = features @ weights + bias
    p = np.exp(logits) / np.exp(logits).sum(0)
    value = -np.log(p[np.arange(len(labels)), labels]).mean() + penalty / 2 * (weights**2).sum()
    error = (p - np.eye(len(bias))[labels]) / len(labels)
    return float(value), features.T @ error + penalty * weights, error.sum(0)


def probe_objective__overflows(weights, bias, features, labels, penalty):
    """Exponentials as they stand. Belief: logits of a probe are small."""
    e = np.exp(features @ weights + bias)
    p, truth = e / e.sum(1, keepdims=True), np.eye(len(bias))[labels]
    value = -np.log((p * truth).sum(1)).mean() + penalty / 2 * (weights**2).sum()
    return float(value), features.T @ (p - truth) / len(labels) + penalty * weights, (p - truth).mean(0)


def probe_objective__logarithm_of_a_probability(weights, bias, features, labels, penalty):
    """Softmax first, its logarithm then. Belief: with the largest logit subtracted nothing can go wrong."""
    logits = features @ weights + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    truth = np.eye(len(bias))[labels]
    value = -np.log((p * truth).sum(axis=1)).mean() + penalty / 2 * (weights**2).sum()
    error = (p - truth) / len(labels)
    return float(value), features.T @ error + penalty * weights, error.sum(axis=0)


def probe_objective__right_in_single_precision(weights, bias, features, labels, penalty):
    w, b, x = (torch.tensor(part, dtype=torch.float32) for part in (weights, bias, features))
    w.requires_grad_(), b.requires_grad_()
    value = F.cross_entropy(x @ w + b, torch.tensor(labels)) + penalty / 2 * (w**2).sum()
    return value.item(), *(grad.numpy() for grad in torch.autograd.grad(value, (w, b)))


def probe_objective__less_the_largest_of_all(weights, bias, features, labels, penalty):
    """Subtracts one number from the whole matrix. Belief: whatever keeps the exponentials small is enough."""
    logits = features @ weights + bias
    logits = logits - logits.max()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    n, rows = len(labels), np.arange(len(labels))
    error = np.exp(log_p)
    error[rows, labels] -= 1
    value = -log_p[rows, labels].mean() + penalty / 2 * (weights**2).sum()
    return float(value), features.T @ error / n + penalty * weights, error.mean(axis=0)


def probe_objective__classes_as_seen(weights, bias, features, labels, penalty):
    """Counts the classes by the largest label. Belief: each class has an example."""
    logits = features @ weights + bias
    log_sum = np.logaddexp.reduce(logits, axis=1)
    truth = np.eye(labels.max() + 1)[labels]
    error = np.exp(logits - log_sum[:, None]) - truth
    value = (log_sum - (logits * truth).sum(axis=1)).mean() + penalty / 2 * (weights**2).sum()
    return float(value), features.T @ error / len(labels) + penalty * weights, error.mean(axis=0)


def probe_objective__decays_in_place(weights, bias, features, labels, penalty):
    """Scales the weights where they lie. Belief: whoever called has a copy."""
    value, d_weights, d_bias = _right(weights, bias, features, labels, 0.0)
    value += penalty / 2 * (weights**2).sum()
    weights *= penalty
    return float(value), d_weights + weights, d_bias


# 3. The search for a penalty


def narrowing_search__right_recursively(score, places, stride):
    known = {}

    def best_of(candidates):
        for place in candidates:
            if place not in known:
                known[place] = score(place)
        highest = max(known[place] for place in candidates)
        return min(place for place in candidates if known[place] == highest)

    def narrow(centre, distance):
        if distance < 1:
            return centre
        inside = [p for p in (centre - distance, centre, centre + distance) if p in range(places)]
        return narrow(best_of(inside), distance // 2)

    return narrow(best_of(list(range(0, places, stride))), stride // 2)


def _search(score, places, stride, remember=True, until=1, order=(-1, 0, 1), first=None, clamp=False):
    known = {}

    def scored(place):
        if not remember or place not in known:
            known[place] = score(place)
        return known[place]

    best = max(first or range(0, places, stride), key=scored)
    while stride > until:
        stride //= 2
        near = [best + sign * stride for sign in order]
        near = [min(max(p, 0), places - 1) for p in near] if clamp else [p for p in near if 0 <= p < places]
        best = max(near, key=scored)
    return best


def narrowing_search__of_every_place(score, places, stride):
    """Looks at all. Belief: a search for the best has to (each look is a fit)."""
    return max(range(places), key=score)


def narrowing_search__coarse_pass_alone(score, places, stride):
    """Stops after the first pass. Belief: accuracy hardly varies in between."""
    return max(range(0, places, stride), key=score)


def narrowing_search__nothing_remembered(score, places, stride):
    """Scores the best anew in every pass. Belief: looking again costs nothing."""
    return _search(score, places, stride, remember=False)


def narrowing_search__stops_at_two(score, places, stride):
    """Ends at stride 2. Belief: `while stride > 2` halves down to 1."""
    return _search(score, places, stride, until=2)


def narrowing_search__upwards_alone(score, places, stride):
    """Looks at the higher neighbour only. Belief: the lower one was ruled out by the pass before."""
    return _search(score, places, stride, order=(0, 1))


def narrowing_search__over_the_edge(score, places, stride):
    """Asks for places off the grid. Belief: Python's negative indices are harmless."""
    known = {}

    def scored(place):
        if place not in known:
            known[place] = score(place)
        return known[place]

    best = max(range(0, places, stride), key=scored)
    while stride > 1:
        stride //= 2
        best = max((best - stride, best, best + stride), key=scored)
    return best


def narrowing_search__held_to_the_edge(score, places, stride):
    """Moves places off the grid to its edge. Belief: clamping is leaving out (it looks at places nobody asked for)."""
    return _search(score, places, stride, clamp=True)


def narrowing_search__last_coarse_place_missed(score, places, stride):
    """Leaves out the last place of the first pass. Belief: range's end must be lowered by one for an index."""
    return _search(score, places, stride, first=list(range(0, places - 1, stride)) or [0])


def narrowing_search__stays_where_it_is(score, places, stride):
    """Keeps the best in a tie. Belief: no improvement, no move; the lowest of equals was asked for."""
    return _search(score, places, stride, order=(0, -1, 1))


def narrowing_search__nought_is_unknown(score, places, stride):
    """Takes a score of 0 for one that is not known yet. Belief: `if known.get(place)` asks whether it is there."""
    known = {}

    def scored(place):
        if not known.get(place):
            known[place] = score(place)
        return known[place]

    return _search(scored, places, stride, remember=False)


def narrowing_search__halves_of_places(score, places, stride):
    """Divides places with /. Belief: 16 / 2 is 8."""
    return _search(lambda place: score(place / 2 * 2), places, stride)


# 4. A few labels of each class


def few_shots__right_by_a_permutation(labels, shots, seed):
    order = np.random.default_rng(seed).permutation(len(labels))
    taken, chosen = {}, []
    for place in order.tolist():
        one = int(labels[place])
        if taken.get(one, 0) < shots:
            taken[one] = taken.get(one, 0) + 1
            chosen.append(place)
    return np.array(sorted(chosen))


def _by_class(labels, draw):
    return np.sort(np.concatenate([draw(np.flatnonzero(labels == one)) for one in np.unique(labels)]))


def few_shots__in_all(labels, shots, seed):
    """Draws from the whole set. Belief: a random draw is balanced."""
    rng = np.random.default_rng(seed)
    count = min(len(labels), shots * len(np.unique(labels)))
    return np.sort(rng.choice(len(labels), count, replace=False))


def few_shots__with_replacement(labels, shots, seed):
    """Draws with replacement. Belief: choice does not repeat itself."""
    rng = np.random.default_rng(seed)
    return _by_class(labels, lambda places: rng.choice(places, shots))


def few_shots__the_first(labels, shots, seed):
    """Takes the first of each class. Belief: data come in random order."""
    return _by_class(labels, lambda places: places[:shots])


def few_shots__seed_ignored(labels, shots, seed):
    """The same draw for every seed. Belief: one random draw is as good as many (few-shot curves vary most of all)."""
    rng = np.random.default_rng(0)
    return _by_class(labels, lambda places: rng.choice(places, min(shots, len(places)), replace=False))


def few_shots__places_within_the_class(labels, shots, seed):
    """Returns numbers within each class. Belief: the third example of a class is the third example."""
    rng = np.random.default_rng(seed)
    return _by_class(labels, lambda places: rng.choice(len(places), min(shots, len(places)), replace=False))


def few_shots__class_by_class_in_order(labels, shots, seed):
    """Does not sort. Belief: the order of examples does not matter."""
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == one) for one in np.unique(labels)]
    return np.concatenate([rng.choice(places, min(shots, len(places)), replace=False) for places in classes])


def few_shots__small_classes_left_out(labels, shots, seed):
    """Skips classes that have too few. Belief: the protocol wants exactly k."""
    rng = np.random.default_rng(seed)
    classes = [places for one in np.unique(labels) if len(places := np.flatnonzero(labels == one)) >= shots]
    return np.sort(np.concatenate([rng.choice(places, shots, replace=False) for places in classes]))


def few_shots__by_the_global_generator(labels, shots, seed):
    """Seeds numpy's global generator. Belief: nobody else draws from it."""
    np.random.seed(seed)  # noqa: NPY002
    return _by_class(labels, lambda places: np.random.choice(places, min(shots, len(places)), replace=False))  # noqa: NPY002


def few_shots__nought_is_no_seed(labels, shots, seed):
    """Takes the seed 0 for none. Belief: `seed or None` is a default."""
    return few_shots__right_by_a_permutation(labels, shots, seed or None)


def few_shots__a_block_from_a_random_start(labels, shots, seed):
    """Takes neighbours, from a place drawn at random. Belief: one random number makes a random sample."""
    rng, chosen = np.random.default_rng(seed), []
    for one in np.unique(labels):
        places = np.flatnonzero(labels == one)
        chosen.append(np.roll(places, -rng.integers(len(places)))[:shots])
    return np.sort(np.concatenate(chosen))


def few_shots__labels_renamed_in_place(labels, shots, seed):
    """Renames a negative label where it lies. Belief: labels begin at 0, and mine are mine."""
    labels[labels < 0] = labels.max() + 1
    return few_shots__right_by_a_permutation(labels, shots, seed)


def few_shots__places_as_floats(labels, shots, seed):
    """Appends to an empty array. Belief: np.array([]) has no type yet."""
    rng, chosen = np.random.default_rng(seed), np.array([])
    for one in np.unique(labels):
        chosen = np.append(chosen, rng.permutation(np.flatnonzero(labels == one))[:shots])
    return np.sort(chosen)


# 5. What zero-shot is worth in labels


def shots_to_match__right_by_interp(shots, accuracies, zero_shot):
    reached = [i for i, accuracy in enumerate(accuracies) if accuracy >= zero_shot]
    if not reached:
        return float("inf")
    i = reached[0]
    if i == 0:
        return float(shots[0])
    return float(2 ** np.interp(zero_shot, accuracies[i - 1 : i + 1], np.log2(shots[i - 1 : i + 1])))


def shots_to_match__on_a_linear_scale(shots, accuracies, zero_shot):
    """Interpolates over shots. Belief: a straight line is a straight line on any axis."""
    for i, accuracy in enumerate(accuracies):
        if accuracy >= zero_shot:
            if i == 0:
                return float(shots[0])
            part = (zero_shot - accuracies[i - 1]) / (accuracy - accuracies[i - 1])
            return shots[i - 1] + part * (shots[i] - shots[i - 1])
    return math.inf


def shots_to_match__the_next_measured(shots, accuracies, zero_shot):
    """Returns a measured point. Belief: half a label cannot be bought."""
    return next((float(s) for s, accuracy in zip(shots, accuracies) if accuracy >= zero_shot), math.inf)


def shots_to_match__beyond_the_data(shots, accuracies, zero_shot):
    """Goes on with the last slope. Belief: the line continues."""
    if max(accuracies) >= zero_shot or len(shots) < 2:
        return shots_to_match__right_by_interp(shots, accuracies, zero_shot)
    part = (zero_shot - accuracies[-2]) / (accuracies[-1] - accuracies[-2])
    return float(shots[-2] * (shots[-1] / shots[-2]) ** part)


def shots_to_match__by_interp_over_all(shots, accuracies, zero_shot):
    """Hands the whole curve to numpy.interp. Belief: it accepts accuracies in any order, and knows what lies outside."""
    return float(np.exp(np.interp(zero_shot, accuracies, np.log(shots))))


def shots_to_match__the_last_crossing(shots, accuracies, zero_shot):
    """Looks from the end. Belief: curves only rise."""
    if max(accuracies) < zero_shot:
        return math.inf
    for i in range(len(shots) - 1, 0, -1):
        if accuracies[i] >= zero_shot > accuracies[i - 1]:
            part = (zero_shot - accuracies[i - 1]) / (accuracies[i] - accuracies[i - 1])
            return float(shots[i - 1] * (shots[i] / shots[i - 1]) ** part)
    return float(shots[0])


def shots_to_match__strictly_above(shots, accuracies, zero_shot):
    """Waits until the probe is better. Belief: to match is to beat."""
    for i, accuracy in enumerate(accuracies):
        if accuracy > zero_shot:
            if i == 0:
                return float(shots[0])
            part = (zero_shot - accuracies[i - 1]) / (accuracy - accuracies[i - 1])
            return math.exp(math.log(shots[i - 1]) + part * math.log(shots[i] / shots[i - 1]))
    return math.inf


def shots_to_match__none_for_never(shots, accuracies, zero_shot):
    """Returns None where it is never reached. Belief: no number is no number."""
    got = shots_to_match__right_by_interp(shots, accuracies, zero_shot)
    return None if got == math.inf else got


def shots_to_match__right_giving_the_entry_itself(shots, accuracies, zero_shot):
    for i, accuracy in enumerate(accuracies):
        if accuracy >= zero_shot:
            if i == 0:
                return shots[0]  # an int where it was one
            part = (zero_shot - accuracies[i - 1]) / (accuracy - accuracies[i - 1])
            return shots[i - 1] ** (1 - part) * shots[i] ** part
    return math.inf


# 7. How far a test's accuracy strays


def margin__right_step_by_step(accuracy, pictures=None, within=None):
    if pictures is not None:
        return 1.96 * (accuracy * (1 - accuracy)) ** 0.5 / pictures**0.5
    fewest = max(1, int(1.96**2 * accuracy * (1 - accuracy) / within**2) - 2)
    while 1.96**2 * accuracy * (1 - accuracy) / fewest > within**2 * (1 + 1e-12):
        fewest += 1
    return fewest


def _margin(accuracy, pictures, within, width=1.96, variance=lambda p: p * (1 - p), power=0.5, whole=math.ceil):
    if pictures is not None:
        return width * math.sqrt(variance(accuracy)) / pictures**power
    return max(1, whole((width * math.sqrt(variance(accuracy)) / within) ** (1 / power) * (1 - 1e-12)))


def margin__one_deviation(accuracy, pictures=None, within=None):
    """One standard deviation. Belief: a margin is a standard deviation (it holds 68%)."""
    return _margin(accuracy, pictures, within, width=1.0)


def margin__whatever_the_accuracy(accuracy, pictures=None, within=None):
    """1 / √n, whatever the accuracy. Belief: only the number of pictures counts (right at 50% alone)."""
    return _margin(accuracy, pictures, within, variance=lambda p: 0.25)


def margin__divided_by_n(accuracy, pictures=None, within=None):
    """Divides by n. Belief: twice the pictures, half the margin."""
    return _margin(accuracy, pictures, within, power=1.0)


def margin__variance_for_deviation(accuracy, pictures=None, within=None):
    """Leaves the root out. Belief: the variance is the spread."""
    return _margin(accuracy, pictures, within, variance=lambda p: (p * (1 - p)) ** 2)


def margin__rounds_down(accuracy, pictures=None, within=None):
    """Rounds down. Belief: one picture more or less is nothing (the margin asked for is then missed)."""
    return _margin(accuracy, pictures, within, whole=math.floor)


def margin__one_side(accuracy, pictures=None, within=None):
    """1.645 deviations, which hold 95% from one side. Belief: only one direction matters."""
    return _margin(accuracy, pictures, within, width=1.645)


def margin__right_by_counting_up(accuracy, pictures=None, within=None):
    if within is None:
        return 1.96 * math.sqrt(accuracy * (1 - accuracy) / pictures)
    pictures = 1
    while 1.96 * math.sqrt(accuracy * (1 - accuracy) / pictures) > within * (1 + 1e-12):
        pictures += 1
    return pictures


def margin__one_fewer(accuracy, pictures=None, within=None):
    """Divides by n - 1. Belief: every variance is estimated, and loses a degree of freedom."""
    if within is None:
        return 1.96 * math.sqrt(accuracy * (1 - accuracy) / max(1, pictures - 1))
    return margin__right_by_counting_up(accuracy, None, within)
