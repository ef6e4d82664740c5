"""The two training parts of the comparison differ in lesion-mates alone."""

import numpy as np
import pandas as pd
import torch

from benchmarks import lesion_mates
from derm_hash.data.dataset import LesionDataset


def by_image() -> pd.DataFrame:
    """A manifest of ten classes with 18 images each, most lesions on two, split by image."""
    rng = np.random.default_rng(0)
    parts = np.repeat(["train", "val", "query"], [4, 11, 3])
    number = np.arange(180)
    lesion = np.where(number % 6 < 4, number // 2, 1000 + number)  # some have one image
    return pd.DataFrame(
        {
            "image": [f"{i}.jpg" for i in number],
            "lesion_id": [f"L{i}" for i in lesion],
            "label": [f"class {i}" for i in number // 18],
            "split": np.concatenate([rng.permutation(parts) for _ in range(10)]),
        }
    )


def test_the_other_training_part_has_the_same_classes_and_no_lesion_of_a_query():
    table = by_image()
    assert lesion_mates.has_mate(table).any()
    drawn = [lesion_mates.without_mates(table, seed) for seed in (0, 0, 1)]
    for other in drawn:
        assert not lesion_mates.has_mate(other).any()
        assert (other["split"] == "query").equals(table["split"] == "query")
        own, rival = (t[t["split"] == "train"]["label"].value_counts() for t in (table, other))
        pd.testing.assert_series_equal(own, rival)
    assert drawn[0].equals(drawn[1]) and not drawn[0].equals(drawn[2])


def test_a_mate_with_the_same_features_helps_its_query_and_nobody_else(tmp_path, monkeypatch):
    monkeypatch.setattr(lesion_mates, "SEEDS", 2)
    monkeypatch.setattr(lesion_mates, "METHODS", {"features": None})
    table = by_image()
    # A lesion has features of its own, which say nothing of its class.
    rng = np.random.default_rng(0)
    of_lesion = {name: rng.random(8) for name in table["lesion_id"].unique()}
    features = np.stack([of_lesion[name] for name in table["lesion_id"]])[None].repeat(4, axis=0)
    data = LesionDataset(torch.zeros(len(table), 3, 4, 4, dtype=torch.uint8), table)
    lesion_mates.ask(data, features, tmp_path)
    found = lesion_mates.summary(tmp_path).set_index(["score", "queries", "class"])
    gain = found["difference"].loc["ap"].unstack()["mean"]
    assert gain["with a mate"] > 0.1
    assert abs(gain["others"]) < gain["with a mate"] / 2
    classes = found.loc["ap"].loc["all"].filter(like="class", axis=0)
    assert np.isclose(classes["mean"].mean(), found.loc[("ap", "all", "mean"), "mean"])
