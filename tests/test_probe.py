"""Linear probes on features of which the answer is known."""

import warnings

import numpy as np
import pytest
import torch

from minclip import MinclipError, linear_probe
from minclip import probe as probe_module
from minclip.probe import PENALTIES, choose_penalty, fit_regression, probe_features


def labelled(classes: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.random.Generator]:
    return np.repeat(np.arange(classes), each), np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_features_that_hold_the_answer_give_all_of_it():
    labels, generator = labelled(5, 20)
    features = np.eye(5)[labels] + 0.01 * generator.normal(size=(100, 5))
    assert linear_probe(features, labels, features, labels).accuracy == 1.0


def test_one_picture_of_each_of_many_classes_is_enough_and_no_cause_for_a_warning():
    features, labels = np.eye(30), np.arange(30)
    assert linear_probe(features, labels, features, labels).accuracy == 1.0


def test_features_of_no_meaning_give_chance():
    labels, generator = labelled(4, 40)
    train, test = generator.normal(size=(160, 6)), generator.normal(size=(2000, 6))
    accuracy = linear_probe(train, labels, test, generator.integers(4, size=2000)).accuracy
    assert abs(accuracy - 0.25) < 0.05


def test_neither_shift_nor_scale_of_the_features_matters_to_the_answer():
    labels, generator = labelled(3, 30)
    features = np.eye(3)[labels] + 0.5 * generator.normal(size=(90, 3))
    one = linear_probe(features[::2], labels[::2], features[1::2], labels[1::2])
    other = linear_probe(1e4 * features[::2] - 7, labels[::2], 1e4 * features[1::2] - 7, labels[1::2])
    assert one.accuracy == other.accuracy and one.penalty == pytest.approx(other.penalty)


def test_the_search_finds_a_penalty_at_least_as_good_as_any_of_its_first_round():
    labels, generator = labelled(2, 100)
    signal = np.where(labels == 1, 1.0, -1.0)[:, None]
    noisy = np.hstack([2 * signal + generator.normal(size=(200, 1)), generator.normal(size=(200, 150))])
    order = generator.permutation(200)
    fit_on, held_out = order[:100], order[100:]
    scores = {p: fit_regression(noisy[fit_on], labels[fit_on], p).score(noisy[held_out], labels[held_out])
              for p in PENALTIES[::16]}  # fmt: skip
    chosen = choose_penalty(noisy[fit_on], labels[fit_on], noisy[held_out], labels[held_out])
    score = fit_regression(noisy[fit_on], labels[fit_on], chosen).score(noisy[held_out], labels[held_out])
    assert chosen in PENALTIES and score >= max(scores.values()) > 0.9
    assert scores[PENALTIES[0]] < score  # or the search had nothing to find


@pytest.mark.parametrize("best", [0, 41, 96])
def test_the_search_narrows_to_the_best_of_all_97(best, monkeypatch):
    asked = []

    class Planted:
        def __init__(self, features, labels, penalty):
            self.place = int(np.argmin(abs(PENALTIES - penalty)))
            asked.append(self.place)

        def score(self, features, labels):
            return -abs(self.place - best)

    monkeypatch.setattr(probe_module, "fit_regression", Planted)
    assert choose_penalty(None, None, None, None) == PENALTIES[best]
    assert asked[:7] == [0, 16, 32, 48, 64, 80, 96] and len(asked) <= 7 + 2 * 4


def test_validation_data_are_drawn_class_by_class_and_by_the_seed_alone(monkeypatch):
    drawn = []
    monkeypatch.setattr(probe_module, "choose_penalty", lambda x, y, held_out, _: drawn.append(held_out[:, 0]) or 1.0)
    labels, _ = labelled(20, 4)
    features = labels[:, None] + np.linspace(0, 0.1, 80)[:, None]
    for seed in (0, 0, 1):
        linear_probe(features, labels, features, labels, validation_share=0.25, seed=seed)
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(np.sort(drawn[0]), np.sort(drawn[2]))
    between = (np.arange(-0.5, 20.5) - features.mean()) / features.std()
    assert (np.histogram(drawn[0], between)[0] == 1).all()  # one of the four of each class


