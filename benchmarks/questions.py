"""Ask hash heads and simple systems what a label cannot answer, and write the answers as tables.

``python -m benchmarks.questions --data DIR --hospital DIR --criteria DIR --attributes FILE`` asks
all methods. A stopped run goes on: each method and seed has a file of its own in OUT/parts.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from derm_hash.data.dataset import LesionDataset
from derm_hash.experiments.grid import commit
from derm_hash.experiments.questions import Material, Part, answers, read_criteria, with_chance
from derm_hash.experiments.results import read_csv
from derm_hash.experiments.systems import BACKBONE, METHODS, WEIGHTS
from derm_hash.files import write_atomically
from derm_hash.frozen import frozen_features

SIZE = 128  # pixels of the images that the features are computed from
OF_GROUPS = ["kind", "group", "few_lesions"]
TO_WRITE = {"index": False, "float_format": "%.6g", "lineterminator": "\n"}


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
