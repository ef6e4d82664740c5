"""How sure are we? Intervals for a mean over queries, and a test between two runs.

Photographs of one lesion are not independent evidence, so that both resample whole
lesions. Both speak of these runs and of other queries like these ones: how much a second
training with another seed would differ, only a second training tells.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from derm_hash.errors import InputError

SIGNS_AT_ONCE = 4_000_000  # random signs held at a time: bounds the memory


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


class PairedTest(NamedTuple):
    """Mean of a minus mean of b, its confidence interval, and the two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def lesion_groups(lesion_ids) -> np.ndarray:
    """Number lesions: ids (Q,) of any type -> (Q,) int64, one number for each lesion.

    Each unknown lesion ("", None or NaN) is a lesion of its own.
    """
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

    As many groups as there are, are drawn with replacement, each with all its queries; the
    interval holds the central ``level`` of the means of ``repeats`` such draws (Efron &
    Tibshirani, "An introduction to the bootstrap", 1993, chapter 13; for groups, Davison &
    Hinkley, "Bootstrap methods and their application", 1997, section 3.8). With few groups,
    say under 20, it is too narrow.

    Parameters
    ----------
    values : (Q,) one score a query
    groups : (Q,) of any type, optional
        What belongs together, such as the queries' ``lesion_id`` (see :func:`lesion_groups`);
        by default each query stands for itself.
    labels : (Q,), optional
        Classes: the mean is then the mean of the class means, and each class draws from
        its own groups, since the number of queries of a class is by design.
    level : float in (0, 1)
    repeats, seed : int

    Raises
    ------
    InputError
        If lengths differ, a value is not finite, the level is not in (0, 1), or there are fewer
        than two groups.
    """
    values = np.asarray(values, dtype=float)
    if not 0 < level < 1:
        raise InputError(f"A confidence level lies between 0 and 1, such as 0.95, not {level}.")
    classes = _clusters(values, groups, labels)
    rng = np.random.default_rng(seed)
    means = np.zeros(repeats)
    for sums, counts in classes:
        for i in range(repeats):  # not at once: the draws of 20,000 queries fill the memory
            drawn = rng.integers(len(sums), size=len(sums))
            means[i] += sums[drawn].sum() / counts[drawn].sum() / len(classes)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(_mean(classes), float(low), float(high))


def paired_test(
    a: np.ndarray,
    b: np.ndarray,
    groups: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    level: float = 0.95,
    repeats: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """Do two runs differ on the same queries? Sign-flip permutation test over groups.

    If they did not, a group's difference might as well have had the other sign. The p-value
    is the share of sign patterns whose absolute mean is at least the one observed: among all
    patterns if there are at most ``repeats`` of them, else ``(1 + hits) / (1 + repeats)`` over
    random ones, which never is 0 (Fisher, "The design of experiments", 1935, section 21;
    Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9(1), 2010). The interval is
    :func:`bootstrap_interval` of the differences.

    Parameters
    ----------
    a, b : (Q,) one score a query, in the same order
    groups, labels, level, seed
        As in :func:`bootstrap_interval`.
    repeats : int

    Raises
    ------
    InputError
        As in :func:`bootstrap_interval`.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape:
        raise InputError(
            f"A paired test needs the same queries twice, not {a.shape} and {b.shape} scores."
        )
    interval = bootstrap_interval(a - b, groups, labels, level, seed=seed)
    classes = _clusters(a - b, groups, labels)
    # The (class-balanced) mean is a sum of parts, one a group; a sign turns one part.
    parts = np.concatenate([sums / counts.sum() / len(classes) for sums, counts in classes])
    # Sums of the same parts in another order differ in the last digits.
    least = abs(parts.sum()) - 1e-12 * np.abs(parts).sum()
    if 2 ** len(parts) <= repeats:
        patterns = np.arange(2 ** len(parts))[:, None] >> np.arange(len(parts)) & 1
        p_value = float((np.abs((2 * patterns - 1) @ parts) >= least).mean())
    else:
        rng, hits = np.random.default_rng(seed), 0
        for part in np.array_split(np.arange(repeats), repeats * len(parts) // SIGNS_AT_ONCE + 1):
            signs = 2 * rng.integers(2, size=(len(part), len(parts))) - 1
            hits += int((np.abs(signs @ parts) >= least).sum())
        p_value = (1 + hits) / (1 + repeats)
    return PairedTest(*interval, p_value)


def _clusters(values, groups, labels) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each class the sum of values and the number of queries of every group."""
    if values.ndim != 1:
        raise InputError(f"An interval needs one value a query (Q,), not {values.shape}.")
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
            f"{len(groups)} groups and {len(labels)} labels."
        )
    classes = []
    for label in np.unique(labels):
        here = labels == label
        _, member = np.unique(groups[here], return_inverse=True)
        classes.append((np.bincount(member, values[here]), np.bincount(member)))
    if sum(len(sums) for sums, _ in classes) < 2:
        raise InputError("An interval needs at least two independent groups of queries.")
    return classes


def _mean(classes) -> float:
    return float(np.mean([sums.sum() / counts.sum() for sums, counts in classes]))
