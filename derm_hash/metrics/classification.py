"""How good is the classifier? Scores of its class probabilities, and of each class."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from derm_hash.data.dataset import LesionDataset

BINS = 15  # of the calibration error, as in Guo et al. (2017)


def classification_scores(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> dict[str, float]:
    """Score a classifier on images with known labels.

    A class without any image counts in no mean and has no scores of its own.

    Parameters
    ----------
    probabilities : (N, classes) array
        Each row is >= 0 and sums to 1; the predicted class has the largest probability.
    labels : (N,) array of class indices
    class_names : sequence of str, one for each class

    Returns
    -------
    dict of float
        balanced_accuracy
            Mean of the sensitivities.
        macro_f1, macro_auc
            Means over classes of the F1 score, and of the area under the ROC curve (one-vs-rest).
        calibration_error
            Expected calibration error: the mean distance of confidence and accuracy, over 15
            equally wide bins of the confidence (Guo et al., ICML 2017, equation 3).
        sensitivity_NAME, specificity_NAME, f1_NAME, auc_NAME
            Scores of a class against the rest.
    """
    probabilities, labels = np.asarray(probabilities, dtype=float), np.asarray(labels)
    predicted, classes = probabilities.argmax(axis=1), len(class_names)
    right, images, called = class_counts(predicted, labels, classes)
    others = len(labels) - images
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN where there is no such image
        columns = {"sensitivity": right / images, "specificity": (others - called + right) / others}
    columns["f1"] = f1_scores(predicted, labels, classes)
    columns["auc"] = np.array([auc(probabilities[:, c], labels == c) for c in range(classes)])
    present = np.unique(labels)
    scores = {
        "balanced_accuracy": float(columns["sensitivity"][present].mean()),
        "macro_f1": float(columns["f1"][present].mean()),
        "macro_auc": float(columns["auc"][present].mean()),
        "calibration_error": calibration_error(probabilities, labels),
    }
    for name, values in columns.items():
        scores |= {f"{name}_{class_names[c]}": float(values[c]) for c in present}
    return scores


def class_counts(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Count each class's correct predictions, images, predictions: (N,), (N,) -> (3, classes)."""
    each = labels[predicted == labels], labels, predicted
    return np.stack([np.bincount(values, minlength=classes) for values in each])


def f1_scores(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """F1 score of each class: class indices (N,), (N,) -> (classes,); NaN without an image.

    ``2 TP / (2 TP + FP + FN)``: the harmonic mean of precision and sensitivity.
    """
    right, images, called = class_counts(predicted, labels, classes)
    return np.where(images > 0, 2 * right / np.maximum(images + called, 1), np.nan)


def f1_columns(predicted: np.ndarray, val: LesionDataset) -> dict[str, float]:
    """:func:`f1_scores` of the predicted classes (N,) of val, as columns of a run's history."""
    scores = f1_scores(predicted, val.labels.numpy(), len(val.classes)).tolist()
    return {f"val_f1_{name}": score for name, score in zip(val.classes, scores, strict=True)}


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: scores (N,), whether positive (N,) -> [0, 1], or NaN.

    The probability that a positive has a higher score than a negative, ties counting half (Hanley &
    McNeil, Radiology 143(1), 1982). NaN if all images are positive, or none.
    """
    ones, zeros = positive.sum(), (~positive).sum()
    if not ones or not zeros:
        return np.nan
    above = rankdata(scores)[positive].sum() - ones * (ones + 1) / 2
    return float(above / (ones * zeros))


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error; see :func:`classification_scores`."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(place, right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))
