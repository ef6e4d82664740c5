"""Experiments: nothing is done twice, and the table says what was measured."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from derm_hash import experiments
from derm_hash.data import LesionDataset
from derm_hash.errors import InputError
from derm_hash.experiments import evaluate_run, read_experiment, run_grid, summary
from derm_hash.synthetic import make_atlas
from derm_hash.training import Run, TrainConfig

TINY = {"backbone": "resnet10", "bits": 8, "epochs": 1, "batch_size": 16}


@pytest.fixture(scope="module")
def data():
    return LesionDataset.from_atlas(make_atlas(48, 32, progress=False), query=0.25, val=0.2)


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
    data, grid, shared = read_experiment(file)
    assert data == {"source": "atlas"} and grid == {"invariance": [None, "cauchy"]}
    assert shared == {"attention": None, "class_weights": "none"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[data", "not valid TOML"),
        ("[data]\n", r"no \[grid\] table"),
        ("[data]\n[grid]\nseed = 1\n", "seed in the .* must be a list"),
    ],
)
def test_a_bad_experiment_file_gets_one_sentence(tmp_path, text, sentence):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_experiment(file)


def test_a_missing_experiment_file_gets_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no experiment file"):
        read_experiment(tmp_path / "absent.toml")


@pytest.mark.parametrize("name", ["smoke", "ham10000"])
def test_the_experiments_that_come_with_the_kit_are_valid(name, request):
    data, grid, shared = read_experiment(
        request.config.rootpath / "benchmarks" / "configs" / f"{name}.toml"
    )
    for field, values in grid.items():
        for value in values:
            TrainConfig.preset("recommended", **(shared | {field: value}))
    assert data["source"]
