"""The folder of a run: what it holds, who may write to it, and how it is read."""

import dataclasses
import json

import pandas as pd
import pytest
from helpers import CLASSES, RUN_FILES, assert_same_run, color_data, tiny, train_quietly

from derm_hash.errors import InputError
from derm_hash.runs import Run, best_epoch, load_model

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_folder_holds_the_config_the_metrics_and_the_models(finished, data):
    names = RUN_FILES
    assert {p.name for p in finished.path.iterdir()} == names
    about = json.loads((finished.path / "config.json").read_text())
    assert about["config"] == dataclasses.asdict(tiny()) | {"milestones": [40, 60, 80, 100]}
    assert about["data"]["classes"] == list(CLASSES)
    assert about["data"]["size"] == 32
    table = pd.read_csv(finished.path / "metrics.csv")
    assert set(table.columns) == {
        "epoch",
        "cross_entropy",
        "invariance",
        "loss",
        "val_precision_at_10",
        "lr",
    }
    assert table["epoch"].tolist() == [1, 2]
    pd.testing.assert_frame_equal(table, finished.history)
    total = table["cross_entropy"] + 0.5 * table["invariance"]
    # By the second of two epochs the weight of the invariance has risen to its 0.5.
    assert table["cross_entropy"][0] < table["loss"][0] < total[0]
    assert table["loss"][1] == pytest.approx(total[1], rel=1e-6)
    model = load_model(finished.path)
    assert (model.class_names, model.image_size, model.bits) == (CLASSES, 32, 8)


def test_a_run_is_loaded_as_it_was_returned(finished):
    again = Run.load(str(finished.path))
    assert again.config == finished.config == tiny()
    assert_same_run(again, finished)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed was 0"),
        ({"bits": 16}, "bits was 8"),
        ({"epochs": 3, "invariance": None}, "epochs was 2|invariance was 'cauchy'"),
    ],
)
def test_another_config_in_the_same_folder_is_refused(finished, data, changes, named):
    before = (finished.path / "config.json").read_bytes()
    for sentence in named.split("|"):
        with pytest.raises(InputError, match=sentence) as error:
            train_quietly(tiny(**changes), data, finished.path.parent)
    assert str(finished.path) in str(error.value)
    assert "choose another name, or delete that folder" in str(error.value)
    assert (finished.path / "config.json").read_bytes() == before


def test_other_data_in_the_same_folder_is_refused(finished):
    with pytest.raises(InputError, match="the data's fingerprint differs"):
        train_quietly(tiny(), color_data(seed=1), finished.path.parent)
    other_split = ["database"] * 27 + ["val"] * 9 + ["query"] * 4
    with pytest.raises(InputError, match="the data's fingerprint differs"):
        train_quietly(tiny(), color_data(splits=other_split), finished.path.parent)


@pytest.mark.parametrize("config", ["", "{}", '{"config": {"epoch": 1}, "data": {}}', "[]"])
def test_a_config_file_that_cannot_be_read_is_refused(finished, data, tmp_path, config):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(config)
    (tmp_path / "tiny" / "metrics.csv").write_text("epoch\n1\n")
    for act in (lambda: train_quietly(tiny(), data, tmp_path), lambda: Run.load(tmp_path / "tiny")):
        with pytest.raises(InputError, match="is not the config of a run"):
            act()


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no finished epoch"):
        Run.load(tmp_path)


def test_on_a_tie_the_later_epoch_is_the_best():
    history = pd.DataFrame({"epoch": [1, 2, 3, 4], "val_precision_at_10": [0.5, 0.75, 0.75, 0.6]})
    assert best_epoch(history)["epoch"] == 3
