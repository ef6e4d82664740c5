"""Experiments: nothing is done twice, and the table says what was measured."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from distributed_worker import NETWORKS
from filelock import FileLock

from derm_hash import experiments
from derm_hash import model as model_module
from derm_hash.atlas.atlas import make_atlas
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.splits import split_by_image
from derm_hash.errors import InputError
from derm_hash.experiments.comparisons import (
    best_settings,
    compare,
    query_column,
    read_queries,
    score_table,
)
from derm_hash.experiments.file import read_experiment
from derm_hash.experiments.grid import run_grid
from derm_hash.experiments.results import (
    collect,
    mean_and_spread,
    read_facts,
    read_results,
    summary,
    varied,
)
from derm_hash.experiments.scoring import evaluate_run, score_model
from derm_hash.metrics.intervals import paired_test
from derm_hash.model import OrbitMean
from derm_hash.runs import Run
from derm_hash.settings import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
REAL_BACKBONE = model_module.make_backbone
TINY = {"backbone": "resnet10", "bits": 8, "epochs": 1, "batch_size": 16}


@pytest.fixture(scope="module")
def data():
    return LesionDataset.from_atlas(make_atlas(48, 32, progress=False), query=0.25, val=0.2)


@pytest.fixture(scope="module", autouse=True)
def small_networks(one_thread):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_module, "make_backbone", lambda name, weights: NETWORKS[name]())
        yield


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """A finished grid: its folder and its table."""
    out = tmp_path_factory.mktemp("grid")
    grid = {"invariance": [None, "cauchy"], "seed": [0, 1], "readout": ["plain", "orbit-mean"]}
    return out, run_grid(grid, data, out, progress=False, **TINY)


def forbid_training(*args, **kwargs):
    raise AssertionError("a run is trained again")


def test_a_stopped_grid_goes_on_and_repeats_nothing(data, tmp_path, monkeypatch):
    trained = []

    def counting(config, *args, **kwargs):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(config.name)
        return real(config, *args, **kwargs)

    real = experiments.train
    monkeypatch.setattr(experiments, "train", counting)
    grid = {"invariance": [None, "cauchy"], "seed": [0, 1]}
    with pytest.raises(KeyboardInterrupt):
        run_grid(grid, data, tmp_path, progress=False, **TINY)
    assert len(pd.read_csv(tmp_path / "results.csv")) == 2
    first = trained.copy()
    trained.clear()
    table = run_grid(grid, data, tmp_path, progress=False, **TINY)
    assert len(table) == 4 and len(trained) == 2 and not set(first) & set(trained)
    assert set(zip(table["invariance"], table["seed"].astype(str), strict=True)) == {
        ("none", "0"), ("none", "1"), ("cauchy", "0"), ("cauchy", "1"),
    }  # fmt: skip
    trained.clear()
    again = run_grid(grid, data, tmp_path, progress=False, **TINY)
    assert not trained
    np.testing.assert_allclose(again["flipped_bits"], table["flipped_bits"])


def test_other_data_and_other_settings_are_other_runs(data, tmp_path):
    """A table that is there must not answer a question that nobody has asked yet."""
    more = LesionDataset.from_atlas(make_atlas(48, 32, seed=1, progress=False), val=0.2)
    grid = {"seed": [0]}
    for dataset, settings in ((data, TINY), (more, TINY), (data, TINY | {"bits": 4})):
        assert len(run_grid(grid, dataset, tmp_path, progress=False, **settings)) == 1
    assert pd.read_csv(tmp_path / "results.csv")["run"].nunique() == 3


def test_a_long_name_leaves_a_progress_bar_room(data, tmp_path, capsys):
    """Notebooks tell a bar from other widgets by its percentage, which tqdm cuts off at the end."""
    grid = {"class_weights": ["inverse"], "classify": ["upright"], "invariance": ["gaussian"]}
    run_grid(grid | {"seed": [0]}, data, tmp_path, progress=True, **TINY)
    bars = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if "step" in line]
    assert bars and all("%|" in bar[:60] for bar in bars)


class Upright(torch.nn.Module):
    """A code of two bits: is the top brighter than the bottom, is the image bright?"""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        from derm_hash.model import HashOutput

        half = x.shape[-2] // 2
        top, bottom = x[..., :half, :].mean((1, 2, 3)), x[..., half:, :].mean((1, 2, 3))
        code = torch.stack([top - bottom, top + bottom], dim=1).sign() / 4 + 0.5
        return HashOutput(code, code)


def test_evaluate_run_counts_the_flips_of_a_model_worked_by_hand(data, tmp_path):
    """A half turn swaps top and bottom: the first bit flips, the second never does."""
    model = Upright()
    scores = evaluate_run(Run(tmp_path, TrainConfig(), model, pd.DataFrame()), data)
    pictures = data.split("query").images.float() / 127.5 - 1
    flips = []
    for k in (1, 2, 3):
        turned = torch.rot90(pictures, k, dims=(2, 3))
        flips.append(((model(turned).code > 0.5) != (model(pictures).code > 0.5)).float().mean())
    assert scores["flipped_bits"] == pytest.approx(float(np.mean(flips)), abs=1e-6)
    assert 0.2 < scores["flipped_bits"] < 0.5


# --- the files of a run ---------------------------------------------------------------------


def test_the_table_holds_settings_conditions_and_scores(done, data):
    out, table = done
    fields = {field.name for field in dataclasses.fields(TrainConfig)} - {"name"}
    conditions = {"device", "torch", "python", "derm_hash", "processes", "seconds", "data"}
    assert fields | conditions | {"preset", "split", "run", "readout"} <= set(table)
    assert (table["seconds"] > 0).all() and set(table["bits"]) == {8}
    assert table["milestones"].iloc[0] == "40,60,80,100"
    run = Run.load(out / table["run"].iloc[0])
    for name, value in evaluate_run(run, data).items():
        assert table[name].iloc[0] == pytest.approx(value, abs=1e-9), name


def test_the_orbit_mean_is_a_readout_of_the_same_training(done, data):
    out, table = done
    assert len(table) == 8 and table["run"].nunique() == 4
    mean = table[table["readout"] == "orbit-mean"]
    assert mean["flipped_bits"].max() < 1e-2 < table["flipped_bits"].max()
    row = mean.iloc[0]
    scores, _ = score_model(OrbitMean(Run.load(out / row["run"]).model), data)
    assert row["class_mean_map"] == pytest.approx(scores["class_mean_map"], abs=1e-9)


def test_query_scores_have_the_means_of_the_table(done):
    out, table = done
    for _, row in table.iterrows():
        queries = pd.read_csv(out / row["run"] / f"queries-{row['readout']}.csv")
        means = queries.groupby("label").mean(numeric_only=True)
        for score in (
            *experiments.SCORES,
            "overlap_at_10",
            "map",
            "class_mean_tie_aware_map_at_10",
        ):
            if score in row:
                column, balanced = query_column(score)
                mean = means[column].mean() if balanced else queries[column].mean()
                assert mean == pytest.approx(row[score], abs=1e-6), score


def test_a_readout_asked_for_later_needs_no_training(data, tmp_path, monkeypatch):
    run_grid({"seed": [0]}, data, tmp_path, progress=False, **TINY)
    monkeypatch.setattr(experiments, "train", forbid_training)
    grid = {"seed": [0], "readout": ["plain", "orbit-mean"]}
    table = run_grid(grid, data, tmp_path, progress=False, **TINY)
    assert list(table["readout"]) == ["plain", "orbit-mean"]
    # Nor does the same run under another name, in another grid.
    again = run_grid({"seed": [0], "bits": [8]}, data, tmp_path, progress=False, **TINY)
    assert again["run"].tolist() == table["run"].tolist()[:1]


def test_settings_are_chosen_on_val_without_a_look_at_the_queries(data, tmp_path, monkeypatch):
    looked_at = []
    real = LesionDataset.split

    def split(self, part):
        looked_at.append(part)
        return real(self, part)

    monkeypatch.setattr(LesionDataset, "split", split)
    table = run_grid({"scored_on": ["val"]}, data, tmp_path, progress=False, **TINY)
    assert set(looked_at) == {"database", "val"}
    assert list(table["scored_on"]) == ["val"]
    model = Run.load(tmp_path / table["run"][0]).model
    swapped = data.table.assign(split=data.table["split"].replace({"val": "query", "query": "val"}))
    scores, _ = score_model(model, LesionDataset(data.images, swapped, data.classes))
    for name, value in scores.items():
        assert table[name][0] == pytest.approx(value, abs=1e-9), name
    # The same run, judged by the queries in the end, is not trained again.
    monkeypatch.setattr(experiments, "train", forbid_training)
    both = run_grid({"scored_on": ["val", "query"]}, data, tmp_path, progress=False, **TINY)
    assert both["run"].nunique() == 1 and list(both["scored_on"]) == ["val", "query"]
    with pytest.raises(InputError, match="different queries"):
        compare(both, ["scored_on"], "map", {"scored_on": "val"}, tmp_path)


def test_a_lost_table_is_put_together_again(data, tmp_path, monkeypatch):
    before = run_grid({"seed": [0, 1]}, data, tmp_path, progress=False, **TINY)
    (tmp_path / "results.csv").unlink()
    monkeypatch.setattr(experiments, "train", forbid_training)
    after = run_grid({"seed": [0, 1]}, data, tmp_path, progress=False, **TINY)
    pd.testing.assert_frame_equal(before, after)


def test_results_from_before_there_was_a_choice_are_those_of_the_queries(data, tmp_path):
    table = run_grid({"seed": [0]}, data, tmp_path, progress=False, **TINY)
    path = tmp_path / table["run"][0] / "result-plain.json"
    row = json.loads(path.read_text())
    row.pop("scored_on")
    path.write_text(json.dumps(row))
    again = run_grid({"seed": [0]}, data, tmp_path, progress=False, **TINY)
    assert list(again["scored_on"]) == ["query"]


def result(out, **changes):
    """A run's result in a folder of experiments."""
    path = out / "run" / "result-plain.json"
    path.parent.mkdir(parents=True)
    row = {"run": "run", "readout": "plain", "map": 0.5} | changes
    path.write_text(json.dumps(row))
    return path


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b'{"run": "ru', b"[" * 100_000, b'["run", "readout"]', b"3", b"null", b"\xff{}"),
        *(b'{"run": "run"}', b'{"run": ["run"], "readout": "plain"}'),
        b'{"run": "run", "readout": "plain", "scored_on": 3}',
        b'{"run": "run", "readout": "plain", "map": [0.5]}',
        b'{"run": "run", "readout": "plain", "device": "\\ud800"}',
        b'{"run": "run", "readout": "plain", "class_mean_map": "high"}',
        b'{"run": "run", "readout": "plain", "class_mean_map": true}',
    ],
    ids=range(14),
)
def test_a_damaged_result_is_named_and_no_table_is_written(tmp_path, content):
    path = result(tmp_path)
    collect(tmp_path)
    before = (tmp_path / "results.csv").read_bytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match="delete it and run the experiment again") as error:
        collect(tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "results.csv").read_bytes() == before


