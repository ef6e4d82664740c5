"""Experiment files: what they hold, and one sentence for each mistake."""

import inspect

import pytest

from derm_hash.course import course_data
from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError
from derm_hash.experiments.file import DATA_KINDS, read_experiment
from derm_hash.experiments.plan import plan

GRID = "[data]\n[grid]\nseed = [0]\n"
TRAIN = GRID + "[train]\n"


def test_none_in_a_file_is_none_where_a_setting_may_be_none(tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text(
        '[data]\nsource = "atlas"\n[grid]\ninvariance = ["none", "cauchy"]\n'
        '[train]\nattention = "none"\nclass_weights = "none"\n'
    )
    data, grid, shared, baseline, planned_seeds = read_experiment(file)
    assert baseline == {} and planned_seeds is None
    assert data == {"source": "atlas"} and grid == {"invariance": [None, "cauchy"]}
    assert shared == {"attention": None, "class_weights": "none"}


def test_the_planned_number_of_seeds_stands_above_the_tables(tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text("planned_seeds = 3\n" + GRID)
    assert read_experiment(file).planned_seeds == 3


def test_data_holds_the_arguments_of_course_data():
    arguments = inspect.signature(course_data).parameters.values()
    assert {each.name: each.annotation for each in arguments} == DATA_KINDS


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[data", "not valid TOML"),
        ("[data]\n", r"no \[grid\] table"),
        ("[data]\ngrid = []\n", r"no \[grid\] table"),
        ("[grid]\nseed = [0]\n", r"no \[data\] table"),
        ("[data]\n[grid]\nseed = 1\n", "seed in the .* must be a list"),
        ("[data]\n[[grid]]\nseed = [0]\n[[grid]]\nseed = []\n", "seed in the .* must be a list"),
        (GRID + "[baseline]\nsed = 0\n", "sed in the .* must be one of preset, split"),
        (GRID + "[baseline]\nseed = 0\n", "seed in the .* must be one of"),
        (GRID + "[baseline]\nbits = '8'\n", r"bits in the \[baseline\] of .* number, not '8'"),
        ("[data]\nsorce = 1\n[grid]\nseed = [0]\n", "sorce in the .* one of source, size, images"),
        ('[data]\nsize = "32"\n[grid]\nseed = [0]\n', r"size in the \[data\] of .* not '32'"),
        ("[data]\n[grid]\nout = [1]\n", r"out in the \[grid\] of .* must be one of"),
        ('[data]\n[grid]\nbits = [8, "16"]\n', r"bits in the \[grid\] of .* number, not '16'"),
        ("planned_seeds = '3'\n" + GRID, "planned_seeds in .* a whole number, not '3'"),
        ("planned_seeds = true\n" + GRID, "planned_seeds in .* a whole number, not True"),
        ("planned_seeds = 0\n" + GRID, "planned_seeds in .* must be 1 or more, not 0"),
        (TRAIN + "jobs = 2\n", r"jobs in the \[train\] of .* must be one of"),
        (TRAIN + 'epochs = "1"\n', r"epochs in the \[train\] of .* a whole number, not '1'"),
        (TRAIN + "epochs = true\n", r"epochs in the \[train\] of .* a whole number, not True"),
        (TRAIN + "milestones = 1\n", "milestones in the .* must be whole numbers, not 1"),
        (GRID + "[tain]\nepochs = 1\n", "'tain'.*data, grid, train, baseline.*did you mean train"),
        (GRID + "[Train]\nepochs = 1\n", "'Train'.*did you mean train"),
        (GRID + "[settings]\nepochs = 1\n", "'settings'.*train, baseline, planned_seeds$"),
        ("[data]\n[[grids]]\nseed = [1]\n[grid]\nseed = [0]\n", "'grids'.*did you mean grid"),
        ("epochs = 1\n" + GRID, "'epochs'"),
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
    [
        ("smoke", 8),
        ("ham10000", 24),
        ("equal-passes", 40),
        ("frozen-tuning", 78),
        ("fine-tuned", 15),
        ("budget", 27),
        ("presets", 12),
    ],
)
def test_the_experiments_that_come_with_the_kit_are_valid(name, runs, request, data, tmp_path):
    file = request.config.rootpath / "benchmarks" / "configs" / f"{name}.toml"
    experiment = read_experiment(file)
    assert experiment.data["source"]
    settings = {"preset": "recommended"} | experiment.train
    table = data.table.copy()  # with a database that training does not see
    table.loc[table.index[table["split"] == "database"][::2], "split"] = "train"
    data = LesionDataset(data.images, table, data.classes)
    plans, wanted = plan(experiment.grid, data, tmp_path, settings)
    assert len(plans) == runs and len(set(wanted)) >= runs
    assert experiment.planned_seeds >= 2
    assert len({plan.config.seed for plan in plans}) >= 2
