"""What is wrong with a data set: leakage, near-duplicates, imbalance, small images, gaps."""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data_setup.duplicates import RADIUS, connected_images, duplicate_groups, image_hashes
from derm_hash.data.classes import class_order
from derm_hash.data.images import image_size
from derm_hash.data.manifest import SPLITS, read_manifest
from derm_hash.data.splits import lesion_keys
from derm_hash.errors import InputError, counted
from derm_hash.files import thread_map

HELP = "report leakage, near-duplicates, class balance, image sizes and gaps of a data folder"
WIDTH = 100  # columns of the text
BETWEEN = " + "  # joins the labels of one group, and its parts
LISTED = 20  # rows that are shown of a long table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, metavar="ROOT", help="data folder with a manifest.csv")
    text = "report, instead, the near-duplicates and lesions that ROOT shares with this data folder"
    parser.add_argument("--against", type=Path, metavar="OTHER", help=text)


def run(args: argparse.Namespace) -> None:
    root = args.root.expanduser()
    if args.against is not None:
        print(f"\n{compared(root, args.against.expanduser())}")
        return
    frame = read_manifest(root)
    if "duplicate_group" not in frame:
        frame["duplicate_group"] = duplicate_groups(root, frame["image"].tolist())
    paths = [root / name for name in frame["image"]]
    sizes = list(thread_map(image_size, paths, "reading image sizes", True))
    print(f"\n{root}: {counted(len(frame), 'image')}\n\n{as_text(frame, sizes)}")


def compared(root: Path, other: Path) -> str:
    """Describe the near-duplicates and lesions that two data folders share, with tables."""
    if root.resolve() == other.resolve():
        raise InputError(f"--against {other} is the same folder: name another data folder")
    frames = [read_manifest(root), read_manifest(other)]
    hashes = [
        image_hashes(place, frame["image"].tolist())
        for place, frame in zip((root, other), frames, strict=True)
    ]
    groups = connected_images(np.concatenate(hashes), RADIUS)
    copies = shared(frames, np.split(groups, [len(frames[0])]))
    lesions = shared(frames, [frame["lesion_id"].replace("", None) for frame in frames])
    counts = [counted(len(frame), "image") for frame in frames]
    sections = [f"{root}: {counts[0]}; {other}: {counts[1]}"]
    too_high = "Leave these images out of one folder, or scores of one on the other are too high."
    same = "If both folders number lesions alike, these are the same lesions."
    for title, noun, table, meaning in (
        ("Near-duplicates", "group of near-duplicates", copies, too_high),
        ("Lesions", "lesion_id", lesions, same),
    ):
        images, others = table["images"].sum(), table["others"].sum()
        text = (
            f"Found in both folders: {len(table):,} ({counted(images, 'image')} of the first "
            f"folder, {others:,} of the second). {meaning}"
            if len(table)
            else f"No {noun} is in both folders."
        )
        sections.append(f"{title}\n{textwrap.fill(text, WIDTH)}{table_text(table)}")
    if not all((frame["lesion_id"] != "").any() for frame in frames):
        sections[-1] = "Lesions\nOne of the folders does not say which images show the same lesion."
    return "\n\n\n".join(sections)


def shared(frames: Sequence[pd.DataFrame], keys: Sequence[Sequence]) -> pd.DataFrame:
    """Find what two manifests share: a row per key that is in both; missing keys are ignored.

    The index ``such as`` names the first image of each; the columns are ``images`` and ``others``
    (how many in the first and second) and ``labels``.
    """
    summary = {"image": ("image", "first"), "images": ("image", "size"), "labels": ("label", set)}
    first, second = (
        frame.assign(key=list(key)).dropna(subset="key").groupby("key").agg(**summary)
        for frame, key in zip(frames, keys, strict=True)
    )
    both = first.merge(second, on="key", suffixes=("", "_other")).sort_index()
    pairs = zip(both["labels"], both["labels_other"], strict=True)
    labels = [BETWEEN.join(sorted(a | b)) for a, b in pairs]
    table = both[["images", "images_other"]].set_axis(["images", "others"], axis=1)
    names = (both["image"] + " = " + both["image_other"]).rename("such as")
    return table.assign(labels=labels).set_index(names)