def test_a_result_that_cannot_be_read_is_named(tmp_path):
    path = result(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=re.escape(str(path))):
        collect(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\n", b'""\n', b"run,map\n", b"run,map\na,1\nb,2,3\n", b"run,map\na,1,2\n"),
        *(b"\xff\n1\n", b"map\n0.5\n", b'run,map\n"a,1\n', b"run,class_mean_map\na,0.5\nb,x\n"),
    ],
    ids=range(10),
)
def test_a_damaged_table_of_results_is_named(tmp_path, content):
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match="delete it and run the experiment again") as error:
        read_results(tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff\n", b"ap\n1\n", b"image,lesion_id,label,ap\na,1,MEL,0.5\nb,2,NV,1,3\n"),
        b"image,lesion_id,label,ap\na,1,MEL,high\n",
    ],
    ids=range(5),
)
def test_a_damaged_table_of_queries_is_named(tmp_path, content):
    path = tmp_path / "run" / "queries-plain.csv"
    path.parent.mkdir()
    path.write_bytes(content)
    run = pd.Series({"run": "run", "readout": "plain", "scored_on": "query"})
    with pytest.raises(InputError, match=r"delete .*run and run the experiment again") as error:
        read_queries(tmp_path, run, "ap")
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"seconds": 1', b"\xff", b"[" * 100_000])
def test_a_damaged_note_of_a_training_is_named(tmp_path, content):
    path = tmp_path / "trained.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"delete .* and run the experiment again") as error:
        read_facts(path)
    assert str(path) in str(error.value)


