"""The README's tables of results, computed again: ``python -m benchmarks.tables [--write]``.

Without ``--write`` it says whether the README holds what the stored results give.
"""

import argparse
import re
import sys
from pathlib import Path

import pandas as pd

from benchmarks import RESULTS
from derm_hash.experiments.comparisons import compare
from derm_hash.experiments.headline import NETWORKS, SYSTEMS, headline, named_layers
from derm_hash.experiments.results import read_csv, read_results

README = Path(__file__).parents[1] / "README.md"
FROZEN, WHOLE, TUNED = (RESULTS / name for name in ("frozen", "equal-passes", "fine-tuned"))
QUESTIONS = RESULTS / "questions" / "questions.csv"
BASELINE = "+ random rotations"
PAIRS = {
    "+ HDC-SA, two of the four and the Cauchy loss": "+ two of the four and the Cauchy loss",
    "+ HDC-SA": "plain network",
    "plain network, mean code of four": "plain network",
}


def markdown(table: pd.DataFrame, title: str) -> str:
    """A table of texts in Markdown."""
    lines = [[title, *table.columns], ["---"] * (len(table.columns) + 1)]
    lines += [[name, *row] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def systems() -> str:
    """Every system on frozen features."""
    return markdown(headline(read_results(FROZEN), FROZEN, read_csv(QUESTIONS)), "system")


def networks(folder: Path) -> str:
    """Networks that were trained whole, at equal passes."""
    return markdown(headline(read_results(folder), folder, systems=NETWORKS), "network")


def against(baseline: str, folder: Path, rows: dict[str, dict]) -> pd.DataFrame:
    """Differences of trained codes to one of them, in mAP on the unseen database, as texts."""
    layers = named_layers(read_results(folder), rows)
    table = compare(layers, ["name"], "class_mean_map", {"name": baseline}, folder)
    cells = {
        "difference": table["difference"].map("{:+.3f}".format),
        "over lesions": intervals(table, "low", "high"),
        "over seeds": intervals(table, "seed_low", "seed_high"),
        "p (Holm)": table["p_holm"].map("{:.3f}".format),
        "clear": table["clear"].map({True: "yes", False: "no"}),
    }
    return pd.DataFrame(cells).set_axis(table["name"])


def against_rotations(folder: Path, rows: dict[str, dict]) -> str:
    """Every trained code against the one of random rotations."""
    return markdown(against(BASELINE, folder, rows), f"against {BASELINE!r}")


def pairs(folder: Path) -> str:
    """What the gate, and the mean code, add to the network beside them."""
    found = []
    for name, baseline in PAIRS.items():
        row = against(baseline, folder, NETWORKS).loc[[name]]
        found.append(row.set_axis([f"{name}, against {baseline!r}"]))
    return markdown(pd.concat(found), "pair")


def intervals(table: pd.DataFrame, low: str, high: str) -> list[str]:
    """The ends of intervals in words."""
    return [f"{a:+.3f} to {b:+.3f}" for a, b in table[[low, high]].to_numpy()]


TABLES = {
    "systems": systems,
    "against-rotations": lambda: against_rotations(FROZEN, SYSTEMS),
    "networks": lambda: networks(WHOLE),
    "networks-against-rotations": lambda: against_rotations(WHOLE, NETWORKS),
    "pairs": lambda: pairs(WHOLE),
    "fine-tuned": lambda: networks(TUNED),
    "fine-tuned-against-rotations": lambda: against_rotations(TUNED, NETWORKS),
    "fine-tuned-pairs": lambda: pairs(TUNED),
}


def main() -> int:
    """Compare the README with the results, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the tables into the README")
    write, text = parser.parse_args().write, README.read_text("utf-8")
    for name, make in TABLES.items():
        block = f"<!-- {name} -->\n{make()}\n<!-- end -->"
        text = re.sub(rf"<!-- {name} -->.*?<!-- end -->", lambda _, b=block: b, text, flags=re.S)
    if write:
        README.write_text(text, "utf-8")
    same = README.read_text("utf-8") == text
    print("the README's tables are those of the stored results" if same else "they differ: --write")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
