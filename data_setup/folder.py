"""Your own images: class folders, or a table with image and label columns."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from data_setup.build import build
from data_setup.labels import UNLABELLED, refuse_doubtful, refuse_other_levels
from data_setup.matching import check_name, masks_beside, masks_of
from data_setup.options import add_common_arguments
from data_setup.own_table import COLUMNS, read_own_table, with_split
from data_setup.sources import FOREIGN, Source, files_in, images_in, is_hidden, state_of, suffix_of
from derm_hash.errors import InputError, shown

OWN_SPLITS = {
    "table": "as the column split of --csv says",
    "query": "all images are queries, for another data set",
}
HELP = "your own images: one folder per class, or a CSV or Excel file with image and label columns"


def renaming(text: str) -> tuple[str, str]:
    """ "Common Nevus=NV" -> ("Common Nevus", "NV")."""
    before, equals, after = (part.strip() for part in text.rpartition("="))
    if not (before and equals and after):
        raise argparse.ArgumentTypeError(f"{text!r} is not a renaming: write OLD=NEW")
    return before, after


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(parser, own_splits=OWN_SPLITS, default_split=None)
    option = parser.add_argument
    text = "folder or zip file of the images; without --csv, with a folder for each class"
    option("--source", type=Path, required=True, metavar="PATH", help=text)
    text = (
        "table (CSV, TSV or Excel) with one line per image; images are named by path or by file "
        "name, with or without suffix; the labels are one column, or one column of 0 and 1 for "
        "each class"
    )
    option("--csv", type=Path, metavar="FILE", help=text)
    for name, default in COLUMNS.items():
        text = f"column of --csv (default: {default})"
        option(f"--{name}-column", metavar="NAME", help=text)
    text = "labels to use (default: all)"
    option("--classes", type=lambda names: names.split(","), metavar="A,B,C", help=text)
    text = "rename labels, such as 'Common Nevus=NV'; several may get the same name"
    several = {"nargs": "+", "action": "extend", "default": [], "metavar": "OLD=NEW"}
    option("--map", type=renaming, help=text, **several)
    text = "folder or zip file of masks, named like the images, perhaps with _segmentation or _mask"
    option("--masks", type=Path, metavar="PATH", help=text)
    text = "the images have no diagnoses: all become queries, to score heatmaps against masks"
    option("--no-labels", action="store_true", help=text)
    text = "leave out images of --csv that are missing, instead of stopping"
    option("--partial", action="store_true", help=text)


def run(args: argparse.Namespace) -> None:
    source, root = args.source.expanduser().resolve(), args.root.expanduser().resolve()
    if source == root or source in root.parents or root in source.parents:
        raise InputError(
            f"--root {args.root} and --source {args.source} lie in each other: "
            "choose a --root beside the source"
        )
    if args.no_labels:
        args.split = "query"
    masks = files_in(args.masks.expanduser().resolve()) if args.masks else {}
    known = set(masks.values())
    files = {name: file for name, file in files_in(source).items() if file not in known}
    table = labelled(args, source, files, masks or files)
    table = chosen_classes(args, with_split(args, table), source)
    table = with_files(args, source, table.sort_values("file", ignore_index=True), files, masks)
    used = {*table["image_from"], *table["mask_from"]} - {*known, None}
    sources = {str(source): state_of(source, used)}
    if args.csv:
        path = args.csv.expanduser().resolve()
        sources[str(path)] = state_of(path.parent, [path])
    if masks:
        sources[str(args.masks)] = state_of(args.masks.expanduser().resolve(), masks.values())
    own = [f"{name}_column" for name in COLUMNS] + ["classes", "map", "no_labels", "partial"]
    options = {name: getattr(args, name) for name in own if getattr(args, name)}
    build(args, "folder", options, sources, lambda: table, {"title": source.stem})


def labelled(
    args: argparse.Namespace, source: Path, files: Mapping[str, Source], masks: Mapping[str, Source]
) -> pd.DataFrame:
    """Paths, labels, lesion ids, splits and masks of the images to use; prints what is left out."""
    if args.csv:
        return read_own_table(args, args.csv.expanduser().resolve(), files, masks)
    of_others = set(masks_beside(images_in(files)).values())
    images = [name for name in images_in(files) if name not in of_others]
    if args.no_labels:
        labels = dict.fromkeys(images, UNLABELLED)
    else:
        labels = class_folders(source, files, images)
    if not labels:
        raise InputError(f"{source} has no images: check the path")
    for name in labels:
        check_name(name)
    if left_out := sorted(set(files) - of_others - set(labels)):
        example = f", such as {shown(left_out[0])}"
        print(f"Files left out, not images or in no class folder: {len(left_out):,}{example}")
    table = pd.DataFrame({"file": list(labels), "label": list(labels.values())})
    return table.assign(lesion_id="", split="", mask="")


def class_folders(
    source: Path, files: Mapping[str, Source], images: Sequence[str]
) -> dict[str, str]:
    """The label of each image that is in a folder: the name of its top folder."""
    tops = {name: name.split("/")[0] for name in files if "/" in name}
    folders = set(tops.values())
    if source.is_dir():  # includes empty folders
        folders = {p.name for p in source.iterdir() if p.is_dir() and not is_hidden(p.name)}
    if not folders:
        raise InputError(
            f"{source} has no folders: put the images of each class into a folder, name a table "
            "of their labels with --csv, or use --no-labels if you only want to score heatmaps"
        )
    labels = {name: tops[name] for name in images if name in tops}
    for folder in sorted(folders - set(labels.values())):
        foreign = [
            name for name in tops if tops[name] == folder and suffix_of(files[name]) in FOREIGN
        ]
        remedy = f"save {foreign[0]} and the others as PNG or JPEG" if foreign else "add some"
        raise InputError(
            f"the class folder {source / folder} has no images that are read: {remedy}, or remove "
            "the folder"
        )
    return labels


def with_files(
    args: argparse.Namespace,
    source: Path,
    table: pd.DataFrame,
    files: Mapping[str, Source],
    masks: Mapping[str, Source],
) -> pd.DataFrame:
    """The manifest's rows, with the files of images and masks.

    Masks come from the column mask, from ``--masks``, or from files beside the images that have
    their names with an ending such as _mask.
    """
    if masks:
        found, place = masks_of(table["file"], images_in(masks), args.masks), args.masks
    else:
        beside = masks_beside(images_in(files))
        listed, masks, place = set(table["file"]), files, "the folders of the images"
        found = {name: mask for name, mask in beside.items() if mask not in listed}
    pairs = zip(table["file"], table["mask"], strict=True)
    mask_from = [masks.get(own or found.get(name, "")) for name, own in pairs]
    if count := len(found.keys() & set(table["file"])):
        print(f"Masks found in {place}: {count:,} of {len(table):,} images")
    table = table.assign(image_from=table["file"].map(files), mask_from=mask_from)
    stored = [
        f"masks/{Path(name).with_suffix(suffix_of(mask)).as_posix()}" if mask else ""
        for name, mask in zip(table["file"], mask_from, strict=True)
    ]
    table = table.assign(image="images/" + table["file"], mask=stored, source=source.stem)
    return table.drop(columns="file")


def chosen_classes(args: argparse.Namespace, table: pd.DataFrame, source: Path) -> pd.DataFrame:
    """The rows of the classes to use, renamed; `InputError` if the labels are doubtful."""
    new_name = dict(args.map)
    for what, names in (("--map", new_name), ("--classes", args.classes or ())):
        labels = sorted(table["label"].unique())
        if absent := sorted(set(names) - set(labels)):
            raise InputError(
                f"no image has the label {absent[0]!r} of {what}: use some of "
                f"{shown(', '.join(labels))}"
            )
        if what == "--map":
            table = table.assign(label=table["label"].replace(new_name))
    if not (args.csv or args.classes or args.no_labels):
        refuse_other_levels(source, table["file"])
    place, one_is_enough = args.csv or source, args.split == "query"
    if not args.no_labels:
        refuse_doubtful(table["label"].tolist(), place, bool(args.classes), one_is_enough)
    table = table[table["label"].isin(args.classes or labels)]
    return table.assign(label=table["label"].str.strip())
