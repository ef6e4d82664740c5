"""Confidence intervals for a mean over queries, and a test of the difference between two runs.

Images of one lesion are not independent, so both resample whole lesions. Both are about other
queries for the same trained models; only another training tells how much another seed changes.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import permutation_test

from derm_hash.errors import InputError

SIGNS_AT_ONCE = 1_000_000  # of groups, held at a time: bounds the memory


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


class PairedTest(NamedTuple):
    """Mean of a minus mean of b, its 95 % confidence interval, and the two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def lesion_groups(lesion_ids) -> np.ndarray:
    """Number lesions: ids (Q,) -> (Q,) int64; each unknown one ("", None, NaN) is its own."""
    known = pd.Series(np.asarray(lesion_ids, dtype=object)).replace("", None)
    numbers, names = pd.factorize(known, sort=True)
    unknown = numbers < 0
    numbers[unknown] = len(names) + np.arange(unknown.sum())
    return numbers


def bootstrap_interval(
    values: np.ndarray,
    groups: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    level: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> Interval:
    """Confidence interval of a mean by the percentile bootstrap over groups of queries.

    Each repeat draws as many groups as there are, with replacement, each with all its queries;
    the interval holds the central ``level`` of the repeats' means (Efron & Tibshirani, "An
    introduction to the bootstrap", 1993, chapter 13; for groups, Davison & Hinkley, "Bootstrap
    methods and their application", 1997, section 3.8). With fewer than about 20 groups it is too
    narrow. ``scipy.stats.bootstrap`` cannot draw groups of different sizes within classes.

    Parameters
    ----------
    values : (Q,) array
        One score for each query.
    groups : (Q,) array, optional
        What belongs together, such as the queries' ``lesion_id``; by default each query is alone.
    labels : (Q,) array, optional
        Classes: each draws from its own groups, and the mean is that of the class means.
    level : float in (0, 1)
    repeats, seed : int

    Returns
    -------
    Interval

    Raises
    ------
    InputError
        If lengths differ, a value is not finite, the level is not in (0, 1), or there are fewer
        than two groups.
    """
    if not 0 < level < 1:
        raise InputError(f"A confidence level lies between 0 and 1, such as 0.95, not {level}")
    classes = _by_group(np.asarray(values, dtype=float), groups, labels)
    rng = np.random.default_rng(seed)
    means = np.zeros(repeats)
    for sums, counts in classes:
        for i in range(repeats):  # one by one: all draws of 20,000 queries would fill the memory
            drawn = rng.integers(len(sums), size=len(sums))
            means[i] += sums[drawn].sum() / counts[drawn].sum() / len(classes)
    mean = np.mean([sums.sum() / counts.sum() for sums, counts in classes])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(mean), float(low), float(high))


def paired_test(
    a: np.ndarray,
    b: np.ndarray,
    groups: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    repeats: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """Do two runs differ on the same queries? Sign-flip permutation test over groups.

    If they do not differ, each group's difference is as likely with the other sign. The p-value
    is the share of sign patterns whose absolute mean is at least the observed one: among all
    patterns if there are at most ``repeats`` of them, otherwise ``(1 + hits) / (1 + repeats)``
    over random ones, which is never 0 (Fisher, "The design of experiments", 1935, section 21;
    Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9(1), 2010). The interval is the
    :func:`bootstrap_interval` of the differences, which has the same arguments and errors.

    Parameters
    ----------
    a, b : (Q,) arrays
        One score for each query, in the same order.
    groups, labels : (Q,) arrays, optional
    repeats, seed : int

    Returns
    -------
    PairedTest
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape:
        raise InputError(
            f"A paired test needs the same queries twice, not {a.shape} and {b.shape} scores"
        )
    interval = bootstrap_interval(a - b, groups, labels, seed=seed)
    classes = _by_group(a - b, groups, labels)
    # The class-balanced mean is a sum with one part for each group; a sign flips one part.
    parts = np.concatenate([sums / counts.sum() / len(classes) for sums, counts in classes])
    parts /= np.abs(parts).sum() or 1
    test = permutation_test(
        (parts,),
        # Rounded, since sums of the same parts in another order differ in the last digits.
        lambda parts, axis: np.abs(parts.sum(axis=axis)).round(12),
        permutation_type="samples",
        vectorized=True,
        n_resamples=repeats,
        batch=max(1, SIGNS_AT_ONCE // len(parts)),
        alternative="greater",
        rng=seed,
    )
    return PairedTest(*interval, float(test.pvalue))


def _by_group(values, groups, labels) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each class, the sum of values and the number of queries of every group."""
    if values.ndim != 1:
        raise InputError(f"An interval needs one value for each query (Q,), not {values.shape}")
    if lost := int((~np.isfinite(values)).sum()):
        raise InputError(
            f"{lost} of {len(values)} values are NaN or infinite: leave these queries out, or find "
            "out why they have no score"
        )
    groups = np.arange(len(values)) if groups is None else lesion_groups(groups)
    labels = np.zeros(len(values)) if labels is None else np.asarray(labels)
    if not len(values) == len(groups) == len(labels):
        raise InputError(
            f"An interval needs a group and a label for each of {len(values)} values, not "
            f"{len(groups)} groups and {len(labels)} labels"
        )
    classes = []
    for label in np.unique(labels):
        here = labels == label
        _, member = np.unique(groups[here], return_inverse=True)
        classes.append((np.bincount(member, values[here]), np.bincount(member)))
    if sum(len(sums) for sums, _ in classes) < 2:
        raise InputError("An interval needs at least two independent groups of queries")
    return classes
