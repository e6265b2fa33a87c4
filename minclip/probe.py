"""Linear probes by the paper's protocol (section 3.2, appendix A.3). Notebook 07.

Freeze the encoder, take its features before the projection, fit a logistic regression by L-BFGS for
at most 1,000 iterations, choose the penalty on validation data, refit on training and validation
together. What a probe reads, the features already held.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from .errors import MinclipError
from .zeroshot import CHUNK, evaluating

# The paper searches 96 values of lambda, log-spaced over twelve decades, by a parametric binary
# search: first 1e-6, 1e-4, ..., 1e6, then halving the distance around the best, to 8 steps a decade.
PENALTIES = np.logspace(-6, 6, 97)
COARSE_STRIDE = 16


@dataclass
class ProbeResult:
    """accuracy on the test data in [0, 1]; the chosen penalty lambda; the fitted regression, of features less
    `mean` (D,) and over `deviation`, which are the training data's."""

    accuracy: float
    penalty: float
    regression: LogisticRegression
    mean: np.ndarray
    deviation: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(N, D) features of other pictures -> (N, K), K above 2: the largest is the class predicted."""
        return self.regression.decision_function((features - self.mean) / self.deviation)


def linear_probe(
    train_features, train_labels, test_features, test_labels, validation_share: float = 0.2, seed: int = 0
) -> ProbeResult:
    """Fit on (N, D) features with (N,) labels, report on the test pair. Arrays or tensors.

    Validation data are `validation_share` of the training data, drawn by class where each class has
    enough; with too few pictures to set any aside, the middle penalty of the range is used.

    Raises MinclipError for fewer than two classes, shapes that do not fit, or features not finite.
    """
    train_features, train_labels = _checked(train_features, train_labels, "training")
    test_features, test_labels = _checked(test_features, test_labels, "test")
    if train_features.shape[1] != test_features.shape[1]:
        raise MinclipError(
            f"The training features are {train_features.shape[1]} wide, the test features {test_features.shape[1]}; "
            "take both from the same encoder."
        )
    classes, counts = np.unique(train_labels, return_counts=True)
    if len(classes) < 2:
        raise MinclipError(f"The training labels hold {len(classes)} class; a probe needs at least two.")

    # Features of unit deviation make one range of penalties fit every encoder.
    mean, deviation = train_features.mean(0), train_features.std() + 1e-12
    train_features, test_features = (train_features - mean) / deviation, (test_features - mean) / deviation
    penalty = PENALTIES[len(PENALTIES) // 2]
    if counts.min() >= 2 and len(train_labels) * validation_share >= len(classes):
        fit_on, held_out = train_test_split(
            np.arange(len(train_labels)), test_size=validation_share, stratify=train_labels, random_state=seed
        )
        penalty = choose_penalty(
            train_features[fit_on], train_labels[fit_on], train_features[held_out], train_labels[held_out]
        )
    regression = fit_regression(train_features, train_labels, penalty)
    accuracy = regression.score(test_features, test_labels)
    return ProbeResult(accuracy, float(penalty), regression, mean, float(deviation))


def choose_penalty(train_features, train_labels, validation_features, validation_labels) -> float:
    """The lambda of PENALTIES with the best validation accuracy, by the paper's narrowing search."""
    scores: dict[int, float] = {}

    def score(place: int) -> float:
        if place not in scores:
            regression = fit_regression(train_features, train_labels, PENALTIES[place])
            scores[place] = regression.score(validation_features, validation_labels)
        return scores[place]

    stride = COARSE_STRIDE
    best = max(range(0, len(PENALTIES), stride), key=score)
    while stride > 1:
        stride //= 2
        near = [p for p in (best - stride, best, best + stride) if 0 <= p < len(PENALTIES)]
        best = max(near, key=score)
    return PENALTIES[best]


def fit_regression(features, labels, penalty: float) -> LogisticRegression:
    """Logistic regression under an L2 penalty lambda on the mean loss (scikit-learn's C = 1 / (lambda N))."""
    regression = LogisticRegression(C=1 / (penalty * len(labels)), solver="lbfgs", max_iter=1000)
    # L-BFGS makes thousands of small products; below about a million numbers threads wait more than they work.
    with warnings.catch_warnings(), threadpool_limits(1 if features.size < 1_000_000 else None):
        warnings.simplefilter("ignore", ConvergenceWarning)  # 1,000 iterations and no more is the protocol
        # One or two pictures a class is a few-shot probe; scikit-learn suspects a real-valued target.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        return regression.fit(features, labels)


@torch.no_grad()
def probe_features(model, images: torch.Tensor) -> np.ndarray:
    """(B, 3, R, R) from `preprocess` -> (B, D) what probes read: before the projection, not normalised."""
    device = model.logit_scale.device
    with evaluating(model):
        return torch.cat(
            [model.visual.features(chunk.to(device)).float().cpu() for chunk in images.split(CHUNK)]
        ).numpy()


def _checked(features, labels, which: str) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(features, torch.Tensor):
        features = features.detach().double()  # NumPy knows no bfloat16
    features, labels = (np.asarray(x.cpu() if isinstance(x, torch.Tensor) else x) for x in (features, labels))
    if features.ndim != 2 or labels.shape != (len(features),) or len(labels) == 0:
        raise MinclipError(
            f"The {which} features have shape {features.shape}, the labels {labels.shape}; "
            "expected (N, D) and (N,) with N > 0."
        )
    if not np.isfinite(features).all():
        raise MinclipError(f"The {which} features hold NaN or infinity; look at the model that made them.")
    return features.astype(np.float64), labels
