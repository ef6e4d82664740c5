"""Checks of the tables that say which class and which lesion an image shows."""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from data_setup.info import INFO
from data_setup.sources import Source, listing, suffix_of
from derm_hash.data.classes import ALIASES, ISIC_CLASSES
from derm_hash.errors import InputError, counted, shown

UNKNOWN = "UNK"  # the class that ISIC gives to images without a diagnosis


def labels_from(
    codes: pd.Series, labels: Mapping[str, str], table: object, remedy: str
) -> pd.Series:
    """Translate the publisher's class names, indexed by image; `InputError` if one is unknown."""
    found = codes.map(labels)
    if (bad := found.isna()).any():
        raise InputError(
            f"{table} gives {codes.index[bad][0]} the class {codes[bad].iloc[0]!r}, which is none "
            f"of {', '.join(labels)}: {remedy}"
        )
    return found


def one_hot_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a table that stand for classes, with 1 for yes and 0 for no; [] if none do.

    These are all columns of 0 and 1, or all with ISIC's class names, whichever fit more rows.
    """
    numbers = as_numbers(table)
    official = [name for name in table if name.upper() in {*ISIC_CLASSES, *ALIASES, UNKNOWN}]
    binary = [name for name in table if numbers[name].isin([0, 1]).all()]

    def fit(classes: list[str]) -> float:
        alone = numbers[classes].sum(axis=1) == 1
        return alone.mean() if len(classes) > 1 else 0

    classes = max(official, binary, key=fit)
    # A few rows without exactly one class are mistakes; many mean that it is another table.
    return classes if fit(classes) > 0.5 else []


def one_hot_labels(table: pd.DataFrame, classes: Sequence[str], path: object, remedy: str):
    """The class of each row (a Series of str); `InputError` for a row without exactly one."""
    values = as_numbers(table[classes])
    unclear = ~(values.isin([0, 1]).all(axis=1) & (values.sum(axis=1) == 1))
    label = values.where(~unclear, 0).idxmax(axis=1).rename("label")
    for bad, problem, what in (
        (unclear, "does not give exactly one class", remedy),
        (label == UNKNOWN, f"gives the class {UNKNOWN}, unknown,", "remove their lines"),
    ):
        if bad.any():
            raise InputError(
                f"{path} {problem} to {counted(bad.sum(), 'image')}, such as {bad.idxmax()}: {what}"
            )
    return label


def as_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """The numbers in cells, with decimal points or commas; NaN for other texts.

    True and x are 1; False and an empty cell are 0.
    """
    words = {"true": "1", "x": "1", "false": "0", "": "0"}
    plain = table.apply(lambda cells: cells.str.lower().replace(words).str.replace(",", "."))
    return plain.apply(pd.to_numeric, errors="coerce")


def refuse_repeated(images: pd.Series, table: object, remedy: str) -> None:
    """Refuse a table that lists an image twice; the index of `images` is the line number - 2."""
    if (again := images.duplicated()).any():
        image = images[again].iloc[0]
        first, second = images.index[images == image][:2] + 2  # line 1 is the header
        raise InputError(f"{table} lists {image} twice, in lines {first} and {second}: {remedy}")


def lesions_with_several_labels(table: pd.DataFrame) -> list[str]:
    """The lesion_ids of a table whose images have different labels."""
    labels = table[table["lesion_id"] != ""].groupby("lesion_id")["label"].nunique()
    return sorted(labels.index[labels > 1])


def refuse_several_labels(table: pd.DataFrame, path: object) -> None:
    """Refuse a table whose images of one lesion have different labels."""
    if lesions := lesions_with_several_labels(table):
        raise InputError(
            f"{path} gives the images of the lesion {lesions[0]} different classes: correct the "
            "wrong ones"
        )


def report_unlabelled(images: Collection[str], listed: Collection[str], table: object) -> None:
    """Print which images the table does not list."""
    if unlabelled := sorted(set(images) - set(listed)):
        print(f"Left out, since {table} has no label for them: {listing(unlabelled)}")


def refuse_missing(
    missing: Sequence[str], table: object, remedy: str, partial: bool = False
) -> None:
    """Refuse a table that lists missing images; if `partial`, print which they are instead."""
    if missing:
        what = f"{counted(len(missing), 'image')} that cannot be found ({shown(listing(missing))})"
        if not partial:
            raise InputError(f"{table} lists {what}: {remedy}")
        print(f"Left out of {table}: {what}")


def published_rows(
    name: str,
    table: pd.DataFrame,
    classes: Collection[str],
    files: tuple[Mapping[str, Source], Mapping[str, Source]],
    listed_in: object,
    remedy: str,
    partial: bool = False,
) -> pd.DataFrame:
    """The manifest's rows of a published data set, sorted by image, not split.

    `table` has image_id, label, lesion_id and further columns to keep; `classes` are the labels to
    use; `files` are the images and the masks by image id; messages call the table `listed_in`.
    Images that are listed and missing are refused with the `remedy`, or left out if `partial`.
    """
    refuse_several_labels(table, listed_in)
    image_of = files[0]
    report_unlabelled(image_of, table["image_id"], listed_in)
    table = table[table["label"].isin(classes)].sort_values("image_id")
    there = table["image_id"].isin(image_of.keys())
    refuse_missing(table.loc[~there, "image_id"].tolist(), listed_in, remedy, partial)
    table = table[there].reset_index(drop=True)
    if table.empty:
        raise InputError(f"none of the images of {listed_in} was found: check the archives")
    for kind, of in zip(("image", "mask"), files, strict=True):
        found = [(key, of.get(key)) for key in table["image_id"]]
        table[f"{kind}_from"] = [file for _, file in found]
        table[kind] = [f"{kind}s/{key}{suffix_of(file)}" if file else "" for key, file in found]
    return table.assign(source=INFO[name].title).drop(columns="image_id")
