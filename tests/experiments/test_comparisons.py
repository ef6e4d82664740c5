"""Comparisons of settings: paired by seed and query, in groups of one lesion."""

import numpy as np
import pandas as pd
import pytest

from derm_hash.errors import InputError
from derm_hash.experiments.comparisons import best_settings, compare, lower_is_better, score_table
from derm_hash.metrics.intervals import paired_test
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
            pd.DataFrame(queries).to_csv(out / run / "queries-plain.csv", index=False)
            mean = pd.Series(values).groupby(queries["label"]).mean().mean()
            facts = {"run": run, "readout": "plain", "scored_on": "query", "data": "d"}
            facts |= {"seed": seed, "kind": setting} | dict.fromkeys(SCORES, 0.5)
            rows.append(facts | {"class_mean_map": mean, "map": np.mean(values)})
    return pd.DataFrame(rows)


def test_compare_pairs_by_seed_and_groups_by_lesion(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 2, 8))
    results = write_runs(tmp_path, {"a": dict(enumerate(a)), "b": dict(enumerate(b)) | {2: b[0]}})
    table = compare(results, ["kind"], "class_mean_map", {"kind": "a"}, tmp_path)
    groups = np.array(["a", "a", "b", "image 3.png", "c", "d", "e", "f"])
    labels = np.array([1, 1, 1, 1, 1, 1, 0, 0])  # MEL sorts before NV
    expected = paired_test(b.mean(axis=0), a.mean(axis=0), groups, labels)
    row = table.iloc[0]
    assert len(table) == 1 and row["kind"] == "b" and row["seeds"] == 2
    for name in expected._fields:
        assert row[name] == pytest.approx(getattr(expected, name), abs=1e-12)
    balanced = [(x[:, :6].mean(axis=1) + x[:, 6:].mean(axis=1)) / 2 for x in (a, b)]
    assert row["seed_std"] == pytest.approx(np.std(balanced[1] - balanced[0], ddof=1))
    plain = compare(results, ["kind"], "map", {"kind": "a"}, tmp_path).iloc[0]
    assert plain["difference"] == pytest.approx(b.mean() - a.mean())
    assert plain["difference"] != pytest.approx(row["difference"], abs=1e-3)


def test_the_baseline_has_the_same_values_in_the_other_columns(tmp_path):
    values = np.linspace(0.1, 0.8, 8)
    results = write_runs(tmp_path, {f"{k}{b}": {0: values} for k in "xy" for b in (16, 32)})
    results["bits"], results["kind"] = [16, 32, 16, 32], ["x", "x", "y", "y"]
    table = compare(results, ["bits", "kind"], "map", {"kind": "x"}, tmp_path)
    assert table[["bits", "kind"]].to_numpy().tolist() == [[16, "y"], [32, "y"]]
    assert (table["difference"] == 0).all() and (table["p_value"] == 1).all()


def test_the_best_is_marked_only_if_chance_does_not_explain_it(tmp_path):
    rng = np.random.default_rng(1)
    low = rng.random(8) / 4
    mixed = low + np.array([0.3, 0.3, -0.2, 0.2, -0.2, 0.2, -0.2, 0.2])
    clear = write_runs(tmp_path / "clear", {"low": {0: low}, "high": {0: low + 0.3}})
    assert best_settings(clear, ["kind"], "map", tmp_path / "clear") == {("high",)}
    close = write_runs(tmp_path / "close", {"low": {0: low}, "mixed": {0: mixed}})
    assert mixed.mean() > low.mean()
    assert best_settings(close, ["kind"], "map", tmp_path / "close") == set()
    # The best must beat all the others, not only the baseline.
    three = {"low": {0: low}, "high": {0: low + 0.3}, "same": {0: low + 0.31 - mixed + low}}
    both = write_runs(tmp_path / "three", three)
    assert best_settings(both, ["kind"], "map", tmp_path / "three") == set()


def test_the_table_to_print_marks_the_best(tmp_path):
    values = np.linspace(0.1, 0.4, 8)
    results = write_runs(tmp_path, {"low": {0: values, 1: values}, "high": {0: values + 0.3}})
    table = score_table(results, ["kind"], tmp_path)
    assert list(table) == list(SCORES)
    assert table.loc["high", "class_mean_map"] == "0.593 *"
    assert table.loc["low", "class_mean_map"] == "0.293 ± 0.000  "
    assert not table["flipped_bits"].str.contains("*", regex=False).any()


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
