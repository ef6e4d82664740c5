"""Ask hash heads and simple systems what a label cannot answer, and write the answers as tables.

What does a code keep besides the class that it was trained for? The :mod:`.systems` are fitted on
frozen features of images of four classes, and then asked

- *unseen classes*: are images of a class that was not trained on near each other?
- *shared criteria*: do the hits show the dermoscopic criteria of the query?
- *another hospital*: are the classes found for images from elsewhere?
- *leakage*: how much of a score by image is the query's own lesion?
- *subgroups*: for whom is the retrieval better or worse?

The scores are those of :mod:`.ranked`.

``python -m benchmarks.questions --data DIR --hospital DIR --criteria DIR --attributes FILE`` asks
all methods. A stopped run goes on: each method and seed has a file of its own in OUT/parts.
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray
from tqdm.auto import tqdm

from benchmarks.ranked import criteria_scores, label_scores
from benchmarks.systems import BACKBONE, BITS, CHANCE, KNOWN, METHODS, WEIGHTS, System, fit
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.splits import split_by_image
from derm_hash.errors import InputError, shown
from derm_hash.experiments.grid import commit
from derm_hash.experiments.results import FEW_LESIONS, read_csv
from derm_hash.files import write_atomically
from derm_hash.frozen import frozen_features
from derm_hash.metrics.intervals import bootstrap_interval, lesion_groups

SIZE = 128  # pixels of the images that the features are computed from
OF_GROUPS = ["kind", "group", "few_lesions"]
TO_WRITE = {"index": False, "float_format": "%.6g", "lineterminator": "\n"}
TRAINED = ("MEL", "NV", "BCC", "BKL")
UNSEEN = ("AKIEC", "DF", "VASC")


class Part(NamedTuple):
    """Images with their frozen features."""

    table: pd.DataFrame
    """n rows of a manifest."""
    features: ndarray
    """(4, n, F), as :func:`derm_hash.frozen.frozen_features` returns them."""

    def of(self, chosen: ndarray) -> "Part":
        """The chosen images, marked by a boolean array (n,)."""
        return Part(self.table[chosen].reset_index(drop=True), self.features[:, chosen])


class Material(NamedTuple):
    """What the questions are asked on."""

    data: LesionDataset
    """Images of all classes in the parts train, database, val and query."""
    features: ndarray
    """(4, N, F) of ``data``."""
    hospital: Part
    """Queries from elsewhere."""
    criteria: Part
    """Images without labels."""
    shown: ndarray
    """Which criteria each of these images shows: (n, criteria) of 0 and 1."""
    names: tuple[str, ...]
    """Names of the criteria."""

    @property
    def trained(self) -> tuple[LesionDataset, ndarray]:
        """The images of the classes that are trained on, and their features."""
        rows = np.flatnonzero(self.data.table["label"].isin(TRAINED))
        table = self.data.table.iloc[rows]
        return LesionDataset(self.data.images[rows], table), self.features[:, rows]

    def part(self, split: str, classes: Iterable[str] | None = None) -> Part:
        """A part of the data, all its classes or some."""
        table = self.data.table
        chosen = table["split"] == split
        if classes:
            chosen &= table["label"].isin(classes)
        return Part(table, self.features).of(chosen.to_numpy())


def read_criteria(path: Path, images: pd.Series) -> tuple[ndarray, tuple[str, ...]]:
    """Read which criteria images show from a CSV with a column image and one for each criterion.

    Images are matched by the names of their files, without folders and endings.

    Returns
    -------
    (n, criteria) int array of 0 and 1, names of the criteria

    Raises
    ------
    InputError
        If the table has no row for an image.
    """
    table = read_csv(path, dtype={"image": str})
    names = images.str.replace(r"^.*/|\.[^./]*$", "", regex=True)
    if lost := sorted(set(names) - set(table.get("image", ()))):
        raise InputError(
            f"{path} has no row for {len(lost)} of the images, such as {shown(lost[0])}: give the "
            "table of these images' criteria"
        )
    table = table.set_index("image").loc[names]
    return table.to_numpy(dtype=int), tuple(table.columns)


def summed_up(
    score: str, values: ndarray, lesions: Iterable[str] | None = None, labels=None
) -> dict:
    """A row: mean of the queries' values (Q,), or of class means, and 95 % interval over lesions.

    The interval is empty if there is one lesion.
    """
    values = np.asarray(values, dtype=float)
    groups = np.arange(len(values)) if lesions is None else lesion_groups(lesions)
    row = {"score": score, "value": np.mean(values), "low": np.nan, "high": np.nan}
    if len(np.unique(groups)) > 1:
        row["value"], row["low"], row["high"] = bootstrap_interval(values, groups, labels)
    return row | {"n": len(values), "lesions": len(np.unique(groups))}


def coded(system: System, queries: Part, database: Part) -> tuple[ndarray, ndarray]:
    """The codes of queries and of a database: (Q, bits), (N, bits)."""
    return system[0](queries.features), system[1](database.features, database.table["label"])


def same_label(queries: Part, database: Part) -> ndarray:
    """Which pairs have one label: (Q, N)."""
    return queries.table["label"].to_numpy()[:, None] == database.table["label"].to_numpy()


# --- questions ------------------------------------------------------------------------------


def unseen_classes(system: System, material: Material) -> list[dict]:
    """Search all classes; mAP over those that were not trained on, and over those that were."""
    queries, database = material.part("query"), material.part("database")
    codes = coded(system, queries, database)
    found = label_scores(*codes, same_label(queries, database)).assign(
        **queries.table[["label", "lesion_id"]]
    )
    rows = []
    for name, classes in (("unseen_class_map", UNSEEN), ("trained_class_map", TRAINED)):
        part = found[found["label"].isin(classes)]
        rows.append(summed_up(name, part["ap"], part["lesion_id"], part["label"]))
    for label in UNSEEN:
        part = found[found["label"] == label]
        rows.append(summed_up(f"map_{label}", part["ap"], part["lesion_id"]))
    return rows


def shared_criteria(system: System, material: Material) -> list[dict]:
    """Search images without labels for those with the same criteria."""
    images = material.criteria
    codes, database = coded(system, images, images)
    copy = images.table["duplicate_group"].to_numpy()
    left_out = (copy[:, None] == copy) & (copy != "")
    np.fill_diagonal(left_out, True)
    found = criteria_scores(codes, database, material.shown, left_out)
    rows = [summed_up("ndcg_at_10", found["ndcg_at_10"].dropna())]
    each = [summed_up(f"map_{n}", found[i].dropna()) for i, n in enumerate(material.names)]
    mean = {"score": "criteria_map", "value": np.mean([row["value"] for row in each])}
    return [*rows, mean | {"n": len(found)}, *each]


def another_hospital(system: System, material: Material) -> list[dict]:
    """Search with images from elsewhere, of the classes that were trained on."""
    queries = material.hospital
    queries = queries.of(queries.table["label"].isin(TRAINED).to_numpy())
    database = material.part("database", TRAINED)
    codes = coded(system, queries, database)
    found = label_scores(*codes, same_label(queries, database))
    lesions, labels = queries.table["lesion_id"], queries.table["label"]
    return [
        summed_up("class_mean_map", found["ap"], lesions, labels),
        summed_up("class_mean_precision_at_10", found["precision_at_10"], lesions, labels),
    ]


def leakage(system: System, material: Material) -> list[dict]:
    """Search with and without the query's own lesion, if the database has it.

    The system must be fitted on :func:`split_for_leakage`, whose database it was trained on.
    """
    data, features = split_for_leakage(material)
    everything, split = Part(data.table, features), data.table["split"]
    database = everything.of((split == "database").to_numpy())
    lesions = database.table["lesion_id"]
    known = data.table["lesion_id"].isin(set(lesions) - {""})
    queries = everything.of(((split == "query") & known).to_numpy())
    own = queries.table["lesion_id"].to_numpy()[:, None] == lesions.to_numpy()
    codes = coded(system, queries, database)
    relevant = same_label(queries, database)
    found = {"with": label_scores(*codes, relevant), "without": label_scores(*codes, relevant, own)}
    found["difference"] = found["with"] - found["without"]
    groups = queries.table["lesion_id"], queries.table["label"]
    return [
        summed_up(f"class_mean_{name}_{side}", table[column], *groups)
        for column, name in (("precision_at_10", "precision_at_10"), ("ap", "map"))
        for side, table in found.items()
    ]


def split_for_leakage(material: Material) -> tuple[LesionDataset, ndarray]:
    """The images of the classes that are trained on, split by image; their features."""
    data, features = material.trained
    return LesionDataset(data.images, split_by_image(data.table), data.classes), features


def subgroups(system: System, material: Material) -> list[dict]:
    """Precision of the queries of each body site, sex and age, mean over the queries."""
    queries, database = (material.part(name, TRAINED) for name in ("query", "database"))
    codes = coded(system, queries, database)
    found = label_scores(*codes, same_label(queries, database))["precision_at_10"]
    lesions, rows = queries.table["lesion_id"], []
    for kind, groups in groups_of(queries.table).items():
        for name in sorted(set(groups)):
            chosen = groups == name
            row = summed_up("precision_at_10", found[chosen], lesions[chosen])
            few = row["lesions"] < FEW_LESIONS
            rows.append({"kind": kind, "group": name} | row | {"few_lesions": few})
    return rows


def groups_of(table: pd.DataFrame) -> dict[str, pd.Series]:
    """The body site, sex and age group of each image of a manifest; "unknown" where it is empty."""
    age = pd.to_numeric(table["age"], errors="coerce")
    ages = np.select([age < 40, age <= 60, age > 60], ["below 40", "40 to 60", "above 60"], "")
    groups = {"body site": table["localization"], "sex": table["sex"], "age": pd.Series(ages)}
    return {kind: values.replace("", "unknown") for kind, values in groups.items()}


QUESTIONS: dict[str, Callable[[System, Material], list[dict]]] = {
    "unseen classes": unseen_classes,
    "shared criteria": shared_criteria,
    "another hospital": another_hospital,
    "leakage": leakage,
    "subgroups": subgroups,
}


def answers(method: str, seed: int, material: Material) -> pd.DataFrame:
    """Fit a method and ask all questions: a row for each score.

    The columns are question, kind, group (of the subgroups), method, bits, seed, score, value,
    low, high (95 % interval over lesions, for this trained system), n (queries), lesions and
    few_lesions.
    """
    system = fit(method, *material.trained, seed)
    systems = dict.fromkeys(QUESTIONS, system)
    systems["leakage"] = fit(method, *split_for_leakage(material), seed)
    about = {"method": method, "bits": BITS, "seed": seed}
    return pd.DataFrame(
        [
            {"question": question, **about} | row
            for question, ask in QUESTIONS.items()
            if not (method == KNOWN and question == "shared criteria")  # nobody knows their classes
            for row in ask(systems[question], material)
        ]
    )


# --- the command --------------------------------------------------------------------------


def read_folder(root: Path) -> tuple[LesionDataset, np.ndarray]:
    """The images of a data folder, and their frozen features (4, N, F)."""
    data = LesionDataset.from_folder(root, size=SIZE)
    return data, frozen_features(BACKBONE, WEIGHTS, data)


def read_material(data: Path, hospital: Path, criteria: Path, attributes: Path) -> Material:
    """Read the three data folders, and the table that says which image shows which criterion."""
    elsewhere, unlabelled = (
        Part(images.table, features) for images, features in map(read_folder, (hospital, criteria))
    )
    found = read_criteria(attributes, unlabelled.table["image"])
    return Material(*read_folder(data), elsewhere, unlabelled, *found)


def ask(material: Material, out: Path) -> None:
    """Ask every method and seed that has no answers in OUT/parts yet."""
    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    runs = [(seed, name) for name, seeds in METHODS.items() for seed in range(seeds)]
    # The methods with one seed first, then all methods of each further seed.
    for seed, name in tqdm(sorted(runs, key=lambda run: run[0]), "methods and seeds"):
        path = parts / f"{name}-{seed}.csv"
        if not path.exists():
            table = answers(name, seed, material).assign(commit=commit())
            write_atomically(path, lambda part, table=table: table.to_csv(part, **TO_WRITE))
            collect(out)


def collect(out: Path) -> None:
    """Write ``questions.csv`` and ``subgroups.csv`` from the answers that there are."""
    table = pd.concat([read_csv(path) for path in sorted((out / "parts").glob("*.csv"))])
    table = with_chance(table.sort_values(["method", "seed"], kind="stable"))
    of_groups = table["question"] == "subgroups"
    tables = {
        "questions.csv": table[~of_groups].drop(columns=OF_GROUPS),
        "subgroups.csv": table[of_groups].drop(columns="question"),
    }
    for name, part in tables.items():
        write_atomically(out / name, lambda path, part=part: part.to_csv(path, **TO_WRITE))


def with_chance(table: pd.DataFrame) -> pd.DataFrame:
    """Turn the rows of the method "chance" into a column of the others' rows."""
    what = [name for name in ("question", "kind", "group", "score") if name in table]
    by_chance = table["method"] == CHANCE
    chance = table[by_chance].rename(columns={"value": "chance"})[[*what, "chance"]]
    return table[~by_chance].merge(chance, "left", on=what)


def main() -> None:
    """Ask all questions."""
    parser = argparse.ArgumentParser(description=__doc__.replace("``", "`"))
    parser.add_argument("--data", type=Path, required=True, help="HAM10000 with seven classes")
    parser.add_argument("--hospital", type=Path, required=True, help="ISIC 2018 Task 3, test")
    parser.add_argument("--criteria", type=Path, required=True, help="ISIC 2018 Tasks 1 and 2")
    parser.add_argument("--attributes", type=Path, required=True, help="their attributes.csv")
    parser.add_argument("--out", type=Path, default=Path("build/questions"))
    choices = vars(parser.parse_args())
    out = choices.pop("out")
    ask(read_material(**choices), out)


if __name__ == "__main__":
    main()
