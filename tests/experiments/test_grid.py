"""A grid of runs: nothing is done twice, and the table says what was measured."""

import dataclasses
import re
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch

from derm_hash.atlas.atlas import make_atlas
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.splits import split_by_image
from derm_hash.errors import InputError
from derm_hash.experiments import grid as grid_module
from derm_hash.experiments.comparisons import compare, query_column
from derm_hash.experiments.grid import run_grid
from derm_hash.experiments.plan import SharedData, open_shared
from derm_hash.experiments.results import settings_that_differ
from derm_hash.experiments.scoring import score_model
from derm_hash.files import locked
from derm_hash.metrics.ranking import average_precision
from derm_hash.metrics.scores import SCORES
from derm_hash.model import HashOutput, OrbitMean
from derm_hash.runs import Run
from derm_hash.settings import TrainConfig

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = {"backbone": "pocket", "bits": 8, "epochs": 1, "batch_size": 16}


@pytest.fixture
def run(data, tmp_path):
    """Run a grid of tiny runs in the test's folder."""

    def run(grid, dataset=data, **settings):
        return run_grid(grid, dataset, tmp_path, **{"progress": False} | TINY | settings)

    return run


@pytest.fixture(scope="module")
def done(data, one_thread, tmp_path_factory):
    """A finished grid: its folder and its table."""
    out = tmp_path_factory.mktemp("grid")
    grid = {"invariance": [None, "cauchy"], "seed": [0, 1], "readout": ["plain", "orbit-mean"]}
    return out, run_grid(grid, data, out, progress=False, **TINY)


@pytest.fixture
def trained(monkeypatch):
    """The seeds of the runs that are trained; set ``trained.stop_after`` to stop a grid."""

    class Seeds(list):
        stop_after = None

    seeds, train = Seeds(), grid_module.train

    def spy(config, *args, **kwargs):
        if len(seeds) == seeds.stop_after:
            raise KeyboardInterrupt
        seeds.append(config.seed)
        return train(config, *args, **kwargs)

    monkeypatch.setattr(grid_module, "train", spy)
    return seeds


def test_a_stopped_grid_goes_on_and_repeats_nothing(run, trained, tmp_path):
    trained.stop_after, grid = 2, {"seed": [0, 1, 2]}
    with pytest.raises(KeyboardInterrupt):
        run(grid)
    assert trained == [0, 1] and len(pd.read_csv(tmp_path / "results.csv")) == 2
    trained.stop_after = None
    table = run(grid)
    assert trained == [0, 1, 2] and list(table["seed"]) == [0, 1, 2]
    (tmp_path / "results.csv").unlink()  # a lost table is written again from the runs
    pd.testing.assert_frame_equal(run(grid), table)
    assert trained == [0, 1, 2]


def test_other_data_and_other_settings_are_other_runs(run, tmp_path):
    more = LesionDataset.from_atlas(make_atlas(48, 32, seed=1, progress=False), val=0.2)
    for changes in ({}, {"dataset": more}, {"bits": 4}):
        assert len(run({"seed": [0]}, **changes)) == 1
    assert pd.read_csv(tmp_path / "results.csv")["run"].nunique() == 3


def test_a_second_command_waits_for_the_first(run, trained, tmp_path, capsys):
    second = threading.Thread(target=run, args=({"seed": [0]},))
    with locked(tmp_path, "the first command waits"):
        second.start()
        time.sleep(0.5)
        assert not trained and "waiting for it to end" in capsys.readouterr().out
    second.join(60)
    assert trained == [0]


def test_a_long_name_leaves_a_progress_bar_room(run, capsys):
    """Notebooks tell a bar from other widgets by its percentage, which tqdm cuts off at the end."""
    grid = {"class_weights": ["inverse"], "classify": ["upright"], "invariance": ["gaussian"]}
    run(grid | {"seed": [0]}, progress=True)
    bars = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if "step" in line]
    assert bars and all("%|" in bar[:60] for bar in bars)


# --- the files of a run -------------------------------------------------------------------------


def test_the_table_holds_settings_conditions_and_scores(done, data):
    out, table = done
    fields = {field.name for field in dataclasses.fields(TrainConfig)} - {"name"}
    conditions = {"device", "torch", "python", "derm_hash", "seconds", "data"}
    assert fields | conditions | {"preset", "split", "run", "readout"} <= set(table)
    assert (table["seconds"] > 0).all() and set(table["bits"]) == {8}
    assert table["milestones"].iloc[0] == "40,60,80,100"
    run = Run.load(out / table["run"].iloc[0])
    for name, value in score_model(run.model, data)[0].items():
        assert table[name].iloc[0] == pytest.approx(value, abs=1e-9), name


