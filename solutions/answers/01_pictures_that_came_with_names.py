"""Answers to the exercises on found data: right ones written differently, and wrong ones.

A function's name is EXERCISE__WHAT; where WHAT begins with `right`, all checks must accept it, and
otherwise they must reject it. Each wrong one says what a student who wrote it believes.
"""

import hashlib
import math
import random
import unicodedata
from collections import Counter

import numpy as np
import torch

# 1. A split that never moves


def is_test__right_by_hexadecimal(name, share):
    return int(hashlib.sha256(bytes(name, "utf8")).hexdigest()[:8], base=16) < share * 2**32


def _draw(data, order="big", take=slice(0, 4)):
    return int.from_bytes(hashlib.sha256(data).digest()[take], order) / 2**32


def is_test__by_a_random_number(name, share):
    """Draws anew. Belief: a split is random."""
    return random.random() < share


def is_test__by_pythons_hash(name, share):
    """Uses hash(). Belief: a hash is a hash (this one differs from process to process)."""
    return (hash(name) % 2**32) / 2**32 < share


def is_test__by_length(name, share):
    """Derives it from the length. Belief: any property of the name will do (the draws are then anything but even)."""
    return (len(name) % 10) / 10 < share


def is_test__least_significant_first(name, share):
    """Reads the bytes from the other end. Belief: bytes have one order."""
    return _draw(name.encode(), "little") < share


def is_test__the_last_bytes(name, share):
    """Takes the last four bytes. Belief: all are equally random, so any will do."""
    return _draw(name.encode(), take=slice(-4, None)) < share


def is_test__training_for_test(name, share):
    """Returns the other side. Belief: the share is the training set's."""
    return _draw(name.encode()) >= share


def is_test__lower_case_first(name, share):
    """Folds case and spaces. Belief: capital and small letters have one name each, and spaces do not count."""
    return _draw(name.lower().strip().encode()) < share


def is_test__at_most(name, share):
    """Includes the share itself. Belief: below and at most are the same for real numbers."""
    return _draw(name.encode()) <= share


def is_test__letters_composed_first(name, share):
    """Brings letters and accents into one form. Belief: what looks the same has the same bytes."""
    return _draw(unicodedata.normalize("NFKC", name).encode()) < share


def is_test__eight_bytes(name, share):
    """Takes twice as many bytes. Belief: the further ones change nothing that can be measured."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64 < share


# 2. The long tail


def names_to_cover__right_by_cumulative_sums(names, share):
    counts = np.sort(np.unique(np.array(names), return_counts=True)[1])[::-1]
    covered = np.concatenate([[0], np.cumsum(counts)])
    return int(np.argmax(covered >= share * len(names)))


def _cover(counts, goal, enough=lambda covered, goal: covered >= goal):
    covered = needed = 0
    for count in counts:
        if enough(covered, goal):
            break
        covered += count
        needed += 1
    return needed


def names_to_cover__rarest_first(names, share):
    """Begins with the rarest. Belief: sorted() sorts the way one needs."""
    return _cover(sorted(Counter(names).values()), share * len(names))


def names_to_cover__in_order_of_appearance(names, share):
    """Does not sort. Belief: a Counter is in order of frequency."""
    return _cover(Counter(names).values(), share * len(names))


def names_to_cover__a_share_of_the_names(names, share):
    """Counts names. Belief: each name has the same number of pictures."""
    return round(share * len(set(names)))


def names_to_cover__pictures(names, share):
    """Returns how many pictures are covered. Belief: that is what cover means."""
    counts = sorted(Counter(names).values(), reverse=True)
    return sum(counts[: _cover(counts, share * len(names))])


def names_to_cover__more_than_the_share(names, share):
    """Goes on until the share is exceeded. Belief: at least means more than."""
    counts = sorted(Counter(names).values(), reverse=True)
    return _cover(counts, share * len(names), lambda covered, goal: covered > goal)


def names_to_cover__at_least_one(names, share):
    """Takes the first name before it asks. Belief: something is always needed."""
    return max(1, _cover(sorted(Counter(names).values(), reverse=True), share * len(names)))


# 3. The best that is possible


def ceiling__right_by_unique_rows(pictures, labels):
    flat = np.asarray(pictures).reshape(len(pictures), -1)
    _, group = np.unique(flat, axis=0, return_inverse=True)
    pairs = Counter(zip(group.reshape(-1).tolist(), list(labels)))
    best: dict[int, int] = {}
    for (one, _), count in pairs.items():
        best[one] = max(best.get(one, 0), count)
    return sum(best.values()) / len(flat)


def _ceiling(pictures, labels, key=lambda picture: picture.tobytes(), value=lambda counts: max(counts.values())):
    groups: dict = {}
    for picture, label in zip(pictures, labels):
        groups.setdefault(key(picture), Counter())[label] += 1
    return sum(value(counts) for counts in groups.values()) / len(labels)


def ceiling__always_one(pictures, labels):
    """Returns 1. Belief: a perfect model is always right."""
    return 1.0


def ceiling__share_of_distinct_pictures(pictures, labels):
    """Counts distinct pictures. Belief: of each group one is right."""
    return _ceiling(pictures, labels, value=lambda counts: 1)


def ceiling__share_without_a_double(pictures, labels):
    """Counts groups with one label only. Belief: what is ambiguous is lost altogether."""
    return _ceiling(pictures, labels, value=lambda counts: sum(counts.values()) if len(counts) == 1 else 0)


def ceiling__the_commonest_label_of_all(pictures, labels):
    """Looks at labels alone. Belief: the best answer is the most frequent one."""
    return max(Counter(labels).values()) / len(labels)


def ceiling__by_sums(pictures, labels):
    """Compares sums of pixels. Belief: equal sums, equal pictures."""
    return _ceiling(pictures, labels, key=lambda picture: float(picture.sum()))


def ceiling__mean_over_groups(pictures, labels):
    """Averages the groups' own ceilings. Belief: each picture counts once, however often it occurs."""
    groups: dict[bytes, Counter] = {}
    for picture, label in zip(pictures, labels):
        groups.setdefault(picture.tobytes(), Counter())[label] += 1
    return sum(max(c.values()) / sum(c.values()) for c in groups.values()) / len(groups)