def leakage(frame: pd.DataFrame) -> pd.DataFrame:
    """Count queries whose lesion is in another part too: a row per class, and one named "all".

    The columns are ``queries`` (number of query images), ``with_mate`` (those whose lesion is in
    another part too) and ``share`` (with_mate / queries; nan where no query's lesion is
    known). Only the manifest's label, lesion_id and split are used.
    """
    query, known = frame["split"] == "query", frame["lesion_id"] != ""
    elsewhere = set(frame.loc[known & ~query & (frame["split"] != ""), "lesion_id"])
    mate = frame["lesion_id"].isin(elsewhere)
    table = per_class(frame, {"queries": query, "with_mate": query & mate, "known": query & known})
    table["share"] = table["with_mate"] / table["queries"].where(table["known"] > 0)
    return table.drop(columns="known")


def duplicates(frame: pd.DataFrame) -> pd.DataFrame:
    """List groups of near-duplicates: a row per value of the column ``duplicate_group``.

    The columns are ``images`` and ``lesions`` (how many; an image without lesion_id is a lesion of
    its own), ``labels`` and ``parts`` (their names).
    """
    rows = frame[frame["duplicate_group"] != ""]
    grouped = rows.assign(lesion=lesion_keys(rows)).groupby("duplicate_group")
    labels, parts = (grouped[column].unique() for column in ("label", "split"))
    table = pd.DataFrame({"images": grouped.size(), "lesions": grouped["lesion"].nunique()})
    table["labels"] = [BETWEEN.join(sorted(names)) for names in labels]
    table["parts"] = [BETWEEN.join(part for part in SPLITS if part in names) for names in parts]
    return table.rename_axis(index="group")


def split_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Images per class (rows) and split (columns; ``train`` if there is one), with sums."""
    used = [part for part in SPLITS if part != "train" or part in set(frame["split"])]
    table = per_class(frame, {part: frame["split"] == part for part in used})
    return table.assign(all=table.sum(axis=1))


def gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """Count images per class and in all: how many there are, without mask, without lesion_id."""
    empty = {f"without {name}": frame[name] == "" for name in ("mask", "lesion_id")}
    return per_class(frame, {"images": frame["label"].notna(), **empty})


def per_class(frame: pd.DataFrame, flags: dict[str, pd.Series]) -> pd.DataFrame:
    """How many images of each class, and in all, have each flag."""
    table = pd.DataFrame(flags).groupby(frame["label"]).sum().reindex(class_order(frame["label"]))
    table.loc["all"] = table.sum()
    return table.rename_axis(index="class").astype(int)


def as_text(frame: pd.DataFrame, sizes: Sequence[tuple[int, int]]) -> str:
    """The tables of a split manifest, each with what it means and what to do.

    `sizes` are the width and height of each image.
    """
    leaks, copies = leakage(frame), duplicates(frame)
    balance, missing = split_table(frame), gaps(frame)
    measured = pd.DataFrame(sizes, columns=["width", "height"])
    measured = measured.value_counts().rename("images").reset_index()
    torn = copies[holds_several(copies["parts"])]
    listed = missing if missing.loc["all"].drop("images").any() else missing.head(0)
    sections = [
        ("Leakage", leakage_sentence(leaks), leaks),
        ("Near-duplicates", duplicates_sentence(copies), torn),
        ("Class balance", balance_sentence(balance), balance),
        ("Image sizes", sizes_sentence(measured), measured),
        ("Gaps", gaps_sentence(missing), listed),
    ]
    return "\n\n\n".join(
        f"{title}\n{textwrap.fill(sentence, WIDTH)}{table_text(table)}"
        for title, sentence, table in sections
    )


def table_text(table: pd.DataFrame) -> str:
    """A table as text to print below a sentence; "" for an empty table."""
    if table.empty:
        return ""
    top = table.head(LISTED).astype(object).map(cell)
    top.index = [shortened(str(name), 40) for name in top.index]
    text = top.rename_axis(columns=table.index.name).to_string(index=bool(table.index.name))
    rest = len(table) - len(top)
    return f"\n\n{text}" + (f"\n... and {rest:,} more" if rest else "")


def cell(value: float | str) -> str:
    """A table's value as text; a float is a share, printed in per cent."""
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value:.1%}"
    return shortened(value, 20) if isinstance(value, str) else f"{value:,}"