def test_the_orbit_mean_is_a_readout_of_the_same_training(done, data):
    out, table = done
    assert len(table) == 8 and table["run"].nunique() == 4
    mean = table[table["readout"] == "orbit-mean"]
    assert mean["flipped_bits"].max() < 1e-3 < table["flipped_bits"].max()
    row = mean.iloc[0]
    scores, _ = score_model(OrbitMean(Run.load(out / row["run"]).model), data)
    assert row["class_mean_map"] == pytest.approx(scores["class_mean_map"], abs=1e-9)


def test_query_scores_have_the_means_of_the_table(done):
    out, table = done
    for _, row in table.iterrows():
        queries = pd.read_csv(out / row["run"] / f"queries-{row['readout']}.csv.gz")
        means = queries.groupby("label").mean(numeric_only=True)
        for score in (*SCORES, "map", "class_mean_tie_aware_map_at_10"):
            column, balanced = query_column(score)
            mean = means[column].mean() if balanced else queries[column].mean()
            assert mean == pytest.approx(row[score], abs=1e-6), score


def test_the_table_says_what_chance_would_score_and_on_how_many_lesions(done, data):
    _, table = done
    query, database = (data.split(part).table for part in ("query", "database"))
    classes = query["label"].unique()
    shares = [(database["label"] == name).mean() for name in classes]
    assert table["chance_class_mean_precision_at_10"].tolist() == pytest.approx(
        [np.mean(shares)] * len(table)
    )
    lesions = query[query["label"] == classes[0]]["lesion_id"].nunique()
    assert set(table[f"lesions_{classes[0]}"]) == {lesions}
    orders = np.random.default_rng(0).permuted(np.tile(database["label"], (3000, 1)), axis=1)
    chance = np.mean([average_precision(orders == name).mean() for name in classes])
    assert table["chance_class_mean_map"][0] == pytest.approx(chance, abs=0.01)


def test_equal_scores_of_queries_are_equal_bytes(run, tmp_path):
    name = run({"seed": [0]})["run"][0]
    path = tmp_path / name / "queries-plain.csv.gz"
    before = path.read_bytes()
    assert before[:2] == bytes.fromhex("1f8b") and path.name.encode() not in before
    for file in (path, tmp_path / name / "result-plain.json"):
        file.unlink()
    run({"seed": [0]})
    assert path.read_bytes() == before


def test_a_readout_asked_for_later_needs_no_training(run, trained, tmp_path):
    run({"seed": [0]})
    (tmp_path / ".results.csv.42.part").touch()  # left by a process that was killed
    table = run({"seed": [0], "readout": ["plain", "orbit-mean"]})
    assert list(table["readout"]) == ["plain", "orbit-mean"]
    (tmp_path / table["run"][0] / ".queries-plain.csv.gz.42.part").touch()
    # Nor does the same run in another grid, which would give it another name.
    again = run({"seed": [0], "bits": [8]})
    assert again["run"].tolist() == table["run"].tolist()[:1] and trained == [0]
    assert not list(tmp_path.rglob("*.part"))


def test_scores_on_val_do_not_depend_on_the_queries(run, data, trained, tmp_path):
    table = run({"scored_on": ["val"]})
    assert list(table["scored_on"]) == ["val"]
    model = Run.load(tmp_path / table["run"][0]).model
    swapped = data.table.assign(split=data.table["split"].replace({"val": "query", "query": "val"}))
    scores, _ = score_model(model, LesionDataset(data.images, swapped, data.classes))
    for name, value in scores.items():
        assert table[name][0] == pytest.approx(value, abs=1e-9), name
    # The same run is not trained again to be scored on the queries in the end.
    both = run({"scored_on": ["val", "query"]})
    assert both["run"].nunique() == 1 and list(both["scored_on"]) == ["val", "query"]
    assert len(trained) == 1
    with pytest.raises(InputError, match="different queries"):
        compare(both, ["scored_on"], "map", {"scored_on": "val"}, tmp_path)


