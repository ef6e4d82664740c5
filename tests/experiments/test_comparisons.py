"""Comparisons of settings: clear only where lesions and seeds agree, and twins are not."""

import numpy as np
import pandas as pd
import pytest

from derm_hash.errors import InputError
from derm_hash.experiments.comparisons import (
    best_settings,
    compare,
    differences,
    lower_is_better,
    score_table,
    with_holm,
)
from derm_hash.experiments.results import write_queries
from derm_hash.metrics.intervals import compare_runs, holm
from derm_hash.metrics.scores import SCORES


def write_runs(out, scores):
    """A folder of results with given scores: {setting: {seed: ap of each query}}."""
    lesions, rows = ["a", "a", "b", "", "c", "d", "e", "f"], []
    for setting, by_seed in scores.items():
        for seed, values in by_seed.items():
            run = f"{setting}-{seed}"
            (out / run).mkdir(parents=True)
            queries = {"image": [f"{i}.png" for i in range(8)], "lesion_id": lesions}
            queries |= {"label": ["NV", "NV", "NV", "NV", "NV", "NV", "MEL", "MEL"], "ap": values}
            queries |= dict.fromkeys(("precision_at_10", "flipped_bits", "overlap_at_10"), 0.5)
            write_queries(out / run / "queries-plain.csv.gz", pd.DataFrame(queries))
            mean = pd.Series(values).groupby(queries["label"]).mean().mean()
            facts = {
                "run": run,
                "readout": "plain",
                "scored_on": "query",
                "database": "full",
                "data": "d",
            }
            facts |= {"seed": seed, "kind": setting} | dict.fromkeys(SCORES, 0.5)
            rows.append(facts | {"class_mean_map": mean, "map": np.mean(values)})
    return pd.DataFrame(rows)


def test_compare_pairs_by_seed_and_groups_by_lesion(tmp_path):
    a, b = np.random.default_rng(0).random((2, 2, 8)).round(6)
    results = write_runs(tmp_path, {"a": dict(enumerate(a)), "b": dict(enumerate(b)) | {2: b[0]}})
    table = compare(results, ["kind"], "class_mean_map", {"kind": "a"}, tmp_path)
    groups = np.array(["a", "a", "b", "image 3.png", "c", "d", "e", "f"])
    labels = np.array([1, 1, 1, 1, 1, 1, 0, 0])  # MEL sorts before NV
    expected = compare_runs(b, a, groups, labels)
    row = table.iloc[0]
    assert len(table) == 1 and row["kind"] == "b" and row["seeds"] == 2
    for name in expected._fields:
        assert row[name] == pytest.approx(getattr(expected, name), abs=1e-12)
    of_seeds = [(x[:, :6].mean(axis=1) + x[:, 6:].mean(axis=1)) / 2 for x in (a, b)]
    assert row["mean"] == pytest.approx(of_seeds[1].mean())  # without the third seed
    assert row["difference"] == row["mean"] - row["baseline"]
    plain = compare(results, ["kind"], "map", {"kind": "a"}, tmp_path).iloc[0]
    assert plain["difference"] == pytest.approx(b.mean() - a.mean())
    assert plain["difference"] != pytest.approx(row["difference"], abs=1e-3)


def test_compare_looks_at_some_classes_alone(tmp_path):
    a, b = np.random.default_rng(0).random((2, 2, 8)).round(6)
    results = write_runs(tmp_path, {"a": dict(enumerate(a)), "b": dict(enumerate(b))})
    given = results, ["kind"], "class_mean_map", {"kind": "a"}, tmp_path
    for classes, queries in ((["MEL"], slice(6, 8)), (["NV"], slice(0, 6))):
        row = compare(*given, classes).iloc[0]
        assert row["difference"] == pytest.approx((b - a)[:, queries].mean())
    both = compare(*given, ["MEL", "NV"]).iloc[0]
    assert both["difference"] == compare(*given).iloc[0]["difference"]


def three_settings(out, seeds=4):
    """The folder and table of settings low, high (clearly more) and mixed (more for some)."""
    rng = np.random.default_rng(1)
    low = rng.random((seeds, 8)) / 4
    mixed = low + np.array([0.3, 0.3, -0.2, 0.2, -0.2, 0.2, -0.2, 0.2])
    scores = {"low": low, "high": low + rng.normal(0.5, 0.01, (seeds, 1)), "mixed": mixed}
    return write_runs(out, {kind: dict(enumerate(values)) for kind, values in scores.items()})


