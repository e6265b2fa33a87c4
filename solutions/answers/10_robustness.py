"""Answers to the exercises on robustness: right ones written differently, and wrong ones.

A function's name is EXERCISE__WHAT; where WHAT begins with `right`, all checks must accept it, and
otherwise they must reject it. Each wrong one says what a student who wrote it believes.
"""

import numpy as np

# 1. An axis for accuracies


def logit_axis__right_by_two_logarithms(right, pictures):
    wrong = np.where(right == pictures, 0.5, pictures - right)
    right = np.where(right == 0, 0.5, right)
    wrong = np.where(right == 0.5, pictures - 0.5, wrong)
    right = np.where(wrong == 0.5, pictures - 0.5, right)
    return np.log(right) - np.log(wrong)


def logit_axis__share_for_odds(right, pictures):
    """ln a. Belief: a logarithmic axis is the logarithm of the accuracy."""
    return np.log(np.clip(right, 0.5, pictures - 0.5) / pictures)


def logit_axis__in_decades(right, pictures):
    """log10. Belief: any logarithm is the logarithm."""
    right = np.clip(right, 0.5, pictures - 0.5)
    return np.log10(right / (pictures - right))


def logit_axis__infinite(right, pictures):
    """Leaves the ends where they are. Belief: nobody has a perfect score."""
    with np.errstate(divide="ignore"):
        return np.log(right / (pictures - right))


def logit_axis__clipped_at_a_thousandth(right, pictures):
    """Clips accuracies to [0.001, 0.999]. Belief: the end is the same for ten pictures and for a million."""
    share = np.clip(right / pictures, 0.001, 0.999)
    return np.log(share / (1 - share))


def logit_axis__half_a_picture_added(right, pictures):
    """Adds half a picture to each count. Belief: it only matters at the ends (it moves every model)."""
    return np.log((right + 0.5) / (pictures - right + 0.5))


def logit_axis__wrong_over_right(right, pictures):
    """The sign turned. Belief: odds are against."""
    right = np.clip(right, 0.5, pictures - 0.5)
    return np.log((pictures - right) / right)


# 2. A score on some of the classes


def accuracy_among__right_by_masking(logits, labels, allowed):
    masked = np.full_like(logits, -np.inf)
    masked[:, allowed] = logits[:, allowed]
    asked = np.array([label in allowed for label in labels])
    return float(np.mean(masked.argmax(1)[asked] == labels[asked]))


def accuracy_among__all_may_be_answered(logits, labels, allowed):
    """Leaves pictures out, but no answers. Belief: a wrong answer is wrong, whatever it is."""
    kept = np.isin(labels, allowed)
    return float((logits[kept].argmax(1) == labels[kept]).mean())


def accuracy_among__places_for_classes(logits, labels, allowed):
    """Compares the place among the allowed columns with the label. Belief: columns keep their numbers."""
    kept = np.isin(labels, allowed)
    return float((logits[kept][:, allowed].argmax(1) == labels[kept]).mean())


def accuracy_among__others_count_as_wrong(logits, labels, allowed):
    """Keeps every picture. Belief: the test set is the test set."""
    allowed = np.asarray(allowed)
    return float((allowed[logits[:, allowed].argmax(1)] == labels).mean())


def accuracy_among__sorted_classes(logits, labels, allowed):
    """Sorts the names of the columns, not the columns. Belief: allowed classes come in order."""
    kept, names = np.isin(labels, allowed), np.sort(allowed)
    return float((names[logits[kept][:, allowed].argmax(1)] == labels[kept]).mean())


def accuracy_among__others_set_to_zero(logits, labels, allowed):
    """Sets the other logits to 0. Belief: 0 never wins (it does where logits are negative)."""
    masked = np.zeros_like(logits)
    masked[:, allowed] = logits[:, allowed]
    kept = np.isin(labels, allowed)
    return float((masked[kept].argmax(1) == labels[kept]).mean())


def accuracy_among__others_at_minus_a_hundred(logits, labels, allowed):
    """Sets what is not allowed to -100. Belief: no logit is lower."""
    among = np.full_like(logits, -100.0)
    among[:, allowed] = logits[:, allowed]
    kept = np.isin(labels, allowed)
    return float((among[kept].argmax(axis=1) == labels[kept]).mean())


