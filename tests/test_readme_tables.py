"""The README's tables are those of the stored results."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import tables
from derm_hash.experiments.comparisons import read_queries
from derm_hash.experiments.headline import headline, named_layers
from derm_hash.experiments.results import read_results


@pytest.fixture(scope="module")
def results():
    return read_results(tables.FROZEN)


@pytest.mark.parametrize("name", tables.TABLES)
def test_the_readme_has_the_table_of_the_stored_results(name):
    assert tables.TABLES[name]() in tables.README.read_text("utf-8")


def test_a_stored_score_is_the_class_mean_of_its_stored_queries(results):
    for _, run in named_layers(results).groupby("name").head(1).iterrows():
        queries = read_queries(tables.FROZEN, run, "ap")
        mean = queries.groupby("label")["ap"].mean().mean()
        assert mean == pytest.approx(run["class_mean_map"], abs=1e-5)


def test_a_row_is_the_mean_over_the_seeds_of_its_runs():
    rows = [
        {"system": "LSH", "database": side, "seed": seed, "class_mean_tie_aware_map": value}
        for side, values in {"trained": (0.2, 0.4), "unseen": (0.1, 0.1)}.items()
        for seed, value in enumerate(values)
    ]
    rest = {"class_mean_map": np.nan, "flipped_bits": 0.25, "overlap_at_10": 0.5}
    columns = ("invariance", "classify", "random_rotations", "orbit_sample", "objective", "readout")
    frame = pd.DataFrame(rows).assign(**rest, **dict.fromkeys(columns, ""), bits=16)
    asked = {
        "method": "LSH",
        "seed": (0, 1),
        "score": "ndcg_at_10",
        "value": (0.5, 0.6),
        "chance": 0.4,
    }
    table = headline(frame.assign(chance_class_mean_map=0.25), pd.DataFrame(asked))
    assert list(table.loc["LSH"]) == [
        *(
            "0.300 ± 0.141",
            "0.100 ± 0.000",
            "0.550 ± 0.071",
            "25.0 ± 0.0 %",
            "0.50 ± 0.00",
            "16",
            "1",
            "2",
        )
    ]
