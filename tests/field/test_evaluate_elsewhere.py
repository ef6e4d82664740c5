"""A run evaluated on other people's folders: by its own classes, and without mixing up files."""

import numpy as np
import pandas as pd
import pytest
from helpers import CLASSES, color_data, tiny
from PIL import Image

from derm_hash.cli import main
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.manifest import read_manifest, write_manifest
from derm_hash.metrics import bootstrap_interval, query_scores
from derm_hash.model import encode
from derm_hash.retrieval import build_index
from derm_hash.runs import Run
from derm_hash.training import train

SPLITS = (["database"] * 3 + ["query"] * 2) * 6


def write_folder(root, names=None, seed=0, splits=SPLITS):
    """A data folder of coloured images, its classes renamed; without those that have no name."""
    data = color_data(seed, splits)
    names = dict(zip(CLASSES, CLASSES, strict=True)) if names is None else names
    (root / "images").mkdir(parents=True)
    for i, image in enumerate(data.images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / f"images/{i}.png")
    lesions = [f"{root.name}-{i // 4}" if i % 3 else "" for i in range(len(data))]
    table = data.table.assign(label=data.table["label"].map(names), lesion_id=lesions)
    write_manifest(table[table["label"].notna()], root)
    return root


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("field")
    home = write_folder(root / "home", splits=SPLITS[:-2] + ["val"] * 2)
    data = LesionDataset.from_folder(home, 32, progress=False)
    run = train(tiny(epochs=1), data, root / "runs", progress=False)
    return root, home, run.path


def evaluate(capsys, run, *options):
    code = main(["evaluate", "--run", str(run), *map(str, options)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def read(path):
    return pd.read_csv(path, index_col="score")


def test_trained_on_is_said_of_the_runs_own_data_alone(places, capsys):
    root, home, run = places
    said = "that the run was trained on, or has never seen"
    _, own, _ = evaluate(capsys, run, "--data", home)
    assert said in own
    unseen = read(run / "evaluation.csv").loc["class_mean_map", ["trained", "unseen"]]
    assert unseen.between(0, 1).all()
    other = write_folder(root / "alike", seed=3, splits=SPLITS[:-2] + ["val"] * 2)
    _, elsewhere, _ = evaluate(capsys, run, "--data", other)
    assert "class-mean mAP" in elsewhere and said not in elsewhere


def test_intervals_are_over_lesions_and_chance_is_that_of_a_random_order(places, capsys):
    _, home, run = places
    _, out, _ = evaluate(capsys, run, "--data", home)
    data, model = LesionDataset.from_folder(home, 32, progress=False), Run.load(run).model
    queries, database = data.split("query"), data.split("database")
    found = query_scores(build_index(model, database), encode(model, queries), queries.labels)
    lesions, labels = queries.table["lesion_id"], queries.labels.numpy()
    expected = bootstrap_interval(found["precision_at_10"], lesions, labels)
    table = read(run / "evaluation.csv")  # which the run's own data have
    assert set(table["database"]) == set(table["queries"]) == {str(home)}
    row = table.loc["class_mean_precision_at_10"]
    assert row[["value", "low", "high"]].tolist() == pytest.approx(expected, abs=1e-6)
    shares = [(database.labels == label).float().mean().item() for label in np.unique(labels)]
    assert row["chance"] == pytest.approx(np.mean(shares))
    assert f"{expected.low:.3f} to {expected.high:.3f}" in out
    unknown = (lesions == "").sum()
    known = lesions[lesions != ""].nunique()
    assert f"queries: {home} (images: {len(queries)}, lesions: {unknown + known})" in out
    assert f"database: {home} (images: {len(database)})" in out


@pytest.mark.parametrize("names", [{"MEL": "MEL", "NV": "NV"}, {"BCC": "bcc", "NV": "NV"}])
def test_a_folder_with_some_of_the_classes_is_scored_by_their_names(places, names, capsys):
    root, _, run = places
    other = write_folder(root / f"some-{'-'.join(names)}", names, seed=1)
    code, _, err = evaluate(capsys, run, "--data", other)
    assert code == 0, err
    table = read(run / f"evaluation-{other.name}.csv")
    counts = read_manifest(other).query("split == 'query'")["label"].value_counts()
    for name, own in names.items():
        assert table.loc[f"queries_{name}", "value"] == counts[own]
    assert not {f"queries_{name}" for name in CLASSES if name not in names} & set(table.index)


def test_classes_that_the_run_does_not_know_are_named(places, capsys):
    root, _, run = places
    other = write_folder(root / "unknown", {"MEL": "MEL", "NV": "VASC", "BCC": "DF"})
    for options in (("--data", other), ("--data", places[1], "--queries", other)):
        code, _, err = evaluate(capsys, run, *options)
        assert code == 2 and "unknown has images of DF, VASC, and" in err and "MEL, NV, BCC" in err


@pytest.mark.parametrize("splits", [[""] * 30, ["query"] * 30, ["database"] * 12 + ["query"] * 18])
def test_queries_of_another_folder_search_the_database_of_data(places, splits, capsys):
    root, home, run = places
    counts = len([split for split in splits if split != "database"])
    other = write_folder(root / f"hospital{counts}{splits[0]}", seed=2, splits=splits)
    code, out, err = evaluate(capsys, run, "--data", home, "--queries", other)
    assert code == 0, err
    assert f"database: {home} (images: 18)" in out
    assert f"queries: {other} (images: {counts}, " in out
    table = read(run / f"evaluation-{other.name}-in-home.csv")
    assert set(table["database"]) == {str(home)} and set(table["queries"]) == {str(other)}


def test_no_evaluation_takes_the_place_of_another_data_sets(places, capsys):
    root, home, run = places
    evaluate(capsys, run, "--data", home)
    own = (run / "evaluation.csv").read_bytes()
    folders = [write_folder(root / place / "clinic", seed=3 + i) for i, place in enumerate("ab")]
    for _ in range(2):  # the second time each finds its own file
        for folder in folders:
            assert evaluate(capsys, run, "--data", folder)[0] == 0
    files = sorted(path.name for path in run.glob("evaluation-clinic*.csv"))
    assert files == ["evaluation-clinic-2.csv", "evaluation-clinic.csv"]
    assert read(run / files[1])["database"].iloc[0] == str(folders[0])
    assert read(run / files[0])["database"].iloc[0] == str(folders[1])
    assert (run / "evaluation.csv").read_bytes() == own


def test_one_lesion_has_no_interval(places, capsys):
    root, _, run = places
    other = write_folder(root / "single", splits=["database"] * 9 + ["query"])
    code, out, err = evaluate(capsys, run, "--data", other)
    assert code == 0, err
    assert "lesions: 1)" in out and " to " not in out