def test_p_values_are_corrected_for_the_rows_of_their_table(tmp_path):
    results = three_settings(tmp_path)
    table = compare(results, ["kind"], "map", {"kind": "low"}, tmp_path)
    np.testing.assert_allclose(table["p_holm"], holm(table["p_value"]))
    assert table.set_index("kind")["clear"].to_dict() == {"high": True, "mixed": False}
    every = differences(results, ["kind"], {"kind": "low"}, tmp_path)
    assert list(every["score"]) == [score for score in SCORES for _ in range(2)]
    np.testing.assert_allclose(every["p_holm"], holm(every["p_value"]))
    first = every[every["score"] == "class_mean_map"]
    assert (first["p_holm"].to_numpy() >= table["p_value"].to_numpy()).all()


def test_a_single_seed_makes_nothing_clear(tmp_path):
    results = three_settings(tmp_path, seeds=1)
    table = compare(results, ["kind"], "map", {"kind": "low"}, tmp_path)
    assert not table["clear"].any() and table["clear"].dtype == bool
    assert table[["seed_low", "p_seeds", "p_value", "p_holm"]].isna().all(axis=None)
    assert table.loc[0, "p_lesions"] < 0.05
    assert best_settings(results, ["kind"], "map", tmp_path) == set()


def test_chance_stands_beside_a_score_that_has_one(tmp_path):
    results = three_settings(tmp_path).assign(chance_class_mean_map=0.25)
    table = differences(results, ["kind"], {"kind": "low"}, tmp_path).groupby("score")["chance"]
    assert table.first()["class_mean_map"] == 0.25 and np.isnan(table.first()["flipped_bits"])
    printed = score_table(results, ["kind"], tmp_path)
    assert list(printed)[:2] == ["class_mean_map", "chance_class_mean_map"]
    assert set(printed["chance_class_mean_map"]) == {"0.250"}


def test_the_baseline_has_the_same_values_in_the_other_columns(tmp_path):
    values = np.linspace(0.1, 0.8, 8)
    results = write_runs(tmp_path, {f"{k}{b}": {0: values} for k in "xy" for b in (16, 32)})
    results["bits"], results["kind"] = [16, 32, 16, 32], ["x", "x", "y", "y"]
    table = compare(results, ["bits", "kind"], "map", {"kind": "x"}, tmp_path)
    assert table[["bits", "kind"]].to_numpy().tolist() == [[16, "y"], [32, "y"]]
    assert (table["difference"] == 0).all() and (table["p_lesions"] == 1).all()


def test_the_best_is_marked_only_if_chance_does_not_explain_it(tmp_path):
    results = three_settings(tmp_path)
    two = results["kind"] != "mixed"
    assert best_settings(results[two], ["kind"], "map", tmp_path) == {("high",)}
    # The best must be clear of all the others, not only of the worst.
    rest = results["kind"] != "high"
    assert results.loc[rest].groupby("kind")["map"].mean().idxmax() == "mixed"
    assert best_settings(results[rest], ["kind"], "map", tmp_path) == set()


def test_the_best_pays_for_the_number_of_its_rivals(tmp_path):
    """One rival at p = 0.04 leaves the star, two of them take it."""
    rng = np.random.default_rng(2)
    low = rng.random((3, 8)) / 4
    gain = 0.3 + np.array([[-0.1], [0.0], [0.1]])  # t = 5.2 with 2 degrees of freedom
    scores = {"low": low, "high": low + gain, "other": low - 1e-4}
    results = write_runs(tmp_path, {kind: dict(enumerate(x)) for kind, x in scores.items()})
    p = compare(results, ["kind"], "map", {"kind": "low"}, tmp_path).loc[0, "p_value"]
    assert 0.025 < p < 0.05
    two = results["kind"] != "other"
    assert best_settings(results[two], ["kind"], "map", tmp_path) == {("high",)}
    assert best_settings(results, ["kind"], "map", tmp_path) == set()


def test_the_best_must_be_better_on_the_seeds_that_a_rival_has_too(tmp_path):
    low = np.random.default_rng(3).random((3, 8)) / 4 + 0.1
    level = np.array([[0.0], [0.001], [0.002]])
    scores = {"low": low, "lucky": np.concatenate([low - 0.09 - level, low + 0.6 + level])}
    results = write_runs(tmp_path, {kind: dict(enumerate(x)) for kind, x in scores.items()})
    assert compare(results, ["kind"], "map", {"kind": "low"}, tmp_path).loc[0, "clear"]
    assert best_settings(results, ["kind"], "map", tmp_path) == set()