def ceiling__expected_by_chance(pictures, labels):
    """Guesses among a group's labels. Belief: what cannot be known must be drawn."""
    return _ceiling(pictures, labels, value=lambda c: sum(n * n for n in c.values()) / sum(c.values()))


def ceiling__nearly_equal_is_equal(pictures, labels):
    """Rounds first. Belief: pictures that look the same are the same."""
    return _ceiling(pictures, labels, key=lambda picture: np.round(picture.astype(np.float64), 6).tobytes())


def ceiling__right_in_loops(pictures, labels):
    keys, right = [picture.tobytes() for picture in pictures], 0
    for key in set(keys):
        own = [label for label, other in zip(labels, keys) if other == key]
        right += max(own.count(label) for label in own)
    return torch.tensor(right / len(labels)).item()  # in single precision


# 4. Test pictures that were trained on


def leaked__right_by_comparison(train, test):
    if not len(train) or not len(test):
        return np.zeros(0, np.int64)
    same = (test.reshape(len(test), 1, -1) == train.reshape(1, len(train), -1)).all(-1)
    return np.flatnonzero(same.any(1)).astype(np.int64)


def leaked__right_by_tuples(train, test):
    seen = {tuple(picture.ravel().tolist()) for picture in train}
    return np.array([i for i in range(len(test)) if tuple(test[i].ravel().tolist()) in seen], "int64")


def _leaked(train, test, key):
    seen = {key(picture) for picture in train}
    return np.array([i for i, picture in enumerate(test) if key(picture) in seen], dtype=np.int64)


def leaked__same_place_alone(train, test):
    """Compares place by place. Belief: both sets are in the same order."""
    return np.array([i for i, (a, b) in enumerate(zip(train, test)) if np.array_equal(a, b)], dtype=np.int64)


def leaked__by_sums(train, test):
    """Compares sums. Belief: equal sums, equal pictures."""
    return _leaked(train, test, lambda picture: float(picture.sum()))


def leaked__any_number_equal(train, test):
    """Asks `in` of an array. Belief: numpy's `in` compares whole pictures (it is true if any number agrees)."""
    return np.array([i for i, picture in enumerate(test) if picture in train], dtype=np.int64)


def leaked__each_once(train, test):
    """Reports a picture once. Belief: a set of places is a set of pictures."""
    first = {picture.tobytes(): i for i, picture in reversed(list(enumerate(test)))}
    return np.array(sorted(i for key, i in first.items() if key in {p.tobytes() for p in train}), dtype=np.int64)


