"""Result files: texts stay texts, damage is named, and the stored results can be read."""

import gzip

import numpy as np
import pandas as pd
import pytest
from helpers import one_sentence

from derm_hash.errors import InputError
from derm_hash.experiments.comparisons import read_queries
from derm_hash.experiments.results import (
    collect,
    mean_and_spread,
    read_results,
    setting_kinds,
    settings_that_differ,
    table_notes,
)
from derm_hash.files import write_json


def write_result(out, **changes):
    """The file of one run's result in a folder of experiments."""
    path = out / "run" / "result-plain.json"
    path.parent.mkdir(parents=True)
    write_json(path, {"run": "run", "readout": "plain", "map": 0.5} | changes)
    return path


def assert_named(path, read):
    with one_sentence(path, "delete ", " and run the experiment again"):
        read()


def test_a_damaged_result_is_named_and_the_previous_table_stays(tmp_path):
    path = write_result(tmp_path)
    collect(tmp_path)
    before = (tmp_path / "results.csv").read_bytes()
    path.write_bytes(b'{"run": "ru')
    assert_named(path, lambda: collect(tmp_path))
    assert (tmp_path / "results.csv").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"run,map\na,1\nb,2,3\n", b"map\n0.5\n"])
def test_a_damaged_table_of_results_is_named(tmp_path, content):
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    assert_named(path, lambda: read_results(tmp_path))


def test_a_damaged_table_of_queries_is_named(tmp_path):
    path = tmp_path / "run" / "queries-plain.csv.gz"
    path.parent.mkdir()
    whole = gzip.compress(b"image,lesion_id,label,ap\n" + b"a,1,MEL,0.5\n" * 9)
    run = pd.Series({"run": "run", "readout": "plain", "scored_on": "query", "database": "full"})
    path.write_bytes(whole)
    assert len(read_queries(tmp_path, run, "ap")) == 9
    for damaged in (b"text", whole[:40], gzip.compress(b"ap\n1\n")):
        path.write_bytes(damaged)
        assert_named(path, lambda: read_queries(tmp_path, run, "ap"))


def test_a_table_keeps_texts_that_look_like_numbers_and_scores_that_are_missing(tmp_path):
    texts = {"data": "0123", "attention": "none", "precision": "32", "milestones": "1"}
    write_result(tmp_path, **texts, class_mean_map=float("nan"), split_seed=0, gamma=0.5)
    collect(tmp_path)
    row = read_results(tmp_path).iloc[0]
    assert {name: row[name] for name in texts} == texts
    assert row["split_seed"] == 0 and row["gamma"] == 0.5 and np.isnan(row["class_mean_map"])


def test_without_a_table_the_experiment_has_to_run_first(tmp_path):
    with pytest.raises(InputError, match="run the experiment first"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    "name", ["equal-passes", "fine-tuned", "frozen", "frozen-tuning", "presets"]
)
def test_the_stored_results_can_be_read(name, request):
    table = read_results(request.config.rootpath / "benchmarks" / "results" / name)
    assert set(setting_kinds()) <= set(table)
    assert table["class_mean_map"].between(0, 1).all() and settings_that_differ(table)


def test_a_preset_stands_for_all_that_it_decides():
    fields = {name: ["same"] * 3 for name in setting_kinds()}
    presets = {"preset": ["released", "recommended", "recommended"], "seed": [0, 1, 2]}
    table = pd.DataFrame(fields | presets | {"optimizer": ["sgd", "adamw", "adamw"]})
    assert settings_that_differ(table) == ["preset"]
    table["gamma"] = [0.5, 0.5, 0.1]
    assert settings_that_differ(table) == ["preset", "gamma"]


def test_mean_and_spread_by_hand_and_chance_has_none():
    # 0.1 and 0.3: mean 0.2, deviation sqrt(2 * 0.1**2 / 1) = 0.141; one run has no spread.
    runs = pd.DataFrame({"kind": ["b", "b", "a"], "map": [0.1, 0.3, 0.25]})
    table = mean_and_spread(runs, ["kind"], ["map"])["map"]
    assert table.to_dict() == {"b": "0.200 ± 0.141", "a": "0.250"}
    table = pd.DataFrame({"kind": ["a", "a"], "map": [0.2, 0.4], "chance_map": [0.25, 0.25]})
    row = mean_and_spread(table.assign(other=1), ["kind"], ["map", "other"]).loc["a"]
    assert row.to_dict() == {
        "map": "0.300 ± 0.141",
        "chance_map": "0.250",
        "other": "1.000 ± 0.000",
    }


def test_notes_name_classes_of_few_query_lesions():
    table = pd.DataFrame({"kind": ["a", "b"], "lesions_NV": [300, 300], "lesions_DF": [19, 7]})
    (note,) = table_notes(table, ["kind"])
    assert "DF 7;" in note and "fewer than 20" in note and "NV" not in note
    assert table_notes(table.assign(lesions_DF=20), ["kind"]) == []


@pytest.mark.parametrize(
    ("planned", "note"),
    [
        (None, []),
        (1, ["seeds planned: 1; extended: 2 of 3 settings, with 2 to 3 seeds"]),
        (3, ["seeds planned: 3; short of the plan: 2 of 3 settings, with 1 to 2 seeds"]),
    ],
)
def test_notes_say_where_the_plan_of_seeds_was_not_kept(planned, note):
    table = pd.DataFrame({"kind": list("aaabbc"), "seed": [0, 1, 2, 0, 1, 0]})
    assert table_notes(table, ["kind"], planned) == note


def test_notes_say_that_the_plan_of_seeds_was_kept():
    table = pd.DataFrame({"kind": list("aabb"), "readout": ["plain"] * 4, "seed": [0, 1, 0, 1]})
    (note,) = table_notes(table, ["kind"], 2)
    assert note == "seeds planned: 2; every setting has as many"
