"""Scores of a classifier, against scikit-learn and torchmetrics."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score, roc_auc_score
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_specificity,
)

from derm_hash.metrics.classification import classification_scores, f1_scores

NAMES = ("MEL", "NV", "BCC", "DF")


def guesses(seed, n=300, classes=4):
    """Probabilities that know something about labels of a long tail."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=[0.2, 0.6, 0.15, 0.05])
    labels[:classes] = range(classes)
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, labels


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_the_libraries(seed):
    probabilities, labels = guesses(seed)
    scores = classification_scores(probabilities, labels, NAMES)
    predicted = probabilities.argmax(axis=1)
    expected = {
        "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "macro_f1": f1_score(labels, predicted, average="macro"),
        "macro_auc": roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
    }
    given = torch.from_numpy(probabilities), torch.from_numpy(labels), len(NAMES)
    expected["calibration_error"] = float(multiclass_calibration_error(*given, n_bins=15))
    specificity = multiclass_specificity(*given, average=None).numpy()
    columns = {
        "sensitivity": recall_score(labels, predicted, average=None),
        "specificity": specificity,
        "f1": f1_score(labels, predicted, average=None),
        "auc": [roc_auc_score(labels == c, probabilities[:, c]) for c in range(4)],
    }
    for name, values in columns.items():
        expected |= {f"{name}_{NAMES[c]}": values[c] for c in range(4)}
    assert scores == pytest.approx(expected, abs=1e-6)


def test_a_class_without_images_counts_in_no_mean():
    probabilities, labels = guesses(0)
    few = labels != 3
    scores = classification_scores(probabilities[few], labels[few], NAMES)
    assert "sensitivity_DF" not in scores and all(map(math.isfinite, scores.values()))
    alone = [scores[f"sensitivity_{name}"] for name in NAMES[:3]]
    assert scores["balanced_accuracy"] == pytest.approx(np.mean(alone))


def test_a_class_that_is_never_predicted_has_an_f1_of_0_and_one_without_images_none():
    f1 = f1_scores(np.array([0, 0, 2]), np.array([0, 1, 0]), 3)
    assert f1.tolist() == pytest.approx([0.5, 0.0, math.nan], nan_ok=True)


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not():
    certain = np.eye(4)[[0, 1, 2, 3]]
    right = classification_scores(certain, np.arange(4), NAMES)
    wrong = classification_scores(certain, np.array([1, 2, 3, 0]), NAMES)
    assert right["calibration_error"] == 0 and wrong["calibration_error"] == 1
    assert right["macro_auc"] == 1 and wrong["balanced_accuracy"] == 0
