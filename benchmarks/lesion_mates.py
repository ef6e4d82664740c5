"""What a test image gains from another photograph of its lesion in the training part.

The plan, written before the first run. The authors of ECL split the images of HAM10000 (ISIC 2018
Task 3) by image, so a third of their test images show a lesion that training has seen. All methods
are trained twice and tested on the same published test images:

- ``published``: on the published training part;
- ``no mates``: on as many images of each class, drawn at random for each seed from the published
  training and val parts, but without any lesion of the test part.

So sizes, classes and test images are equal. What differs besides the mates was counted afterwards:
images of lesions with several photographs are 45 % of the published part and 38 % of the other.

The methods are heads on frozen features, as in configs/long-tail.toml, with plain cross-entropy and
with inverse weights, and the features themselves; ten seeds. The difference is reported as a mean
over classes and for each class: for all test images, for those that have a mate in the published
training part, and for the others. The others are the control: they should not change.

``python -m benchmarks.lesion_mates --data HAM7 --splits FOLDER`` writes ``lesion-mates.csv``. A
stopped run goes on: each method and seed has a file of its own in OUT/parts.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from benchmarks.questions import SIZE, TO_WRITE
from benchmarks.ranked import label_scores
from benchmarks.systems import BACKBONE, WEIGHTS
from derm_hash.data.dataset import LesionDataset
from derm_hash.experiments.grid import commit
from derm_hash.experiments.results import read_csv
from derm_hash.files import write_atomically
from derm_hash.frozen import frozen_features, head_codes, train_head
from derm_hash.metrics.intervals import compare_runs
from derm_hash.settings import TrainConfig

SEEDS = 10
PARTS = ("train", "val", "query")  # the published files are called train, val and test
METHODS = {"cross-entropy": "none", "inverse weights": "inverse", "features": None}
"""Name -> class weights of the head; "features" are searched as they are."""
SCORES = ("correct", "ap", "precision_at_10")
HEAD = {"frozen": True, "backbone": BACKBONE, "weights": WEIGHTS, "attention": None}
HEAD |= {"invariance": None, "orbit_sample": 2, "epochs": 16, "learning_rate": 0.003}


def without_mates(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Draw another training part: as many images of each class, no lesion of the part query.

    ``table`` is a manifest with the published split, of which every image outside the query part
    may be drawn. Those that are not drawn are in no part.
    """
    tested = table.loc[table["split"] == "query", "lesion_id"]
    free = table[(table["split"] != "query") & ~table["lesion_id"].isin(tested)]
    counts = table.loc[table["split"] == "train", "label"].value_counts()
    drawn = np.concatenate(
        [
            images.sample(counts[label], random_state=seed).index
            for label, images in free.groupby("label")
        ]
    )
    split = table["split"].where(table["split"] == "query", "")
    split[drawn] = "train"
    return table.assign(split=split)


def has_mate(table: pd.DataFrame) -> pd.Series:
    """Whether the lesion of each query is in the part train as well: bool, indexed as the table."""
    queries = table[table["split"] == "query"]
    return queries["lesion_id"].isin(table.loc[table["split"] == "train", "lesion_id"])


def query_scores(
    method: str, seed: int, data: LesionDataset, features: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores (Q,) of every query of a method that is trained on the part train, which it searches.

    ``features`` (4, N, F) belong to the N images of the data.
    """
    queries, database = data.positions("query"), data.positions("train")
    labels, scores = data.labels.numpy(), {}
    codes = features[0].astype(np.float32)
    if METHODS[method] is not None:
        config = TrainConfig(seed=seed, class_weights=METHODS[method], **HEAD)
        hash_layer, classifier, _ = train_head(config, data, features)
        codes = head_codes(hash_layer, features, orbit_mean=False)[0]
        with torch.no_grad():
            predicted = classifier(torch.from_numpy(codes[queries])).argmax(dim=1).numpy()
        scores["correct"] = (predicted == labels[queries]) * 1.0
    relevant = labels[queries][:, None] == labels[database]
    found = label_scores(codes[queries], codes[database], relevant)
    return scores | {name: found[name].to_numpy() for name in found}


def ask(data: LesionDataset, features: np.ndarray, parts: Path) -> None:
    """Train and test every method and seed that has no file yet."""
    parts.mkdir(parents=True, exist_ok=True)
    queries = data.table.iloc[data.positions("query")]
    about = queries[["image", "lesion_id", "label"]].assign(mate=has_mate(data.table))
    for seed in tqdm(range(SEEDS), "seeds"):
        other = LesionDataset(data.images, without_mates(data.table, seed), data.classes)
        for method in METHODS:
            path = parts / f"{method}-{seed}.csv"
            if path.exists():
                continue
            columns = {
                f"{name} {score}": values
                for name, trained in {"published": data, "no mates": other}.items()
                for score, values in query_scores(method, seed, trained, features).items()
            }
            table = about.assign(**columns)
            write_atomically(path, lambda part, table=table: table.to_csv(part, **TO_WRITE))


def summary(parts: Path) -> pd.DataFrame:
    """Compare the two training parts: a row for each method, score, group of queries and class.

    The columns are method, score, queries ("all", "with a mate", "others"), class ("mean" of all
    classes, or one of them), n (queries), lesions, and the fields of
    :class:`derm_hash.metrics.intervals.Comparison`, whose baseline is "no mates".
    """
    rows = []
    for method in METHODS:
        tables = [read_csv(parts / f"{method}-{seed}.csv") for seed in range(SEEDS)]
        mate = tables[0]["mate"]
        groups = {"all": mate | True, "with a mate": mate, "others": ~mate}
        for score in [name for name in SCORES if f"published {name}" in tables[0]]:
            own, rival = (
                np.stack([table[f"{side} {score}"] for table in tables])
                for side in ("published", "no mates")
            )
            for group, chosen in groups.items():
                for label in ("mean", *sorted(set(tables[0]["label"]))):
                    here = chosen if label == "mean" else chosen & (tables[0]["label"] == label)
                    if not here.any():
                        continue
                    about = tables[0][here]
                    pairs = own[:, here], rival[:, here], about["lesion_id"], about["label"]
                    row = {"method": method, "score": score, "queries": group, "class": label}
                    row |= {"n": len(about), "lesions": about["lesion_id"].nunique()}
                    rows.append(row | compare_runs(*pairs)._asdict())
    return pd.DataFrame(rows).assign(commit=commit())


def main() -> None:
    """Train, test and compare."""
    first, *_, last = __doc__.split("\n\n")
    text = f"{first} {last}".replace("``", "`")
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--data", type=Path, required=True, help="HAM10000 with seven classes")
    parser.add_argument(
        "--splits", type=Path, required=True, help="with the published ISIC2018_*.csv"
    )
    parser.add_argument("--out", type=Path, default=Path("build/lesion-mates"))
    choices = parser.parse_args()
    files = dict(zip(PARTS, ("train", "val", "test"), strict=True))
    split = {part: choices.splits / f"ISIC2018_{name}.csv" for part, name in files.items()}
    data = LesionDataset.from_folder(choices.data, SIZE, split=split)
    ask(data, frozen_features(BACKBONE, WEIGHTS, data), choices.out / "parts")
    table = summary(choices.out / "parts")
    path = choices.out / "lesion-mates.csv"
    write_atomically(path, lambda part: table.to_csv(part, **TO_WRITE))
    print(table[table["class"] == "mean"].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
