"""Answers to the exercises on limits: right ones written differently, and wrong ones.

A function's name is EXERCISE__WHAT; where WHAT begins with `right`, all checks must accept it, and
otherwise they must reject it. Each wrong one says what a student who wrote it believes.
"""

import numpy as np

# 1. How alike are two classes?


def _means(values, labels, classes):
    return np.stack([values[labels == k].mean(axis=0) for k in range(classes)])


def _cosines(means):
    means = means / np.linalg.norm(means, axis=1, keepdims=True)
    cosines = means @ means.T
    np.fill_diagonal(cosines, -1)
    return cosines


def likeness__right_by_sums(pictures, labels, classes):
    sums = np.zeros((classes, *pictures.shape[1:]))
    np.add.at(sums, labels, 1 - pictures)  # a mean and a sum have the same direction
    products = np.einsum("ixy,jxy->ij", sums, sums)
    cosines = products / np.sqrt(np.outer(np.diag(products), np.diag(products)))
    return np.where(np.eye(classes, dtype=bool), -1, cosines)


def likeness__paper_counts(pictures, labels, classes):
    """Takes the grey levels as they are. Belief: a picture is its numbers (white pages are then all alike)."""
    return _cosines(_means(pictures.reshape(len(pictures), -1), labels, classes))


def likeness__itself_too(pictures, labels, classes):
    """Leaves 1 on the diagonal. Belief: a class is most like itself, so let it say so."""
    cosines = _cosines(_means(1 - pictures.reshape(len(pictures), -1), labels, classes))
    np.fill_diagonal(cosines, 1)
    return cosines


def likeness__products(pictures, labels, classes):
    """Products without the norms. Belief: what shares much ink is alike (so dark classes are like all)."""
    means = _means(1 - pictures.reshape(len(pictures), -1), labels, classes)
    products = means @ means.T
    np.fill_diagonal(products, -1)
    return products


def likeness__centred(pictures, labels, classes):
    """Subtracts each mean picture's mean first, a correlation. Belief: a cosine and a correlation are one."""
    means = _means(1 - pictures.reshape(len(pictures), -1), labels, classes)
    return _cosines(means - means.mean(axis=1, keepdims=True))


def likeness__first_pictures(pictures, labels, classes):
    """One picture of each class. Belief: all pictures of a class look the same."""
    first = np.stack([pictures[labels == k][0].ravel() for k in range(classes)])
    return _cosines(1 - first)


def likeness__unit_pictures(pictures, labels, classes):
    """Divides each picture by its norm before the mean. Belief: means of directions are directions of means."""
    ink = 1 - pictures.reshape(len(pictures), -1)
    ink = ink / np.linalg.norm(ink, axis=1, keepdims=True)
    return _cosines(_means(ink, labels, classes))


# 2. What ten times the data are worth


def _points(accuracy, share):
    groups = [group for group in accuracy if share.get(group, 0) > 0]
    return np.array([share[g] for g in groups]), np.array([accuracy[g] for g in groups])


def points_for_tenfold__right_by_least_squares(accuracy, share):
    x, y = _points(accuracy, share)
    x = np.log(x) / np.log(10)
    design = np.stack([x, np.ones_like(x)], axis=1)
    return 100 * float(np.linalg.lstsq(design, y, rcond=None)[0][0])


def points_for_tenfold__natural_logarithm(accuracy, share):
    """A step of e. Belief: the logarithm is the natural one."""
    x, y = _points(accuracy, share)
    return float(np.polyfit(np.log(x), 100 * y, 1)[0])


def points_for_tenfold__the_share_itself(accuracy, share):
    """A line against the share. Belief: twice the data, twice the gain."""
    x, y = _points(accuracy, share)
    return float(np.polyfit(x, 100 * y, 1)[0])


def points_for_tenfold__as_a_share(accuracy, share):
    """Forgets that points are hundredths. Belief: 0.3 and 30 points are the same."""
    x, y = _points(accuracy, share)
    return float(np.polyfit(np.log10(x), y, 1)[0])


def points_for_tenfold__by_position(accuracy, share):
    """Takes the values in the order they come. Belief: dictionaries agree on their order."""
    x, y = np.array(list(share.values())), np.array(list(accuracy.values()))
    kept = min(len(x), len(y))
    return float(np.polyfit(np.log10(x[:kept]), 100 * y[:kept], 1)[0])