def test_test_pictures_are_put_where_the_training_pictures_are():
    labels, generator = labelled(3, 20)
    features = np.eye(3)[labels] + 5 + 0.1 * generator.normal(size=(60, 3))
    for one in range(3):  # a test of one class, which has neither that mean nor that spread
        alone = features[labels == one], labels[labels == one]
        probe = linear_probe(features, labels, *alone)
        assert probe.accuracy == 1.0 and (probe.scores(alone[0]).argmax(1) == one).all()


def test_a_single_picture_of_a_class_and_features_all_alike_are_no_error():
    labels = np.repeat([0, 1, 2], [10, 10, 1])
    probe = linear_probe(np.eye(3)[labels], labels, np.eye(3)[labels], labels)
    assert probe.accuracy >= 20 / 21 and probe.penalty == PENALTIES[48]
    labels = np.arange(20) % 2
    assert linear_probe(np.ones((20, 3)), labels, np.ones((20, 3)), labels).accuracy == 0.5


def test_penalties_are_the_papers():
    assert PENALTIES[0] == pytest.approx(1e-6) and PENALTIES[-1] == pytest.approx(1e6)
    assert np.allclose(np.diff(np.log10(PENALTIES)), 1 / 8)
    coarse = PENALTIES[::16]  # the first round: every other decade
    assert np.allclose(np.log10(coarse), [-6, -4, -2, 0, 2, 4, 6])
    assert fit_regression(X, Y, 1.0).max_iter == 1000  # iterations of L-BFGS


def test_the_penalty_is_on_the_mean_loss():
    """Twice the same data is the same problem."""
    labels, generator = labelled(2, 30)
    features = generator.normal(size=(60, 4)) + labels[:, None]
    once = fit_regression(features, labels, 0.1)
    twice = fit_regression(np.vstack([features] * 2), np.tile(labels, 2), 0.1)
    assert np.allclose(once.coef_, twice.coef_, atol=1e-3)


def test_it_is_refitted_on_validation_data_too():
    labels, generator = labelled(2, 50)
    features = generator.normal(size=(100, 3)) + labels[:, None]
    probe = linear_probe(features, labels, features, labels)
    scaled = (features - features.mean(0)) / features.std()
    assert np.allclose(probe.regression.coef_, fit_regression(scaled, labels, probe.penalty).coef_)


def test_few_shots_do_without_validation():
    labels = np.arange(5)
    probe = linear_probe(np.eye(5), labels, np.eye(5), labels)
    assert probe.accuracy == 1.0 and probe.penalty == PENALTIES[48]


def test_tensors_of_any_precision_and_names_for_labels():
    labels = np.array(["cat", "dog"] * 20)
    features = torch.eye(2, requires_grad=True, dtype=torch.bfloat16)[torch.arange(40) % 2]
    assert linear_probe(features, labels, features, labels).accuracy == 1.0


X, Y = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((X, np.zeros(12), X, Y), "1 class"),
        ((X, Y[:5], X, Y), "training features have shape"),
        ((X, Y, X[0], Y), "test features have shape"),
        ((X, Y[:, None], X, Y), "labels \\(12, 1\\)"),
        ((X[:0], Y[:0], X, Y), "N > 0"),
        ((X, Y, X[:, :2], Y), "3 wide, the test features 2"),
        ((X, Y, np.where(X > 1, np.nan, X), Y), "test features hold NaN"),
        ((np.where(X > 1, np.inf, X), Y, X, Y), "training features hold NaN or infinity"),
    ],
)
def test_what_cannot_be_probed(arguments, complaint):
    with pytest.raises(MinclipError, match=complaint):
        linear_probe(*arguments)


def test_features_are_those_before_the_projection(tiny):
    images = torch.rand(5, 3, 32, 32)
    features = probe_features(tiny.train(), images)
    assert features.shape == (5, 16) and tiny.training
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(features) @ tiny.visual.proj, tiny.encode_image(images, False))
