"""Intervals and tests against scipy where it covers them, else by enumeration and simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from derm_hash.errors import InputError
from derm_hash.metrics.intervals import bootstrap_interval, compare_runs, holm, paired_test


@pytest.mark.parametrize("seed", range(3))
def test_without_groups_it_is_the_bootstrap_of_scipy(seed):
    values = np.random.default_rng(seed).beta(2, 1, 80)
    ours = bootstrap_interval(values, repeats=20_000, seed=1)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_the_interval_is_that_of_every_possible_draw():
    # Three lesions with 1, 2 and 3 photographs: 27 draws, enumerated.
    values, groups = np.array([1.0, 0, 1, 1, 0, 0]), np.array(["a", "b", "b", "c", "c", "c"])
    members = [values[groups == g] for g in "abc"]
    means = [np.concatenate(draw).mean() for draw in itertools.product(members, repeat=3)]
    for level in (0.5, 0.9):
        ours = bootstrap_interval(values, groups, level=level, repeats=30_000)
        truth = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
        np.testing.assert_allclose(ours[1:], truth)


def test_class_balanced_means():
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1, 2], [300, 30, 10])
    values = rng.random(340) + labels
    interval = bootstrap_interval(values, labels=labels, repeats=4000)
    per_class = [values[labels == c] for c in range(3)]
    assert interval.mean == pytest.approx(np.mean([v.mean() for v in per_class]))
    # Independent draws in each class: the variances of the means add.
    sd = np.sqrt(sum(v.var() / len(v) for v in per_class)) / 3
    assert (interval.high - interval.low) / (2 * 1.96 * sd) == pytest.approx(1, abs=0.08)


def test_one_class_is_the_plain_mean():
    values = np.random.default_rng(3).random(25)
    assert bootstrap_interval(values, labels=np.full(25, 7)) == bootstrap_interval(values)


def test_equal_values_have_no_spread_and_one_lesion_has_no_interval():
    assert bootstrap_interval(np.full(9, 0.25)) == (0.25, 0.25, 0.25)
    mean, low, high = bootstrap_interval([1.0, 2.0], groups=["a", "a"])
    assert mean == 1.5 and np.isnan([low, high]).all()


def test_a_level_is_a_share():
    with pytest.raises(InputError, match="between 0 and 1"):
        bootstrap_interval([1.0, 2.0], level=95)


def test_the_exact_p_value_by_enumeration():
    """Ties, zeros and no difference included; the signs of a lesion flip together."""
    rng = np.random.default_rng(4)
    for case in range(40):
        n = int(rng.integers(3, 12))
        a, b, labels = rng.integers(0, 4, n) / 4, rng.integers(0, 4, n) / 4, rng.integers(0, 2, n)
        groups = 2 * rng.integers(0, 3, n) + labels  # at most six lesions, each of one class
        if len(np.unique(groups)) < 2:
            continue
        weights = 1 / np.bincount(labels)[labels] / len(np.unique(labels))
        flips = itertools.product([-1, 1], repeat=6)
        means = [abs(((a - b) * weights * np.array(signs)[groups]).sum()) for signs in flips]
        test = paired_test(a, b, groups, labels)
        assert test.difference == pytest.approx(((a - b) * weights).sum())
        assert test.p_value == np.mean(np.array(means) >= means[0] - 1e-9), case


def test_random_sign_patterns_approach_the_exact_p_value():
    rng = np.random.default_rng(5)
    a = rng.normal(size=13)
    b = a + 0.4 + 0.8 * rng.normal(size=13)
    exact = paired_test(a, b)
    sampled = paired_test(a, b, repeats=8000)  # fewer than the 2 ** 13 patterns
    assert 0.01 < exact.p_value < 0.9
    assert sampled.p_value != exact.p_value
    error = np.sqrt(exact.p_value * (1 - exact.p_value) / 8000)
    assert abs(sampled.p_value - exact.p_value) < 4 * error


def test_a_run_does_not_differ_from_itself_and_a_clear_difference_shows():
    values = np.random.default_rng(7).random(200)
    assert paired_test(values, values) == (0, 0, 0, 1)
    test = paired_test(values + 0.1, values)
    assert test.p_value == pytest.approx(1 / 10_001)
    assert test.low == pytest.approx(0.1)


def test_a_paired_test_needs_pairs():
    with pytest.raises(InputError, match="same queries twice"):
        paired_test([1.0, 2.0], [1.0])


# --- over lesions and over seeds ----------------------------------------------------------------


def two_settings(seeds, queries=30):
    """Scores of two settings (seeds, queries), lesions and classes of the queries."""
    rng = np.random.default_rng(3)
    a, b = rng.random((2, seeds, queries)) + rng.normal(0, 0.2, (2, seeds, 1))
    return a, b, np.arange(queries) // 2, np.arange(queries) // 2 % 3


def test_a_comparison_tests_over_lesions_and_over_seeds():
    a, b, lesions, labels = two_settings(4)
    found = compare_runs(a, b, lesions, labels)
    over_lesions = paired_test(a.mean(axis=0), b.mean(axis=0), lesions, labels)
    assert (found.low, found.high, found.p_lesions) == over_lesions[1:]
    of_seeds = [np.mean([x[:, labels == c].mean(axis=1) for c in range(3)], axis=0) for x in (a, b)]
    t = stats.ttest_rel(*of_seeds)
    assert found.p_seeds == pytest.approx(t.pvalue)
    assert (found.seed_low, found.seed_high) == pytest.approx(tuple(t.confidence_interval(0.95)))
    assert (found.mean, found.baseline) == pytest.approx([x.mean() for x in of_seeds])
    assert found.difference == found.mean - found.baseline
    assert found.difference == pytest.approx(over_lesions.difference)
    assert found.p_value == max(found.p_lesions, found.p_seeds) and found.seeds == 4
    # Without classes, the mean of a seed is over all its queries.
    plain = compare_runs(a, b, lesions)
    assert plain.p_seeds == pytest.approx(stats.ttest_rel(a.mean(axis=1), b.mean(axis=1)).pvalue)


def test_one_seed_has_no_interval_over_seeds():
    found = compare_runs(*two_settings(1))
    assert np.isnan([found.seed_low, found.seed_high, found.p_seeds, found.p_value]).all()
    assert 0 < found.p_lesions <= 1 and found.seeds == 1


def test_seeds_that_agree_to_the_last_digit():
    a, _, lesions, _ = two_settings(3)
    found = compare_runs(a, a, lesions)
    assert (found.seed_low, found.seed_high, found.p_seeds) == (0, 0, 1)
    found = compare_runs(a + 0.1, a, lesions)
    assert (found.seed_low, found.seed_high, found.p_seeds) == pytest.approx((0.1, 0.1, 0))


def test_holms_correction_by_hand():
    # In ascending order 0.01 * 4, 0.02 * 3, 0.03 * 2 and 0.04, none smaller than the one before.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.3, 0.9]).tolist() == [0.6, 0.9] and holm([0.7, 0.6]).tolist() == [1, 1]
    np.testing.assert_allclose(holm([0.02, np.nan, 0.01]), [0.02, np.nan, 0.02])
    assert holm([0.01]).tolist() == [0.01] and holm([]).tolist() == []


def test_holms_correction_keeps_the_error_of_all_comparisons():
    """Eight of ten are equal; in how many families is any of these called different?"""
    p = np.random.default_rng(0).random((4000, 10))
    p[:, 8:] /= 1000
    wrong = [(holm(row)[:8] < 0.05).any() for row in p]
    assert 0.03 < np.mean(wrong) <= 0.055