def leaked__places_in_training(train, test):
    """Returns places in the training set. Belief: that is where the leak is."""
    return _leaked(test, train, lambda picture: picture.tobytes())


def leaked__bytes_as_they_are(train, test):
    """Compares bytes of two types. Belief: 1 is 1, whatever its type."""
    return _leaked(train, test, lambda picture: picture.tobytes())


def leaked__brought_to_the_training_type(train, test):
    """Casts the test pictures to the training type. Belief: nothing is lost in a cast."""
    return _leaked(train, test.astype(train.dtype), lambda picture: picture.tobytes())


def leaked__all_as_bytes(train, test):
    """Casts everything to uint8. Belief: pictures are always 0 to 255, and whole."""
    return _leaked(train.astype(np.uint8), test.astype(np.uint8), lambda picture: picture.tobytes())


def leaked__nearly_equal(train, test):
    """Compares with a tolerance. Belief: equal to five digits is equal."""
    return np.array([i for i, p in enumerate(test) if any(np.allclose(p, other) for other in train)], dtype=np.int64)


def leaked__all_as_float32(train, test):
    """Makes everything float32. Belief: a float holds every integer, and every digit that matters."""
    return _leaked(train.astype(np.float32), test.astype(np.float32), lambda picture: picture.tobytes())


def leaked__in_the_test_pictures_type(train, test):
    """Casts the training pictures to the test pictures' type. Belief: a cast keeps the numbers."""
    return _leaked(train.astype(test.dtype), test, lambda picture: picture.tobytes())


def leaked__all_as_floats(train, test):
    """Casts everything to float64. Belief: a float64 holds any number."""
    return _leaked(train.astype(np.float64), test.astype(np.float64), lambda picture: picture.tobytes())


def leaked__nothing_is_a_list_of_floats(train, test):
    """Leaves the type of an empty array to numpy. Belief: np.array([]) holds integers if it should."""
    if len(train) == 0 or len(test) == 0:
        return np.zeros(0, dtype=np.int64)
    seen = {tuple(picture.ravel().tolist()) for picture in train}
    return np.array([i for i, picture in enumerate(test) if tuple(picture.ravel().tolist()) in seen])


# 6. How many names will be seen


def expected_names__right_name_by_name(counts, draws):
    total, seen = float(sum(counts)), 0.0
    for count in counts:
        missed = 1.0 if draws == 0 else 0.0 if count == total else math.exp(draws * math.log1p(-count / total))
        seen += 1 - missed
    return float(seen)


def expected_names__never_twice(counts, draws):
    """Draws without putting back. Belief: a sample never holds a picture twice."""
    total = int(sum(counts))
    ways = math.comb(total, draws)
    return sum(1 - math.comb(total - int(c), draws) / ways for c in counts) if ways else float(len(counts))


def expected_names__in_proportion(counts, draws):
    """Names in proportion to pictures. Belief: half the pictures show half the names."""
    return float(len(counts) * min(1.0, draws / sum(counts)))


def expected_names__all_alike(counts, draws):
    """Takes all names to be equally frequent. Belief: the tail does not matter."""
    return float(len(counts) * (1 - (1 - 1 / len(counts)) ** draws))


def expected_names__adds_shares(counts, draws):
    """Adds up the chance of each draw. Belief: n chances of p make one of n p (it would pass 1)."""
    total = sum(counts)
    return float(sum(min(1.0, draws * count / total) for count in counts))


def expected_names__missed_names(counts, draws):
    """Counts the names that are missed. Belief: (1 - p) to the n is the chance of being seen."""
    total = sum(counts)
    return float(sum((1 - count / total) ** draws for count in counts))


def expected_names__right_with_counts_as_a_list(counts, draws):
    if not counts:
        return 0.0
    total = sum(counts)
    return float(sum(counts.count(c) * (1 - (1 - c / total) ** draws) for c in set(counts)))


def expected_names__logarithm_of_nought(counts, draws):
    """Takes the power by logarithms. Belief: 0 times infinity is 0."""
    with np.errstate(all="ignore"):
        return float(-np.expm1(draws * np.log1p(-np.asarray(counts) / np.sum(counts))).sum())