def shortened(text: str, length: int) -> str:
    """A text without its middle if it is longer than `length`."""
    half = (length - 3) // 2
    return text if len(text) <= length else f"{text[:half]}...{text[-half:]}"


def holds_several(cells: pd.Series) -> pd.Series:
    """Which cells of a table of `duplicates` name more than one label or part."""
    return cells.astype(str).str.contains(BETWEEN, regex=False)


def leakage_sentence(table: pd.DataFrame) -> str:
    queries, with_mate, share = table.loc["all", ["queries", "with_mate", "share"]]
    if not queries:
        return "There are no queries: split the images first."
    if np.isnan(share):
        return (
            "It is not known which images show the same lesion, so a query may find its own lesion "
            "and scores are upper bounds: fill in lesion_id if you can."
        )
    if not with_mate:
        return "No query shows a lesion that is in the database or val too."
    return (
        f"{share:.1%} of the queries show a lesion that is in the database or val too, which "
        "raises every score: split by lesion, and keep this split for comparisons only."
    )


def duplicates_sentence(table: pd.DataFrame) -> str:
    if table.empty:
        return "No near-duplicate images are known."
    groups = counted(len(table), "group")
    text = f"{table['images'].sum():,} images in {groups} are near-duplicates."
    torn = table.loc[holds_several(table["parts"]), "parts"]
    queries = int(torn.str.contains("query").sum())
    if queries:
        text += (
            f" Groups with queries and images of other parts: {queries:,}, which raises every "
            "score; split by lesion, or remove the copies."
        )
    if rest := len(torn) - queries:
        text += f" Groups in database and val alone: {rest:,}, which raises the scores on val."
    if disagreeing := int(holds_several(table["labels"]).sum()):
        text += f" Groups with several labels: {disagreeing:,}; look at them, one label is wrong."
    return text


def balance_sentence(table: pd.DataFrame) -> str:
    classes = table.iloc[:-1]
    if not classes["all"].any():
        return "No image is in a part yet."
    used = [part for part in SPLITS if part in classes and classes[part].any()]
    empty = [f"{name} in {part}" for part in used for name in classes.index[classes[part] == 0]]
    if empty:
        return (
            f"Some classes have no images ({', '.join(empty[:5])}): add images, choose larger "
            "shares, or leave these classes out."
        )
    large, small = classes["all"].idxmax(), classes["all"].idxmin()
    ratio = classes.at[large, "all"] / classes.at[small, "all"]
    if ratio < 1.5:
        return "The classes are of about the same size."
    return (
        f"{large} has {ratio:.1f} times as many images as {small}: average scores over classes, "
        "and weight the loss by inverse frequencies."
    )


def sizes_sentence(table: pd.DataFrame) -> str:
    sides = table[["width", "height"]].min(axis=1)
    low, high = sides.min(), sides.max()
    span = f"{low}" if low == high else f"{low} to {high}"
    return f"The short sides have {span} pixels: train at no more than {low}."


def gaps_sentence(table: pd.DataFrame) -> str:
    masks, lesions = table.loc["all", ["without mask", "without lesion_id"]]
    texts = []
    if masks:
        texts.append(f"{masks:,} images have no mask to compare heatmaps with.")
    if lesions:
        texts.append(f"{lesions:,} images have no lesion_id: each counts as a lesion of its own.")
    return " ".join(texts) or "Every image has a mask and a lesion_id."
