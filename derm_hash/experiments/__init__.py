"""Experiments: run a grid of settings and seeds, collect one tidy table, compare settings."""

from derm_hash.experiments.comparisons import compare, differences, score_table
from derm_hash.experiments.file import read_experiment
from derm_hash.experiments.grid import run_grid
from derm_hash.experiments.results import (
    mean_and_spread,
    read_csv,
    read_results,
    run_name,
    settings_that_differ,
    table_notes,
)
from derm_hash.experiments.scoring import score_model
