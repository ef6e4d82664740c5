"""Scores against databases that training has seen or not, from codes made by hand."""

import numpy as np
import pytest
import torch
from helpers import color_data

from derm_hash.experiments.scoring import Coded, database_positions, score_codes
from derm_hash.metrics.scores import evaluate_retrieval
from derm_hash.retrieval import HashIndex

PARTS = ["train"] * 12 + ["database"] * 6 + ["val"] * 3 + ["query"] * 6


@pytest.fixture
def data():
    return color_data(0, PARTS)


def one_hot(classes) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[classes]


def coded(data, memorised: bool) -> Coded:
    """Codes that are right on the trained images alone, or on all; queries do not move."""
    labels = data.labels.numpy()
    classes = np.where(data.table["split"].isin(["database"]), (labels + memorised) % 3, labels)
    codes = one_hot(classes)
    return Coded(codes, codes, np.repeat(codes[None, data.positions("query")], 4, axis=0))


def test_labels_learnt_by_heart_score_on_the_trained_database_alone(data):
    scores = {
        side: score_codes(coded(data, memorised=True), data, database=side)[0]
        for side in ("full", "trained", "unseen")
    }
    for side in ("full", "trained"):
        assert scores[side]["class_mean_map"] == scores[side]["database_accuracy"] == 1
    assert scores["unseen"]["database_accuracy"] == 0
    assert scores["unseen"]["class_mean_map"] < 0.5
    assert {scores[side]["accuracy"] for side in scores} == {1}
    assert scores["unseen"]["chance_class_mean_map"] == scores["trained"]["chance_class_mean_map"]


def test_scores_are_those_of_an_index_of_these_images(data):
    torch.manual_seed(0)
    codes = torch.rand(len(data), 8).numpy()
    queries = data.positions("query")
    made = Coded(codes, None, np.repeat(codes[None, queries], 4, axis=0))
    labels = data.labels.numpy()
    for side in ("full", "trained", "unseen"):
        rows = database_positions(data, side)
        index = HashIndex.build(codes[rows], labels[rows], data.table.iloc[rows], data.classes)
        wanted = evaluate_retrieval(index, codes[queries], labels[queries])
        scores, table = score_codes(made, data, database=side)
        assert {name: scores[name] for name in wanted} == wanted
        assert len(table) == len(queries) and (table["flipped_bits"] == 0).all()


def test_an_old_folder_has_the_database_it_trained_on_and_val(data):
    old = color_data(0, ["database"] * 12 + ["val"] * 6 + ["query"] * 3)
    assert set(database_positions(old, "full")) == set(range(12))
    assert set(database_positions(old, "trained")) < set(range(12))
    assert set(database_positions(old, "unseen")) == set(range(12, 18))
