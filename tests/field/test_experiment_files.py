"""Experiment files with a name that nobody reads: it is refused, and the likely name is given."""

import pytest

from derm_hash.errors import InputError
from derm_hash.experiments.file import read_experiment

FILE = '[data]\nsource = "atlas"\n[grid]\nseed = [0]\n'


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ("[tain]\nepochs = 1\n", "'tain'.*data, grid, train, baseline.*did you mean train"),
        ("[Train]\nepochs = 1\n", "'Train'.*did you mean train"),
        ("[settings]\nepochs = 1\n", "'settings'.*data, grid, train, baseline, planned_seeds$"),
        ("[[grids]]\nseed = [1]\n", "'grids'.*did you mean grid"),
    ],
)
def test_an_unknown_table_is_named_with_the_likely_one(tmp_path, extra, sentence):
    path = tmp_path / "grid.toml"
    path.write_text(FILE + extra)
    with pytest.raises(InputError, match=sentence):
        read_experiment(path)


def test_a_setting_above_all_tables_is_refused(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text("epochs = 1\n" + FILE)
    with pytest.raises(InputError, match="'epochs'"):
        read_experiment(path)
