"""A run scored on any data: classes matched by name, counts, intervals over lesions, chance."""

from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from derm_hash.data.classes import match_classes
from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError, shown
from derm_hash.experiments.comparisons import query_column
from derm_hash.files import write_atomically
from derm_hash.metrics.intervals import bootstrap_interval, lesion_groups
from derm_hash.metrics.ties import expected_average_precision, expected_precision
from derm_hash.runs import Run, fingerprint, read_config

SUMMARY = {
    "class_mean_precision_at_10": "class-mean precision@10",
    "class_mean_map": "class-mean mAP",
    "class_mean_tie_aware_map": "class-mean mAP by Hamming distance, tie-aware",
    "paper_precision": "paper protocol, precision in radius 4, top 10",
    "paper_reciprocal_rank": "paper protocol, reciprocal rank",
    "flipped_bits": "bits that flip under quarter turns",
    "overlap_at_10": "top 10 that stay under quarter turns, tie-aware",
    "tied_at_10": "images that tie for the tenth place",
    "class_mean_correct": "classifier, balanced accuracy",
    "macro_f1": "classifier, macro F1",
    "macro_auc": "classifier, macro AUC",
    "calibration_error": "classifier, calibration error",
}
SEEN_OR_NOT = {
    **{score: SUMMARY[score] for score in list(SUMMARY)[:3]},
    "overlap_at_10": SUMMARY["overlap_at_10"],
    "database_accuracy": "classifier's class-mean accuracy on these images",
    "chance_class_mean_map": "class-mean mAP by chance",
}
# In random order, the images within the radius have the same mean precision as all images.
SAME_CHANCE = {
    "class_mean_tie_aware_map": "class_mean_map",
    "paper_precision": "class_mean_precision_at_10",
}


def in_classes_of(run: Run, data: LesionDataset, source: str) -> LesionDataset:
    """Return data with a run's class list, matched by name; InputError if it has other classes."""
    classes = run.model.class_names
    found = match_classes(data.classes, classes)
    if lost := [name for name in data.classes if name not in found]:
        raise InputError(
            f"{source} has images of {shown(', '.join(lost))}, and {run.path} was trained on "
            f"{shown(', '.join(classes))}: prepare it without these classes, as data_setup folder "
            "does with --classes, or train on them"
        )
    table = data.table.assign(label=data.table["label"].map(found))
    return LesionDataset(data.images, table, classes)


def with_queries(database: LesionDataset, queries: LesionDataset) -> LesionDataset:
    """Join the splits ``database`` and ``query`` of two data sets that have the same classes.

    A data set that has not been split is used as a whole.
    """
    parts = []
    for data, split in ((database, "database"), (queries, "query")):
        if (data.table["split"] == "").all():
            data.table = data.table.assign(split=split)
        parts.append(data.split(split))
    images, table = torch.cat([p.images for p in parts]), pd.concat([p.table for p in parts])
    return LesionDataset(images, table, database.classes)


def place(source: str) -> str:
    """Return the resolved path of a data folder; "atlas" stays "atlas"."""
    return source if source == "atlas" else str(Path(source).expanduser().resolve())