def accuracy_among__probabilities_at_nought(logits, labels, allowed):
    """Sets the probability of what is not allowed to 0. Belief: one of the others always has some."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p[:, ~np.isin(np.arange(logits.shape[1]), allowed)] = 0
    kept = np.isin(labels, allowed)
    return float((p[kept].argmax(axis=1) == labels[kept]).mean())


# 3. Effective robustness


def _logit(share):
    return np.log(share / (1 - share))


def _expit(score):
    return 1 / (1 + np.exp(-score))


def effective_robustness__right_by_normal_equations(home, shifted, supervised):
    ones = np.ones(len(home))
    design = np.stack([_logit(home), ones], axis=1)
    line = np.linalg.lstsq(design[supervised], _logit(shifted)[supervised], rcond=None)[0]
    return shifted - _expit(design @ line)


def effective_robustness__on_plain_axes(home, shifted, supervised):
    """Fits accuracies. Belief: a line is a line."""
    slope, intercept = np.polyfit(home[supervised], shifted[supervised], 1)
    return shifted - (slope * home + intercept)


def effective_robustness__through_all_models(home, shifted, supervised):
    """Fits every model. Belief: the more points, the better the line (the one in question pulls it up)."""
    slope, intercept = np.polyfit(_logit(home), _logit(shifted), 1)
    return shifted - _expit(slope * _logit(home) + intercept)


def effective_robustness__in_logits(home, shifted, supervised):
    """The difference of logits. Belief: fitted there, measured there."""
    slope, intercept = np.polyfit(_logit(home)[supervised], _logit(shifted)[supervised], 1)
    return _logit(shifted) - (slope * _logit(home) + intercept)


def effective_robustness__the_fall(home, shifted, supervised):
    """Shifted less home. Belief: robust is who falls least, whatever was to be expected."""
    return shifted - home


def effective_robustness__the_other_way_round(home, shifted, supervised):
    """Foretells the benchmark from the shift, and turns the line round. Belief: one line fits both ways."""
    slope, intercept = np.polyfit(_logit(shifted)[supervised], _logit(home)[supervised], 1)
    return shifted - _expit((_logit(home) - intercept) / slope)


def effective_robustness__without_intercept(home, shifted, supervised):
    """A line through the origin. Belief: even odds stay even."""
    x, y = _logit(home), _logit(shifted)
    slope = (x * y)[supervised].sum() / (x * x)[supervised].sum()
    return shifted - _expit(slope * x)


# 4. The share of the gap


def gap_closed__right_model_by_model(home, shifted, expected):
    return np.array([float("nan") if a == c else (b - c) / (a - c) for a, b, c in zip(home, shifted, expected)])


def _share(above, gap):
    with np.errstate(all="ignore"):
        return np.where(gap == 0, np.nan, above / gap)


def gap_closed__in_points(home, shifted, expected):
    """The difference itself. Belief: a share and a number of points are the same."""
    return np.where(home == expected, np.nan, shifted - expected)


def gap_closed__up_to_perfect(home, shifted, expected):
    """Measures the gap from 1. Belief: the aim is 100%."""
    return _share(shifted - expected, 1 - expected)


def gap_closed__the_gap_that_is_left(home, shifted, expected):
    """What is left, not what is closed. Belief: the share of the gap is the gap over the gap."""
    return _share(home - shifted, home - expected)


def gap_closed__never_below_zero(home, shifted, expected):
    """Held between 0 and 1. Belief: a share lies there (a model that falls further is hidden)."""
    return np.clip(_share(shifted - expected, home - expected), 0, 1)


def gap_closed__zero_where_nothing_falls(home, shifted, expected):
    """0 where no fall was expected. Belief: nothing to close is nothing closed."""
    return np.nan_to_num(_share(shifted - expected, home - expected))


def gap_closed__with_a_warning(home, shifted, expected):
    """The right shares, by way of a division by 0. Belief: what is overwritten afterwards does no harm."""
    return np.where(home == expected, np.nan, 1 - (home - shifted) / (home - expected))


def gap_closed__nan_where_a_gain_is_expected(home, shifted, expected):
    """NaN also where the line lies above the model's benchmark accuracy. Belief: without a fall there is no gap."""
    return _share(shifted - expected, np.where(home > expected, home - expected, 0.0))


def gap_closed__without_signs(home, shifted, expected):
    """Absolute differences. Belief: a gap is a distance."""
    return 1 - _share(np.abs(home - shifted), np.abs(home - expected))


def gap_closed__warns_of_nought_by_nought(home, shifted, expected):
    """Silences the division by 0 alone. Belief: 0 / 0 is one, too."""
    with np.errstate(divide="ignore"):
        return np.where(home == expected, np.nan, 1 - (home - shifted) / (home - expected))


def gap_closed__nearly_equal_is_equal(home, shifted, expected):
    """NaN for any fall of less than a tenth of a point. Belief: so small a fall is none."""
    fall = np.where(np.abs(home - expected) < 0.001, np.nan, home - expected)
    return 1 - (home - shifted) / fall