def test_the_table_to_print_marks_the_best(tmp_path):
    values = np.linspace(0.1, 0.4, 8)
    scores = {"low": {0: values, 1: values, 2: values}, "high": {0: values + 0.3, 1: values + 0.3}}
    table = score_table(write_runs(tmp_path, scores), ["kind"], tmp_path)
    assert list(table) == list(SCORES)
    assert table.loc["high", "class_mean_map"] == "0.593 ± 0.000 *"
    assert table.loc["low", "class_mean_map"] == "0.293 ± 0.000  "
    assert not table["flipped_bits"].str.contains("*", regex=False).any()


# --- twins ---------------------------------------------------------------------------------------


def simulate(rng, seeds, effect=0.0, queries=120, lesions=80):
    """Scores of two settings whose means differ by ``effect``, and the queries' lesions, classes.

    Queries, and the lesions that they show, are of different difficulty, the same for both
    settings. Every training has a level of its own (standard deviation 0.01, as measured for
    class-mean mAP on HAM10000), and judges every lesion and image a little differently.
    """
    lesion = rng.integers(lesions, size=queries)
    label = rng.choice(4, p=[0.6, 0.2, 0.1, 0.1], size=lesions)[lesion]
    difficulty = rng.normal(0, 0.15, lesions)[lesion] + rng.normal(0, 0.1, queries)
    scores = []
    for shift in (effect, 0):
        level = 0.45 + shift + rng.normal(0, 0.01, (seeds, 1))
        view = rng.normal(0, 0.015, (seeds, lesions))[:, lesion]
        noise = rng.normal(0, 0.015, (seeds, queries))
        scores.append(np.clip(level + difficulty + view + noise, 0, 1))
    return *scores, lesion, label


@pytest.mark.parametrize("seeds", [3, 5])
def test_twins_are_not_called_different(seeds):
    """Two settings that are one: trainings differ, queries are many, and nothing is clear."""
    rng = np.random.default_rng(seeds)
    twins = [compare_runs(*simulate(rng, seeds), repeats=200) for _ in range(150)]
    clear = [with_holm(pd.DataFrame([twin]))["clear"].item() for twin in twins]
    assert np.mean(clear) <= 0.07
    # By queries alone, about half of the twins would be called different.
    assert np.mean([twin.p_lesions < 0.05 for twin in twins]) > 0.4
    intervals = [twin.seed_low < 0 < twin.seed_high for twin in twins]
    assert 0.91 <= np.mean(intervals) <= 0.99  # the interval over seeds holds zero in 95 %


def test_a_large_difference_is_found_with_five_seeds():
    rng = np.random.default_rng(0)
    found = [compare_runs(*simulate(rng, 5, 0.05), repeats=200) for _ in range(40)]
    clear = [with_holm(pd.DataFrame([each]))["clear"].item() for each in found]
    assert np.mean(clear) > 0.8


def test_fewer_flipped_bits_are_better():
    assert lower_is_better("flipped_bits")
    assert lower_is_better("class_mean_nothing_within_2_bits")
    assert not lower_is_better("class_mean_map")


def test_what_cannot_be_compared_gets_one_sentence(tmp_path):
    values = np.linspace(0.1, 0.8, 8)
    results = write_runs(tmp_path, {"a": {0: values}, "b": {1: values}})
    same_seed = results.assign(seed=0, seconds=1.0)
    twice, other_data = same_seed.assign(kind="a"), same_seed.assign(data=["d", "e"])
    elsewhere = tmp_path / "elsewhere"
    for table, score, baseline, out, sentence in (
        (results, "map", {"kind": "a"}, tmp_path, "common seed"),
        (results, "mop", {"kind": "a"}, tmp_path, "no column 'mop'"),
        (results, "map", {"kind": "c"}, tmp_path, "no run of the baseline kind=c"),
        (results, "map", {"seed": 0}, tmp_path, "must be among the columns"),
        (twice, "map", {"kind": "a"}, tmp_path, "several runs of one seed"),
        (other_data, "map", {"kind": "a"}, tmp_path, "different queries"),
        (same_seed, "seconds", {"kind": "a"}, tmp_path, "not a score of single queries"),
        (same_seed, "map", {"kind": "a"}, elsewhere, "folder that the results come from"),
    ):
        with pytest.raises(InputError, match=sentence):
            compare(table, ["kind"], score, baseline, out)
    for table in (results, other_data):
        assert best_settings(table, ["kind"], "map", tmp_path) == set()