def summarise(scores: dict[str, float], found: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each score of ``SUMMARY``, from what ``scoring.score_model`` returned.

    The columns are value, low and high (95 % interval over lesions; empty if there is only one, or
    the score is not a mean over queries) and chance (expected value of a ranking in random order;
    empty where that means nothing).
    """
    rows = {}
    for score in SUMMARY:
        low, high = interval_of(found, score)
        chance = scores.get(f"chance_{SAME_CHANCE.get(score, score)}", np.nan)
        rows[score] = {"value": scores[score], "low": low, "high": high, "chance": chance}
    return pd.DataFrame.from_dict(rows, orient="index")


def interval_of(found: pd.DataFrame, score: str) -> tuple[float, float]:
    """The 95 % interval of a score over lesions, from the scores of every query; NaN if none."""
    column, balanced = query_column(score)
    if column not in found:
        return np.nan, np.nan
    labels = found["label"] if balanced else None
    return bootstrap_interval(found[column], found["lesion_id"], labels)[1:]


def chance_scores(queries: pd.Series, database: pd.Series) -> dict[str, float]:
    """Class means to expect if the database came in random order: labels (Q,) and (N,)."""
    relevant = queries.map(database.value_counts()).fillna(0).to_numpy(dtype=int)[:, None]
    total = np.full_like(relevant, len(database))
    columns = {
        "chance_class_mean_map": expected_average_precision(total, relevant),
        "chance_class_mean_precision_at_10": expected_precision(total, relevant, 10),
    }
    means = pd.DataFrame(columns, index=queries.index).groupby(queries).mean().mean()
    return {score: float(mean) for score, mean in means.items()}


def lesion_counts(queries: pd.DataFrame) -> dict[str, float]:
    """Count each class's query lesions: columns lesion_id, label -> {"lesions_NAME": count}."""
    groups = queries.groupby("label", sort=False)["lesion_id"]
    return {f"lesions_{name}": float(len(np.unique(lesion_groups(ids)))) for name, ids in groups}


def class_table(scores: dict[str, float], data: LesionDataset) -> pd.DataFrame:
    """Return the scores of each class that has queries, the class with most images first."""
    images = data.split("train").table["label"].value_counts()
    present = [name for name in data.classes if f"ap_{name}" in scores]
    present.sort(key=lambda name: -images.get(name, 0))
    columns = {
        "queries": "queries",
        "lesions": "lesions",
        "precision@10": "precision_at_10",
        "recall@10": "recall_at_10",
        "AP": "ap",
        "sensitivity": "sensitivity",
        "specificity": "specificity",
    }
    table = {title: [scores[f"{key}_{name}"] for name in present] for title, key in columns.items()}
    table["database"] = [images.get(name, 0) for name in present]
    return pd.DataFrame(table, index=present).astype(
        {"queries": int, "lesions": int, "database": int}
    )


def in_words(summary: pd.DataFrame) -> str:
    """The summary in lines: value, interval, chance."""
    lines = [f"{'':52}value  95 % interval   chance"]
    for score, row in summary.iterrows():
        chance = "" if np.isnan(row["chance"]) else f"{row['chance']:.3f}"
        interval = interval_text(row["low"], row["high"])
        lines.append(f"{SUMMARY[score] + ':':52}{row['value']:.3f}  {interval:16}{chance}".rstrip())
    return "\n".join(lines)


def interval_text(low: float, high: float) -> str:
    """The ends of an interval, if there is one."""
    return "" if np.isnan(low) else f"{low:.3f} to {high:.3f}"


def seen_and_unseen(sides: dict[str, tuple[dict[str, float], pd.DataFrame]]) -> str:
    """Compare databases that training has seen or not, in lines.

    ``sides`` holds what ``scoring.score_codes`` returned for the databases "trained" and "unseen".
    """
    lines = [f"{'':52}trained  unseen  95 % interval"]
    for score, words in SEEN_OR_NOT.items():
        values = "  ".join(f"{scores[score]:.3f}".rjust(7) for scores, _ in sides.values())
        interval = interval_text(*interval_of(sides["unseen"][1], score))
        lines.append(f"{words + ':':52}{values}  {interval}".rstrip())
    return "\n".join(lines)


def write_evaluation(
    run: Run, table: pd.DataFrame, data: LesionDataset, database: str, queries: str
) -> Path:
    """Write all scores to the run's folder, one file for each pair of database and queries.

    The run's own data has ``evaluation.csv``, another folder ``evaluation-NAME.csv``, and two
    folders ``evaluation-QUERIES-in-DATABASE.csv``; a number is added where the name is taken.
    ``table`` has a row for each score.
    """
    where = {"database": place(database), "queries": place(queries)}
    names = dict.fromkeys(Path(where[part]).name for part in ("queries", "database"))
    name = "evaluation-" + "-in-".join(names)
    if where["database"] == where["queries"]:
        _, about = read_config(run.path)
        name = "evaluation" if about.get("fingerprint") == fingerprint(data) else name
    table = table.assign(**where)
    numbered = (run.path / f"{name}{f'-{i}' if i > 1 else ''}.csv" for i in count(1))
    path = next(p for p in numbered if name == "evaluation" or not _of_other_data(p, where))
    write_atomically(path, lambda part: table.rename_axis("score").to_csv(part))
    return path


def _of_other_data(path: Path, where: dict[str, str]) -> bool:
    about = pd.read_csv(path, nrows=1, dtype=str).iloc[0].to_dict() if path.exists() else where
    return not where.items() <= about.items()
