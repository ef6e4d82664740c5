"""Questions that a label cannot answer, asked of systems whose answers are known."""

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import questions
from benchmarks.questions import (
    TRAINED,
    UNSEEN,
    Material,
    Part,
    another_hospital,
    answers,
    groups_of,
    leakage,
    read_criteria,
    shared_criteria,
    subgroups,
    unseen_classes,
    with_chance,
)
from benchmarks.systems import HEADS, METHODS, head_config, same
from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError
from derm_hash.experiments.file import read_experiment
from derm_hash.experiments.plan import points_of
from derm_hash.experiments.questions import summary
from derm_hash.settings import TrainConfig

LABELS = (*TRAINED, *UNSEEN)
WIDTH = 24
SPLITS = ["train"] * 5 + ["database"] * 3 + ["val"] + ["query"] * 3


def features_of(labels, seed):
    """Features (4, n, F) >= 0, equal under rotation: a place for each class, and noise."""
    noise = np.random.default_rng(seed).random((len(labels), WIDTH)) * 0.3
    noise[np.arange(len(labels)), [LABELS.index(label) for label in labels]] += 1
    return np.repeat(noise[None], 4, axis=0).astype(np.float16)


@pytest.fixture
def material():
    labels = np.repeat(LABELS, len(SPLITS))
    table = pd.DataFrame({"image": [f"images/{i}.png" for i in range(len(labels))]})
    lesions = [f"lesion {i // 2}" for i in range(len(labels))]  # of two images each
    columns = {"sex": ["male", "female"] * (len(labels) // 2), "localization": "back"}
    columns["age"] = ["30.0", "40.0", "60.0", "75.0", "", "35.0"] * (len(labels) // 6)
    table = table.assign(label=labels, split=SPLITS * len(LABELS), lesion_id=lesions, **columns)
    data = LesionDataset(torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8), table)
    elsewhere = pd.DataFrame({"image": [f"{i}.png" for i in range(14)], "label": LABELS * 2})
    hospital = Part(elsewhere.assign(lesion_id=""), features_of(LABELS * 2, 2))
    shown = np.tile(np.eye(2, dtype=int), (6, 1))
    unlabelled = pd.DataFrame({"duplicate_group": ["", "a", "", "a", *[""] * 8], "label": ""})
    criteria = Part(unlabelled, features_of(["MEL", "NV"] * 6, 3))
    return Material(data, features_of(labels, 1), hospital, criteria, shown, ("dots", "streaks"))


def ap_by_chance(total, relevant):
    """Expected average precision if all images tie.

    A relevant image is at each rank with equal probability, and of the images before it the share
    (relevant - 1) / (total - 1) is relevant.
    """
    before = np.arange(total)
    return np.mean((1 + before * (relevant - 1) / (total - 1)) / (before + 1))


def by_score(rows):
    return {row["score"]: row for row in rows}


@same
def perfect(x):
    """The class of each image, as the features show it."""
    return np.eye(len(LABELS))[x[0, :, : len(LABELS)].argmax(axis=1)]


@same
def known_classes(x):
    """The class among those that were trained on; all others look alike."""
    return np.eye(5)[np.minimum(x[0, :, : len(LABELS)].argmax(axis=1), 4)]


@same
def constant(x):
    return np.zeros((x.shape[1], 1))


def test_a_system_that_lumps_unseen_classes_together_cannot_tell_them_apart(material):
    scores = by_score(unseen_classes(perfect, material))
    assert scores["unseen_class_map"]["value"] == scores["trained_class_map"]["value"] == 1
    scores = by_score(unseen_classes(known_classes, material))
    assert scores["trained_class_map"]["value"] == 1
    assert scores["unseen_class_map"]["value"] == pytest.approx(
        np.mean([scores[f"map_{label}"]["value"] for label in UNSEEN])
    )
    assert scores["unseen_class_map"]["value"] == pytest.approx(ap_by_chance(9, 3))
    assert scores["unseen_class_map"]["n"] == 9 and scores["trained_class_map"]["n"] == 12


def test_criteria_are_searched_without_the_image_and_its_near_duplicates(material):
    scores = by_score(shared_criteria(perfect, material))
    assert scores["criteria_map"]["value"] == scores["map_dots"]["value"] == 1
    assert scores["ndcg_at_10"]["value"] == pytest.approx(1)
    scores = by_score(shared_criteria(constant, material))
    assert scores["map_dots"]["value"] == pytest.approx(ap_by_chance(11, 5))
    # Two of the six images with streaks are near-duplicates of each other.
    wanted = (4 * ap_by_chance(11, 5) + 2 * ap_by_chance(10, 4)) / 6
    assert scores["map_streaks"]["value"] == pytest.approx(wanted)


def test_another_hospital_is_asked_for_the_trained_classes_alone(material):
    scores = by_score(another_hospital(perfect, material))
    assert scores["class_mean_map"]["value"] == 1 and scores["class_mean_map"]["n"] == 8
    # The database has three images of each class.
    assert scores["class_mean_precision_at_10"]["value"] == pytest.approx(0.3)


def test_leakage_is_the_difference_that_the_own_lesion_makes(material):
    rng = np.random.default_rng(0)
    place = {}

    def own_lesion(x):
        """A code for each pair of neighbours in the data: the lesion; the class does not count."""
        return np.stack([place.setdefault(row.tobytes(), rng.random(8)) for row in x[0]])

    data, features = questions.split_for_leakage(material)
    for first in range(0, len(data), 2):
        features[:, first + 1] = features[:, first]  # images of a lesion look alike
    looks_alike = material._replace(
        data=LesionDataset(data.images, material.trained[0].table, data.classes), features=features
    )
    scores = by_score(leakage(same(own_lesion), looks_alike))
    queries = data.table[data.table["split"] == "query"]
    database = set(data.table[data.table["split"] == "database"]["lesion_id"])
    assert scores["class_mean_map_with"]["n"] == queries["lesion_id"].isin(database).sum() > 0
    for name in ("class_mean_map", "class_mean_precision_at_10"):
        parts = [scores[f"{name}_{side}"]["value"] for side in ("with", "without", "difference")]
        assert parts[0] - parts[1] == pytest.approx(parts[2])
    assert scores["class_mean_map_difference"]["value"] > 0.1
    assert scores["class_mean_map_difference"]["low"] <= scores["class_mean_map_difference"]["high"]


def test_subgroups_have_counts_and_small_ones_are_marked(material):
    rows = pd.DataFrame(subgroups(perfect, material)).set_index(["kind", "group"])
    queries = material.part("query", TRAINED).table
    assert rows.loc[("body site", "back"), "n"] == len(queries)
    assert rows.loc[("sex", "male"), "n"] + rows.loc[("sex", "female"), "n"] == len(queries)
    assert rows.loc[("body site", "back"), "lesions"] == queries["lesion_id"].nunique()
    assert rows["few_lesions"].all() and np.allclose(rows["value"], 0.3)


def test_ages_of_forty_and_sixty_are_in_the_middle_group():
    table = pd.DataFrame({"age": ["39.0", "40.0", "60.0", "61", ""]})
    found = groups_of(table.assign(localization="", sex="male"))
    assert found["age"].tolist() == ["below 40", "40 to 60", "40 to 60", "above 60", "unknown"]
    assert set(found["body site"]) == {"unknown"}


@pytest.mark.parametrize(
    "method", ["ITQ", "head, four copies, Cauchy", "head, upright, orbit mean"]
)
def test_a_method_is_fitted_on_the_trained_classes_and_answers_every_question(
    method, material, monkeypatch
):
    monkeypatch.setitem(HEADS, method, HEADS.get(method, {}) | {"batch_size": 4})
    changed = material.features.copy()
    unseen = material.data.table["label"].isin(UNSEEN) & (material.data.table["split"] == "train")
    changed[:, unseen] = 0  # what training must not look at
    tables = [
        answers(method, 0, material._replace(features=x)) for x in (material.features, changed)
    ]
    assert set(tables[0]["question"]) == set(questions.QUESTIONS)
    pd.testing.assert_frame_equal(*tables)


def test_known_classes_find_what_the_probe_knows_and_nothing_else(material):
    table = answers("known class", 0, material).set_index(["question", "score"])["value"]
    assert "shared criteria" not in table  # images without diagnoses
    assert table["unseen classes", "trained_class_map"] > 0.9
    # A query of an unseen class is given a trained one, whose three images come first.
    last = ap_by_chance(18, 3)
    assert table["unseen classes", "unseen_class_map"] < last < 1


def test_heads_have_the_settings_of_the_experiment_with_frozen_features(pytestconfig):
    path = pytestconfig.rootpath / "benchmarks" / "configs" / "frozen.toml"
    experiment = read_experiment(path)
    planned = set()
    for point in points_of(experiment.grid, experiment.train):
        if "system" not in point:
            fields = {key: v for key, v in point.items() if key not in ("readout", "database")}
            fields["invariance"] = fields.get("invariance") or "none"
            fields = {key: None if v == "none" else v for key, v in fields.items()}
            planned.add(TrainConfig.preset("recommended", **fields))
    for method in HEADS:
        assert {head_config(method, seed) for seed in range(METHODS[method])} <= planned


def test_a_stopped_run_goes_on_and_chance_stands_beside_every_score(
    material, tmp_path, monkeypatch
):
    few = {"chance": 1, "LSH": 2}
    monkeypatch.setattr(questions, "METHODS", few)
    questions.ask(material, tmp_path)
    (tmp_path / "parts" / "LSH-1.csv").unlink()
    first = (tmp_path / "parts" / "LSH-0.csv").stat().st_mtime_ns
    before = (tmp_path / "questions.csv").read_bytes()
    questions.ask(material, tmp_path)
    assert (tmp_path / "parts" / "LSH-0.csv").stat().st_mtime_ns == first
    assert (tmp_path / "questions.csv").read_bytes() == before
    table = pd.read_csv(tmp_path / "questions.csv")
    assert set(table["method"]) == {"LSH"} and table["chance"].notna().all()
    assert not any("images/" in line for line in (tmp_path / "subgroups.csv").open())
    means = summary(table).reset_index()
    assert (means["seeds"] == 2).all() and len(means) * 2 == len(table)
    groups = summary(pd.read_csv(tmp_path / "subgroups.csv")).reset_index()
    assert set(groups["group"]) >= {"back", "male", "female", "unknown"}


def test_a_summary_has_the_t_interval_over_seeds():
    table = pd.DataFrame({"method": ["a"] * 3 + ["b"], "value": [0.1, 0.2, 0.3, 0.5]})
    fixed = {"question": "q", "score": "s", "low": 0.0, "high": 1.0, "chance": 0.1, "n": 9}
    found = summary(table.assign(**fixed)).loc[("q", "s")]
    half = 4.302653 * 0.1 / np.sqrt(3)  # the quantile of t with two degrees of freedom
    assert found.loc["a", ["mean", "seed_low", "seed_high"]].tolist() == pytest.approx(
        [0.2, 0.2 - half, 0.2 + half]
    )
    assert found.loc["b", "mean"] == 0.5 and np.isnan(found.loc["b", "seed_low"])


def test_chance_is_that_of_the_same_group():
    rows = [("chance", "x", 0.3), ("chance", "y", 0.4), ("LSH", "y", 0.5), ("LSH", "x", 0.6)]
    table = pd.DataFrame(rows, columns=["method", "group", "value"]).assign(
        question="q", kind="k", score="s"
    )
    assert with_chance(table)["chance"].tolist() == [0.4, 0.3]


def test_criteria_are_matched_by_the_name_of_the_image(tmp_path):
    path = tmp_path / "criteria.csv"
    path.write_text("image,dots,streaks\nb,0,1\n007,1,1\n")
    shown, names = read_criteria(path, pd.Series(["images/007.jpg", "images/b.png"]))
    assert shown.tolist() == [[1, 1], [0, 1]] and names == ("dots", "streaks")
    with pytest.raises(
        InputError, match=r"criteria\.csv has no row for 1 of the images, such as c"
    ):
        read_criteria(path, pd.Series(["c.png", "b.png"]))
    path.write_text("name,dots\nb,0\n")
    with pytest.raises(InputError, match="has no row for 1 of the images, such as b"):
        read_criteria(path, pd.Series(["b.png"]))
