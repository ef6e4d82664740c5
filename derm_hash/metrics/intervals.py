"""Confidence intervals and tests: over queries, over seeds, and over both.

Images of one lesion are not independent, so :func:`bootstrap_interval` and :func:`paired_test`
resample whole lesions. They are about *these trained models* and other queries. Another training of
the same recipe gives another model, so a claim about recipes also needs several seeds:
:func:`compare_runs` tests over lesions and over seeds, and both must agree.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from derm_hash.errors import InputError

DRAWS_AT_ONCE = 1_000_000  # of groups, held at a time: bounds the memory
LEVEL = 0.95  # of the intervals of a comparison; 1 - LEVEL is the p-value that calls one clear


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


class Comparison(NamedTuple):
    """A setting against a baseline, from the scores of every query for several seeds."""

    mean: float
    """Mean of the setting over the seeds."""
    baseline: float
    """Mean of the baseline over the same seeds."""
    difference: float
    """``mean - baseline``."""
    low: float
    """Lower end of the 95 % interval of the difference over lesions, for these trained models."""
    high: float
    seed_low: float
    """Lower end of its 95 % interval over seeds, for these queries; NaN with one seed."""
    seed_high: float
    p_lesions: float
    """p-value of the sign-flip test over lesions."""
    p_seeds: float
    """p-value of the t-test over seeds; NaN with one seed."""
    p_value: float
    """The larger of the two; NaN with one seed."""
    seeds: int


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

    It says how far the mean could move with *other queries for the same trained model*. It says
    nothing about other seeds: to compare two recipes, use :func:`derm_hash.compare`.

    Each repeat draws as many groups as there are, with replacement, each with all its queries;
    the interval holds the central ``level`` of the repeats' means (Efron & Tibshirani, "An
    introduction to the bootstrap", 1993, chapter 13; for groups, Davison & Hinkley, "Bootstrap
    methods and their application", 1997, section 3.8). With fewer than about 20 groups it is too
    narrow, and with one its ends are NaN. ``scipy.stats.bootstrap`` cannot draw groups.

    Parameters
    ----------
    values : (Q,) array
        One score for each query; `InputError` if one is not finite.
    groups : (Q,) array, optional
        The group of each query, such as its ``lesion_id``; by default each query is a group.
    labels : (Q,) array, optional
        The class of each query. Groups are drawn within each class, and class means are averaged.
    level : float in (0, 1), else `InputError`
    """
    if not 0 < level < 1:
        raise InputError(f"A confidence level lies between 0 and 1, such as 0.95, not {level}")
    classes = _by_group(np.asarray(values, dtype=float), groups, labels)
    rng = np.random.default_rng(seed)
    means = np.zeros(repeats)
    for sums, counts in classes:
        at_once = max(1, DRAWS_AT_ONCE // len(sums))
        for first in range(0, repeats, at_once):
            part = means[first : first + at_once]
            drawn = rng.integers(len(sums), size=(len(part), len(sums)))
            part += sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1) / len(classes)
    mean = np.mean([sums.sum() / counts.sum() for sums, counts in classes])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    if sum(len(sums) for sums, _ in classes) < 2:
        low = high = np.nan
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

    The test is about *these two trained models*: would they differ on other queries as well? Two
    trainings of one recipe nearly always do, so a small p-value says nothing about the recipes:
    for these, :func:`derm_hash.compare` tests over seeds as well.

    The scores a and b (Q,) are in one order. If the runs do not differ, each group's difference is
    as likely with the other sign. The p-value is the share of sign patterns whose absolute mean is
    at least the observed one: among all patterns if there are at most ``repeats`` of them,
    otherwise ``(1 + hits) / (1 + repeats)`` over random ones, which is never 0 (Fisher, "The design
    of experiments", 1935, section 21; Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9(1), 2010).
    The interval is the :func:`bootstrap_interval` of the differences, which has the same arguments
    and errors.
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
    return PairedTest(*interval, _sign_flip_p_value(parts, repeats, seed))


def _sign_flip_p_value(parts: np.ndarray, repeats: int, seed: int) -> float:
    """Share of sign patterns with an absolute sum of parts (G,) of at least the observed one.

    All patterns, or ``repeats`` random ones if there are more. ``scipy.stats.permutation_test``
    does the same in ten times the time, too long for the hundreds of rows of a large grid.
    """
    groups, rng = len(parts), np.random.default_rng(seed)
    parts = parts / (np.abs(parts).sum() or 1)
    everything = 2**groups <= repeats
    patterns, hits = 2**groups if everything else repeats, 0
    at_once = max(1, DRAWS_AT_ONCE // groups)
    for first in range(0, patterns, at_once):
        numbers = np.arange(first, min(first + at_once, patterns))
        if everything:
            flips = numbers[:, None] >> np.arange(groups) & 1
        else:
            drawn = np.frombuffer(rng.bytes(len(numbers) * -(-groups // 8)), np.uint8)
            flips = np.unpackbits(drawn.reshape(len(numbers), -1), axis=1, count=groups)
        # Rounded, since sums of the same parts in another order differ in the last digits.
        sums = np.abs(parts.sum() - 2 * flips @ parts).round(12)
        hits += int((sums >= np.abs(parts.sum()).round(12)).sum())
    return hits / patterns if everything else (1 + hits) / (1 + repeats)


def compare_runs(
    a: np.ndarray,
    b: np.ndarray,
    groups: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    repeats: int = 10_000,
) -> Comparison:
    """Compare two settings by their scores (S, Q) of every query for several seeds, in one order.

    Two tests have to agree. Over lesions: :func:`paired_test` of the queries' means over seeds,
    which is about other queries for these models. Over seeds: a t-test of the seeds' differences,
    which is about other trainings on these queries. "The settings differ" is claimed only where
    both reject, so the p-value is the larger of the two (the intersection-union test: Berger,
    Technometrics 24(4), 1982), and at most 5 % of pairs of equal settings come out different.

    Seeds are paired, which is right whatever they have in common: two readouts of one training
    share everything, two trainings with one seed the first weights and the batch order at most.
    The remedy for a wide interval is more seeds.

    ``groups``, ``labels`` and ``repeats`` are those of :func:`paired_test`.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    _, *interval, p_lesions = paired_test(a.mean(axis=0), b.mean(axis=0), groups, labels, repeats)
    own, rival = _seed_means(a, labels), _seed_means(b, labels)
    *over_seeds, p_seeds = _over_seeds(own - rival)
    p_values = p_lesions, p_seeds, max(p_lesions, p_seeds) if len(a) > 1 else np.nan
    means = own.mean(), rival.mean(), own.mean() - rival.mean()
    return Comparison(*map(float, means), *interval, *over_seeds, *p_values, len(a))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Correct p-values for their number: (m,) -> (m,), by Holm's step-down method.

    In ascending order, ``p_holm_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))``: where it is below
    0.05 for some of m comparisons, the probability that any of these is wrong is at most 5 % (Holm,
    Scand. J. Stat. 6(2), 1979). NaN stays NaN and is not counted.
    """
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]  # NaN is sorted to the end
    corrected = np.full(len(p_values), np.nan)
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * p_values[order]))
    return corrected


def _seed_means(scores: np.ndarray, labels) -> np.ndarray:
    """Mean of each seed, over queries or over class means: (S, Q) -> (S,)."""
    labels = np.zeros(scores.shape[1]) if labels is None else np.asarray(labels)
    return np.mean([scores[:, labels == c].mean(axis=1) for c in np.unique(labels)], axis=0)


def _over_seeds(differences: np.ndarray) -> tuple[float, float, float]:
    """The t-interval of the seeds' differences (S,), and the p-value; NaN for one seed."""
    if len(differences) < 2:
        return np.nan, np.nan, np.nan
    mean = float(differences.mean())
    if np.ptp(differences) < 1e-12:  # all alike up to rounding, where t is not defined
        return mean, mean, float(abs(mean) < 1e-12)
    test = ttest_1samp(differences, 0)
    low, high = test.confidence_interval(LEVEL)
    return float(low), float(high), float(test.pvalue)


def _by_group(values, groups, labels) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each class, the sum of values and the number of queries of every group."""
    if lost := int((~np.isfinite(values)).sum()):
        raise InputError(
            f"{lost} of {len(values)} values are NaN or infinite: leave these queries out, or find "
            "out why they have no score"
        )
    groups = np.arange(len(values)) if groups is None else lesion_groups(groups)
    labels = np.zeros(len(values)) if labels is None else np.asarray(labels)
    classes = []
    for label in np.unique(labels):
        here = labels == label
        _, member = np.unique(groups[here], return_inverse=True)
        classes.append((np.bincount(member, values[here]), np.bincount(member)))
    return classes
