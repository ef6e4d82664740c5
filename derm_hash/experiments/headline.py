"""Tables of systems: hash codes beside simpler methods, and networks with equal forward passes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from derm_hash.experiments.comparisons import query_column, read_queries
from derm_hash.experiments.results import with_spread
from derm_hash.metrics.intervals import bootstrap_interval, lesion_groups

PLAIN = {"system": "trained", "objective": "classification", "readout": "plain", "bits": 16}
UPRIGHT = {"invariance": "none", "classify": "upright", "random_rotations": False}
ROTATED = UPRIGHT | {"random_rotations": True}
COPIES = {"classify": "orbit", "orbit_sample": 0}
SAMPLED = {"classify": "orbit", "orbit_sample": 2, "invariance": "cauchy"}
MEAN = {"readout": "orbit-mean"}

SYSTEMS: dict[str, dict] = {
    "features, cosine": {"system": "float cosine"},
    "product quantisation": {"system": "product quantisation"},
    "LSH": {"system": "LSH"},
    "ITQ": {"system": "ITQ"},
    "class probabilities of a linear probe": {"system": "softmax"},
    "its predicted class": {"system": "predicted class"},
    "its predicted class, known in the database": {"system": "known class"},
    "hash layer": PLAIN | UPRIGHT,
    "+ random rotations": PLAIN | ROTATED,
    "+ all four rotations": PLAIN | COPIES | {"invariance": "none"},
    "+ all four and the Cauchy loss": PLAIN | COPIES | {"invariance": "cauchy"},
    "+ two of the four and the Cauchy loss": PLAIN | SAMPLED,
    "hash layer, mean code of four": PLAIN | UPRIGHT | MEAN,
    "+ random rotations, mean code of four": PLAIN | ROTATED | MEAN,
    "+ two of the four and the Cauchy loss, mean code of four": PLAIN | SAMPLED | MEAN,
}
"""Names of the rows, and the settings of their runs."""


def network(gate: str, **settings) -> dict:
    """The settings of a run that trains the whole network."""
    plain = {"invariance": "none", "random_rotations": False, "orbit_sample": 0}
    return {"system": "trained", "attention": gate, "readout": "plain"} | plain | settings


ROTATIONS = {"random_rotations": True}
FOUR = {"invariance": "cauchy"}
TWO = {"invariance": "cauchy", "orbit_sample": 2}
NETWORKS: dict[str, dict] = {
    "plain network": network("none"),
    "+ random rotations": network("none", **ROTATIONS),
    "+ all four and the Cauchy loss": network("none", **FOUR),
    "+ two of the four and the Cauchy loss": network("none", **TWO),
    "+ HDC-SA": network("hdcsa"),
    "+ HDC-SA, random rotations": network("hdcsa", **ROTATIONS),
    "+ HDC-SA, all four and the Cauchy loss": network("hdcsa", **FOUR),
    "+ HDC-SA, two of the four and the Cauchy loss": network("hdcsa", **TWO),
    "plain network, mean code of four": network("none", **MEAN),
    "+ random rotations, mean code of four": network("none", **ROTATIONS, **MEAN),
    "+ HDC-SA, random rotations, mean code of four": network("hdcsa", **ROTATIONS, **MEAN),
}
"""Names of rows and settings for benchmarks/configs/equal-passes.toml and fine-tuned.toml."""
BINARY = ("LSH", "ITQ", "predicted class", "known class")
"""Systems whose codes tie very often, so the table shows their tie-aware mAP."""
BITS = {"float cosine": "1,280 floats", "softmax": "4 floats"}
BITS |= dict.fromkeys(("predicted class", "known class"), "2")


QUESTIONS = {
    "mAP, unseen classes": "unseen_class_map",
    "criteria nDCG@10": "ndcg_at_10",
    "mAP, another hospital": "class_mean_map",
}
"""Titles of columns, and scores of ``python -m benchmarks.questions``."""
ASKED = {
    "hash layer": "head, upright",
    "+ random rotations": "head, random rotations",
    "+ all four rotations": "head, four copies",
    "+ all four and the Cauchy loss": "head, four copies, Cauchy",
    "+ two of the four and the Cauchy loss": "head, two copies, Cauchy",
    "hash layer, mean code of four": "head, upright, orbit mean",
    "+ random rotations, mean code of four": "head, random rotations, orbit mean",
    "+ two of the four and the Cauchy loss, mean code of four": "head, two copies, orbit mean",
}
"""Names of rows, and names of the same methods in ``python -m benchmarks.questions``."""


def runs_of(results: pd.DataFrame, settings: dict) -> pd.DataFrame:
    """The rows of results that have all the settings."""
    values = [str(value) for value in settings.values()]
    return results[(results[list(settings)].astype(str) == values).all(axis=1)]


def named_layers(
    results: pd.DataFrame, systems: Mapping[str, dict] = SYSTEMS, scored_on: str = "query"
) -> pd.DataFrame:
    """The runs of all trained codes on the unseen database, with a column name, to compare by."""
    layers = {name: each for name, each in systems.items() if each["system"] == "trained"}
    chosen = results[(results["database"] == "unseen") & (results["scored_on"] == scored_on)]
    return pd.concat([runs_of(chosen, each).assign(name=name) for name, each in layers.items()])


def headline(
    results: pd.DataFrame,
    out: str | Path,
    questions: pd.DataFrame | None = None,
    systems: Mapping[str, dict] = SYSTEMS,
) -> pd.DataFrame:
    """One row for each system: mAP on both databases, questions, stability, bits, passes, seeds.

    Parameters
    ----------
    results : DataFrame of :func:`read_results`
        Results of benchmarks/configs/frozen.toml; for ``NETWORKS``, of equal-passes.toml or
        fine-tuned.toml.
    out : str or Path
        The folder that the results come from, with the scores of every query.
    questions : DataFrame, optional
        The table of ``python -m benchmarks.questions``; its numbers of seeds may differ.
    systems : mapping from the name of a row to the settings of its runs

    Returns
    -------
    DataFrame of str
        Indexed by system. A score is its mean over seeds, ± the standard deviation where there are
        several. "95 %" is the interval over lesions of the mAP on the unseen database.
    """
    results = results[results["scored_on"] == "query"]
    questions = pd.DataFrame(columns=["method", "score"]) if questions is None else questions
    rows = {"chance": _chance(results, questions)}
    for name, settings in systems.items():
        runs = runs_of(results, settings)
        if runs.empty:
            continue
        system = settings["system"]
        sides = {side: runs[runs["database"] == side] for side in ("trained", "unseen")}
        score = "class_mean_tie_aware_map" if system in BINARY else "class_mean_map"
        row = {f"mAP, {side} database": with_spread(each[score]) for side, each in sides.items()}
        row["95 %"] = _interval(sides["unseen"], score, Path(out))
        row |= _answers(questions, ASKED.get(name, system))
        stable = sides["unseen"]
        row["flipped bits"] = with_spread(stable["flipped_bits"] * 100, 1) + " %"
        row["top 10 that stay"] = with_spread(stable["overlap_at_10"], 2)
        if system in ("float cosine", "product quantisation"):
            row["flipped bits"] = ""  # queries have no bits
        row["bits a case"] = BITS.get(system, "16")
        row["passes a query"] = "4" if settings.get("readout") == "orbit-mean" else "1"
        row["seeds"] = str(stable["seed"].nunique())
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index").fillna("")


def _chance(results: pd.DataFrame, questions: pd.DataFrame) -> dict[str, str]:
    chance = results.groupby("database")["chance_class_mean_map"].mean()
    row = {f"mAP, {side} database": f"{chance[side]:.3f}" for side in ("trained", "unseen")}
    asked = questions.groupby("score")["chance"].mean() if len(questions) else {}
    answers = {title: f"{asked[s]:.3f}" for title, s in QUESTIONS.items() if s in asked}
    return row | {"95 %": ""} | answers


def _answers(questions: pd.DataFrame, method: str) -> dict[str, str]:
    asked = questions[questions["method"] == method]
    scores = {title: asked.loc[asked["score"] == score] for title, score in QUESTIONS.items()}
    return {title: with_spread(each["value"]) for title, each in scores.items() if len(each)}


def _interval(runs: pd.DataFrame, score: str, out: Path) -> str:
    """The interval over lesions of each query's mean over seeds, for these trained systems."""
    column, _ = query_column(score)
    tables = [read_queries(out, run, column) for _, run in runs.iterrows()]
    values, queries = np.mean([table[column] for table in tables], axis=0), tables[0]
    groups = lesion_groups(queries["lesion_id"])
    _, low, high = bootstrap_interval(values, groups, queries["label"])
    return f"{low:.3f} to {high:.3f}"