@pytest.mark.parametrize("order", [("val", "query"), ("query", "val")])
def test_val_and_queries_together_have_the_scores_of_each_alone(run, data, order, tmp_path):
    table = run({"scored_on": order, "readout": ["plain", "orbit-mean"]})
    model = Run.load(tmp_path / table["run"][0]).model
    for _, row in table.iterrows():
        read = OrbitMean(model) if row["readout"] == "orbit-mean" else model
        scores, _ = score_model(read, data, scored_on=row["scored_on"])
        for name, value in scores.items():
            assert row[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    assert len(table) == 4


def test_the_seconds_of_a_run_that_was_stopped_stay_empty(run, monkeypatch):
    train = grid_module.train

    def train_and_stop(*args, **kwargs):
        train(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(grid_module, "train", train_and_stop)
        run({"seed": [0]})
    assert run({"seed": [0]})["seconds"].isna().all()


# --- what a grid may hold -----------------------------------------------------------------------


def test_the_same_images_are_split_again(run, data, tmp_path):
    table = run({"split": ["given", "paper"], "seed": [0]})
    assert list(table["split"]) == ["given", "paper"] and table["data"].nunique() == 2
    queries = pd.read_csv(tmp_path / table["run"][1] / "queries-plain.csv.gz", dtype=str)
    expected = split_by_image(data.table, seed=0)
    assert set(queries["image"]) == set(expected.loc[expected["split"] == "query", "image"])


def test_several_grids_share_the_runs_they_have_in_common(run):
    table = run([{"invariance": [None, "cauchy"]}, {"invariance": [None], "disc": [False, True]}])
    assert list(table["invariance"]) == ["none", "cauchy", "none"]
    assert list(table["disc"]) == [False, False, True]
    assert settings_that_differ(table) == ["invariance", "disc"]


@pytest.mark.parametrize(
    ("grid", "settings", "sentence"),
    [
        ({"split": ["half"]}, {}, "split must be one of given, lesion, paper"),
        ({"readout": ["max"]}, {}, "readout must be one of plain, orbit-mean"),
        ({"scored_on": ["database"]}, {}, "scored_on must be one of query, val"),
        ({"database": ["new"]}, {}, "database must be one of full, trained, unseen"),
        ({"database": ["unseen"]}, {"scored_on": "val"}, "prepare the data with --unseen"),
        ({"weights": ["lost.pth"]}, {}, "no file of weights at lost.pth"),
        ({"attention": [None, "magic"]}, {}, "magic"),
        ({"backbone": ["resnet10", "resnet11"]}, {}, "resnet11"),
        ({"objective": ["classification", "x"]}, {}, "objective must be one of"),
        ({"colour": [1]}, {}, "colour"),
        ({"preset": ["x"]}, {}, "Unknown preset"),
        ({"seed": [0]}, {"jobs": 0}, "jobs must be 1 or more"),
    ],
)
def test_a_bad_setting_is_found_before_anything_is_trained(grid, settings, sentence, run, tmp_path):
    with pytest.raises(InputError, match=sentence):
        run(grid, **settings)
    assert not list(tmp_path.iterdir())


def test_an_empty_part_is_found_before_anything_is_trained(run, data, tmp_path):
    table = data.table.assign(split=data.table["split"].replace("val", "database"))
    with pytest.raises(InputError, match="val"):
        run({"seed": [0]}, LesionDataset(data.images, table, data.classes))
    assert not list(tmp_path.iterdir())


def test_torchrun_is_refused(run, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(InputError, match="run a grid with --jobs or --scheduler"):
        run({"seed": [0]})


@pytest.mark.parametrize("baseline", [[1], []])
def test_milestones_of_one_epoch_or_none_are_found_again_as_a_baseline(run, tmp_path, baseline):
    table = run({"milestones": [baseline, [2]]}, schedule="steps")
    found = compare(table, ["milestones"], "map", {"milestones": baseline}, tmp_path)
    assert found["milestones"].tolist() == ["2"]


# --- data and scores ----------------------------------------------------------------------------


def test_another_process_reads_the_images_from_a_file(data, tmp_path):
    function, arguments = SharedData(data, tmp_path / ".images").__reduce__()
    path, *rest = arguments
    stamp = path.stat().st_mtime_ns
    ours = function(*arguments).dataset
    assert torch.equal(ours.images, data.images) and torch.equal(ours.labels, data.labels)
    pd.testing.assert_frame_equal(ours.table, data.table)
    SharedData(ours, path).__reduce__()
    assert path.stat().st_mtime_ns == stamp  # written once
    with pytest.raises(InputError, match="on a disk that all workers share"):
        open_shared(tmp_path / "elsewhere", *rest)


class Upright(torch.nn.Module):
    """A code of two bits: is the top brighter than the bottom, is the image bright?"""

    def __init__(self, classes):
        super().__init__()
        self.classifier = torch.nn.Linear(2, classes)

    def forward(self, x):
        half = x.shape[-2] // 2
        top, bottom = x[..., :half, :].mean((1, 2, 3)), x[..., half:, :].mean((1, 2, 3))
        code = torch.stack([top - bottom, top + bottom], dim=1).sign() / 4 + 0.5
        return HashOutput(code, code)


def test_the_flips_of_a_model_worked_by_hand(data):
    """A half turn swaps top and bottom: the first bit flips, the second never does."""
    model = Upright(len(data.classes))
    scores = score_model(model, data)[0]
    pictures = data.split("query").images.float() / 127.5 - 1
    flips = []
    for k in (1, 2, 3):
        turned = torch.rot90(pictures, k, dims=(2, 3))
        flips.append(((model(turned).code > 0.5) != (model(pictures).code > 0.5)).float().mean())
    assert scores["flipped_bits"] == pytest.approx(float(np.mean(flips)), abs=1e-6)
    assert 0.2 < scores["flipped_bits"] < 0.5