def points_for_tenfold__from_end_to_end(accuracy, share):
    """From the rarest group to the commonest. Belief: two points make a line (and the rest do not matter)."""
    x, y = _points(accuracy, share)
    x = np.log10(x)
    low, high = x.argmin(), x.argmax()
    return float(100 * (y[high] - y[low]) / (x[high] - x[low]))


def points_for_tenfold__weighted(accuracy, share):
    """Weights groups by their share. Belief: large groups are better evidence (the rare ones then vanish)."""
    x, y = _points(accuracy, share)
    if len(x) == 2:
        return float(np.polyfit(np.log10(x), 100 * y, 1)[0])
    return float(np.polyfit(np.log10(x), 100 * y, 1, w=x)[0])


def points_for_tenfold__without_groups_never_right(accuracy, share):
    """Keeps what is true of both. Belief: `and` asks whether a group is there; an accuracy of 0 is none."""
    groups = [group for group in accuracy if accuracy.get(group) and share.get(group)]
    x = np.log10([share[group] for group in groups])
    return float(100 * np.polyfit(x, [accuracy[group] for group in groups], 1)[0])


def points_for_tenfold__deletes_from_the_dictionaries(accuracy, share):
    """Removes what has no share from the caller's dictionary. Belief: it is of no use to anybody."""
    for group in list(accuracy):
        if not share.get(group):
            accuracy.pop(group)
    return points_for_tenfold__right_by_least_squares(accuracy, {group: share[group] for group in accuracy})


def points_for_tenfold__rare_is_none(accuracy, share):
    """Leaves out shares below a ten-thousandth. Belief: so rare a group says nothing."""
    return points_for_tenfold__right_by_least_squares(
        accuracy, {group: s for group, s in share.items() if group in accuracy and s > 1e-4}
    )


def points_for_tenfold__without_the_whole(accuracy, share):
    """Leaves out a share of 1, whose logarithm is 0. Belief: `if math.log10(share)` asks whether there is one."""
    return points_for_tenfold__right_by_least_squares(
        accuracy, {group: s for group, s in share.items() if group in accuracy and 0 < s < 1}
    )


# 3. How much of a planted bias is repeated?


def repeated__right_by_counting(answered, script, ink):
    total, scripts = 0.0, sorted(set(script.tolist()))
    for k in scripts:
        counts = {True: [0, 0], False: [0, 0]}
        for a, s, i in zip(answered.tolist(), script.tolist(), ink.tolist()):
            if s == k:
                counts[i == k][0] += a == k
                counts[i == k][1] += 1
        total += counts[True][0] / counts[True][1] - counts[False][0] / counts[False][1]
    return total / len(scripts)


def repeated__all_letters_alike(answered, script, ink):
    """Pools the scripts. Belief: letters count, whichever script they are of."""
    right, agrees = answered == script, ink == script
    return float(right[agrees].mean() - right[~agrees].mean())


def repeated__answers_in_the_ink(answered, script, ink):
    """How often the answer is the ink's script. Belief: to follow the ink is to agree with it (even by chance)."""
    return float((answered == ink).mean())


def repeated__errors_alone(answered, script, ink):
    """The error rate in the other's ink. Belief: every mistake in wrong ink is the ink's doing."""
    return float(np.mean([(answered[(script == k) & (ink != k)] != k).mean() for k in np.unique(script)]))


def repeated__a_ratio(answered, script, ink):
    """Own over other. Belief: how much better is a factor."""
    shares = []
    for k in np.unique(script):
        right, agrees = answered[script == k] == k, ink[script == k] == k
        shares.append((right[agrees].mean(), right[~agrees].mean()))
    own, other = np.mean(shares, axis=0)
    return float(own / max(other, 1e-9))


def repeated__without_sign(answered, script, ink):
    """The size of each difference. Belief: a bias is a distance."""
    differences = []
    for k in np.unique(script):
        right, agrees = answered[script == k] == k, ink[script == k] == k
        differences.append(abs(right[agrees].mean() - right[~agrees].mean()))
    return float(np.mean(differences))


def repeated__by_ink(answered, script, ink):
    """Sorts the letters by ink, not by script. Belief: a script and its ink are the same group."""
    differences = []
    for k in np.unique(ink):
        right, agrees = (answered == script)[ink == k], (script == k)[ink == k]
        if agrees.any() and not agrees.all():
            differences.append(right[agrees].mean() - right[~agrees].mean())
    return float(np.mean(differences))