def test_a_table_keeps_words_that_look_like_numbers_and_scores_that_are_missing(tmp_path):
    result(tmp_path, data="0123", attention="none", class_mean_map=float("nan"))
    collect(tmp_path)
    table = read_results(tmp_path)
    assert table["data"][0] == "0123" and table["attention"][0] == "none"
    assert table["class_mean_map"].isna().all()


def test_what_killed_processes_have_left_is_removed(data, tmp_path):
    table = run_grid({"seed": [0]}, data, tmp_path, progress=False, **TINY)
    for place in (tmp_path, tmp_path / table["run"][0]):
        (place / ".results.csv.4242.part").write_text("half a ta")
    later = {"seed": [0], "readout": ["orbit-mean"]}
    run_grid(later, data, tmp_path, progress=False, **TINY)
    assert not list(tmp_path.rglob("*.part"))


def test_seconds_of_a_run_that_went_on_are_not_told(data, tmp_path, monkeypatch):
    real = experiments.train

    def stop(*args, **kwargs):
        real(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        run_grid({"seed": [0]}, data, tmp_path, progress=False, **TINY)
    monkeypatch.setattr(experiments, "train", real)
    table = run_grid({"seed": [0]}, data, tmp_path, progress=False, **TINY)
    assert table["seconds"].isna().all()


# --- what a grid may hold -------------------------------------------------------------------


def test_the_same_images_are_split_again(data, tmp_path):
    grid = {"split": ["given", "paper"], "seed": [0]}
    table = run_grid(grid, data, tmp_path, progress=False, **TINY)
    assert list(table["split"]) == ["given", "paper"] and table["data"].nunique() == 2
    queries = pd.read_csv(tmp_path / table["run"][1] / "queries-plain.csv", dtype=str)
    expected = split_by_image(data.table, seed=0)
    assert set(queries["image"]) == set(expected.loc[expected["split"] == "query", "image"])
    # Other queries cannot be paired, and nothing is marked as the best.
    with pytest.raises(InputError, match="different queries"):
        compare(table, ["split"], "map", {"split": "given"}, tmp_path)
    assert best_settings(table, ["split"], "map", tmp_path) == set()


def test_several_grids_share_the_runs_they_have_in_common(data, tmp_path):
    grids = [
        {"invariance": [None, "cauchy"]},
        {"invariance": [None], "random_turns": [False, True]},
    ]
    table = run_grid(grids, data, tmp_path, progress=False, **TINY)
    assert len(table) == 3
    assert list(table["invariance"]) == ["none", "cauchy", "none"]
    assert list(table["random_turns"]) == [False, False, True]
    assert varied(table) == ["invariance", "random_turns"]


def test_a_preset_stands_for_all_that_it_decides():
    fields = {name: ["same"] * 3 for name in experiments.setting_names()}
    presets = {"preset": ["released", "recommended", "recommended"]}
    table = pd.DataFrame(fields | presets | {"optimizer": ["sgd", "adamw", "adamw"]})
    assert varied(table) == ["preset"]
    table["gamma"] = [0.5, 0.5, 0.1]
    assert varied(table) == ["preset", "gamma"]


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ({"split": ["half"]}, "split must be one of given, lesion, paper"),
        ({"readout": ["max"]}, "readout must be one of plain, orbit-mean"),
        ({"scored_on": ["database"]}, "scored_on must be one of query, val"),
        ({"attention": [None, "magic"]}, "magic"),
        ({"objective": ["classification", "x"]}, "objective must be one of"),
        ({"colour": [1]}, "colour"),
        ({"preset": ["x"]}, "Unknown preset"),
    ],
)
def test_a_bad_setting_is_found_before_anything_is_trained(
    grid, sentence, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(experiments, "train", forbid_training)
    monkeypatch.setattr(model_module, "make_backbone", REAL_BACKBONE)
    with pytest.raises(InputError, match=sentence):
        run_grid(grid, data, tmp_path / "out", progress=False, **TINY)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("baseline", [[1], []])
def test_milestones_of_one_epoch_or_none_are_found_again_as_a_baseline(data, tmp_path, baseline):
    grid = {"milestones": [baseline, [2]]}
    table = run_grid(grid, data, tmp_path, progress=False, **TINY | {"schedule": "steps"})
    found = compare(table, ["milestones"], "map", {"milestones": baseline}, tmp_path)
    assert found["milestones"].tolist() == ["2"]


def test_texts_that_look_like_numbers_stay_texts(tmp_path):
    row = {"run": "0123", "precision": "32", "milestones": "1", "split_seed": 0, "gamma": 0.5}
    pd.DataFrame([row]).to_csv(tmp_path / "results.csv", index=False)
    assert read_results(tmp_path).to_dict("records") == [row]


# --- several processes ----------------------------------------------------------------------


def test_a_run_that_another_process_has_claimed_is_left_to_it(data, tmp_path, monkeypatch, capsys):
    grid = {"seed": [0, 1]}
    plans, _ = experiments.plan(
        [TINY | {"seed": seed} for seed in (0, 1)], {"seed"}, data, tmp_path, "recommended"
    )
    (tmp_path / ".claims").mkdir()
    other = FileLock(tmp_path / ".claims" / plans[0].config.name, thread_local=False)
    other.acquire()
    order, real = [], experiments.train

    def spy(config, *args, **kwargs):
        order.append(config.seed)
        return real(config, *args, **kwargs)

    monkeypatch.setattr(experiments, "train", spy)
    monkeypatch.setattr(experiments, "SECONDS_BETWEEN_LOOKS", 0.05)
    worker = threading.Thread(
        target=run_grid, args=(grid, data, tmp_path), kwargs=TINY | {"progress": False}
    )
    worker.start()
    while plans[1].missing(tmp_path):
        time.sleep(0.05)
    time.sleep(0.3)
    assert order == [1] and worker.is_alive()
    other.release()  # the other process dies without having finished
    worker.join(60)
    assert order == [1, 0] and len(read_results(tmp_path)) == 2
    assert capsys.readouterr().out.count("waiting") == 1


EXPERIMENT = """
[data]
source = "atlas"
size = 32
images = 60
[grid]
attention = ["none", "hdcsa"]
invariance = ["none", "cauchy"]
seed = [0, 1]
[train]
backbone = "resnet10"
bits = 8
epochs = 1
batch_size = 16
"""


@pytest.mark.slow
def test_a_killed_command_goes_on_and_a_second_one_helps(tmp_path):
    file, out = tmp_path / "grid.toml", tmp_path / "out"
    file.write_text(EXPERIMENT)
    command = [sys.executable, "-m", "derm_hash", "reproduce", str(file), "--out", str(out)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def start():
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def stamps():
        return {path: path.stat().st_mtime_ns for path in out.glob("*/*.json")}

    process = start()
    while len(list(out.glob("*/result-plain.json"))) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = {path: stamp for path, stamp in stamps().items() if path.name != "config.json"}
    assert 2 <= len(list(out.glob("*/result-plain.json"))) < 8
    both = [start(), start()]
    shown = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], shown
    assert before.items() <= stamps().items()  # nothing that was finished has been written again
    table = read_results(out)
    assert len(table) == 8 and table["run"].nunique() == 8
    claimed = [json.loads(path.read_text()) for path in out.glob("*/trained.json")]
    assert len(claimed) == 8
    assert (out / "results.png").read_bytes().startswith(b"\x89PNG")
    assert all(b"hdcsa" in text and b"runs: 100%" in bars for text, bars in shown)
    assert not list(out.rglob("*.part"))


# --- what came out --------------------------------------------------------------------------


def write_runs(out, scores, data="d"):
    """A folder of results with given scores: {setting: {seed: ap of each query}}."""
    lesions, rows = ["a", "a", "b", "", "c", "d", "e", "f"], []
    for setting, by_seed in scores.items():
        for seed, values in by_seed.items():
            run = f"{setting}-{seed}"
            (out / run).mkdir(parents=True)
            queries = {"image": [f"{i}.png" for i in range(8)], "lesion_id": lesions}
            queries |= {"label": ["NV", "NV", "NV", "NV", "NV", "NV", "MEL", "MEL"], "ap": values}
            pd.DataFrame(queries).to_csv(out / run / "queries-plain.csv", index=False)
            mean = pd.Series(values).groupby(queries["label"]).mean().mean()
            facts = {"run": run, "readout": "plain", "scored_on": "query", "data": data}
            facts |= {"seed": seed, "kind": setting}
            rows.append(facts | {"class_mean_map": mean, "map": np.mean(values)})
    return pd.DataFrame(rows)


def test_compare_pairs_by_seed_and_clusters_by_lesion(tmp_path):
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


def test_a_baseline_is_sought_among_equals(tmp_path):
    values = np.linspace(0.1, 0.8, 8)
    results = write_runs(tmp_path, {f"{k}{b}": {0: values} for k in "xy" for b in (16, 32)})
    results["bits"], results["kind"] = [16, 32, 16, 32], ["x", "x", "y", "y"]
    table = compare(results, ["bits", "kind"], "map", {"kind": "x"}, tmp_path)
    assert table[["bits", "kind"]].to_numpy().tolist() == [[16, "y"], [32, "y"]]
    assert (table["difference"] == 0).all() and (table["p_value"] == 1).all()


def test_the_best_is_marked_only_when_it_is_no_chance(tmp_path):
    rng = np.random.default_rng(1)
    low = rng.random(8) / 4
    mixed = low + np.array([0.3, 0.3, -0.2, 0.2, -0.2, 0.2, -0.2, 0.2])
    clear = write_runs(tmp_path / "clear", {"low": {0: low}, "high": {0: low + 0.3}})
    assert best_settings(clear, ["kind"], "map", tmp_path / "clear") == {("high",)}
    cells = score_table(clear, ["kind"], tmp_path / "clear", ["map"])["map"]
    assert cells["high"].endswith("*") and "*" not in cells["low"] and "±" not in cells["low"]
    close = write_runs(tmp_path / "close", {"low": {0: low}, "mixed": {0: mixed}})
    assert mixed.mean() > low.mean()
    assert best_settings(close, ["kind"], "map", tmp_path / "close") == set()
    # The best must beat all the others, not only the baseline.
    three = {"low": {0: low}, "high": {0: low + 0.3}, "same": {0: low + 0.31 - mixed + low}}
    both = write_runs(tmp_path / "three", three)
    assert best_settings(both, ["kind"], "map", tmp_path / "three") == set()


def test_mean_and_spread_by_hand():
    # 0.1 and 0.3: mean 0.2, deviation sqrt(2 * 0.1**2 / 1) = 0.141; one run has no spread.
    runs = pd.DataFrame({"kind": ["b", "b", "a"], "map": [0.1, 0.3, 0.25]})
    table = mean_and_spread(runs, ["kind"], ["map"])["map"]
    assert table.to_dict() == {"b": "0.200 ± 0.141", "a": "0.250"}


def test_fewer_flipped_bits_are_better():
    assert experiments.lower_is_better("flipped_bits")
    assert experiments.lower_is_better("class_mean_nothing_within_2_bits")
    assert not experiments.lower_is_better("class_mean_map")


def test_what_cannot_be_compared_gets_one_sentence(tmp_path):
    values = np.linspace(0.1, 0.8, 8)
    results = write_runs(tmp_path, {"a": {0: values}, "b": {1: values}})
    twice = results.assign(kind="a", seed=0)
    for table, score, baseline, sentence in (
        (results, "map", {"kind": "a"}, "common seed"),
        (results, "mop", {"kind": "a"}, "no column 'mop'"),
        (results, "map", {"kind": "c"}, "no run of the baseline kind=c"),
        (results, "map", {"seed": 0}, "must be among the columns"),
        (twice, "map", {"kind": "a"}, "several runs of one seed"),
    ):
        with pytest.raises(InputError, match=sentence):
            compare(table, ["kind"], score, baseline, tmp_path)
    results["seed"], results["seconds"] = 0, 1.0
    with pytest.raises(InputError, match="not a score of single queries"):
        compare(results, ["kind"], "seconds", {"kind": "a"}, tmp_path)
    with pytest.raises(InputError, match="folder that the results come from"):
        compare(results, ["kind"], "map", {"kind": "a"}, tmp_path / "elsewhere")
    with pytest.raises(InputError, match="run the experiment first"):
        read_results(tmp_path)


def test_summary_is_mean_and_sample_deviation():
    table = pd.DataFrame({"loss": ["a", "a", "b"], "map": [0.2, 0.6, 0.5]})
    result = summary(table, ["loss"], ["map"])
    assert result.loc["a", ("map", "mean")] == pytest.approx(0.4)
    assert result.loc["a", ("map", "std")] == pytest.approx(np.sqrt(2 * 0.2**2))
    assert result.loc["b", ("map", "count")] == 1


def test_read_experiment_turns_none_into_none(tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text(
        '[data]\nsource = "atlas"\n[grid]\ninvariance = ["none", "cauchy"]\n'
        '[train]\nattention = "none"\nclass_weights = "none"\n'
    )
    data, grid, shared, baseline = read_experiment(file)
    assert baseline == {}
    assert data == {"source": "atlas"} and grid == {"invariance": [None, "cauchy"]}
    assert shared == {"attention": None, "class_weights": "none"}


GRID = "[data]\n[grid]\nseed = [0]\n[train]\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[data", "not valid TOML"),
        ("[data]\n", r"no \[grid\] table"),
        ("[data]\n[grid]\nseed = 1\n", "seed in the .* must be a list"),
        ("[data]\n[[grid]]\nseed = [0]\n[[grid]]\nseed = []\n", "seed in the .* must be a list"),
        ("[data]\n[grid]\nseed = [0]\n[baseline]\nsed = 0\n", "sed in the .* is no setting"),
        ("[data]\nsorce = 1\n[grid]\nseed = [0]\n", "sorce in the .* is none of"),
        (GRID + 'epochs = "1"\n', r"epochs in the \[train\] of .* a whole number, not '1'"),
        (GRID + "epochs = true\n", r"epochs in the \[train\] of .* a whole number, not True"),
        (GRID + "epochs = 2020-01-01\n", "epochs in the .* must be a whole number, not"),
        (GRID + 'gamma = "1"\n', "gamma in the .* must be a number, not '1'"),
        (GRID + 'augment = "false"\n', "augment in the .* must be true or false, not 'false'"),
        (GRID + "backbone = 18\n", "backbone in the .* must be text, not 18"),
        (GRID + 'split = ["paper"]\n', r"split in the .* must be text, not \['paper'\]"),
        (GRID + "milestones = 1\n", "milestones in the .* must be whole numbers, not 1"),
        (GRID + 'milestones = ["1"]\n', "milestones in the .* must be whole numbers"),
        (GRID + "out = 1\n", r"out in the \[train\] of .* is no setting"),
        ("[data]\n[grid]\nout = [1]\n", r"out in the \[grid\] of .* is no setting"),
        ('[data]\n[grid]\nbits = [8, "16"]\n', r"bits in the \[grid\] of .* number, not '16'"),
        ("[data]\n[grid]\nsplit_seed = [0.5]\n", "split_seed in the .* a whole number, not 0.5"),
        (GRID + "[baseline]\nbits = '8'\n", r"bits in the \[baseline\] of .* number, not '8'"),
        ('[data]\nsize = "32"\n[grid]\nseed = [0]\n', r"size in the \[data\] of .* not '32'"),
        ("[data]\nsource = 1\n[grid]\nseed = [0]\n", "source in the .* must be text, not 1"),
    ],
)
def test_a_bad_experiment_file_gets_one_sentence(tmp_path, text, sentence):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_experiment(file)


def test_an_experiment_file_is_text_in_utf_8(tmp_path):
    file = tmp_path / "grid.toml"
    text = '# Häufigkeit\n[data]\nsource = "Bänder"\n[grid]\ngamma = [1, 0.5]\n'
    file.write_bytes(text.encode("utf-8"))
    assert read_experiment(file).data == {"source": "Bänder"}
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"grid\.toml is not text in UTF-8: save it as such"):
        read_experiment(file)


def test_a_missing_experiment_file_gets_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no experiment file"):
        read_experiment(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("name", "runs"),
    [("smoke", 8), ("ham10000", 36), ("tuning", 24), ("ham10000-cpu", 36), ("presets", 12)],
)
def test_the_experiments_that_come_with_the_kit_are_valid(name, runs, request, data, tmp_path):
    file = request.config.rootpath / "benchmarks" / "configs" / f"{name}.toml"
    experiment = read_experiment(file)
    assert experiment.data["source"]
    points, axes = experiments.points_of(experiment.grid, experiment.train)
    plans, wanted = experiments.plan(points, axes, data, tmp_path, "recommended")
    assert len(plans) == runs and len(set(wanted)) >= runs
    assert name == "tuning" or len({plan.config.seed for plan in plans}) >= 2
