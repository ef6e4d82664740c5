"""The ``derm-hash`` command: the kit without a browser."""

import argparse
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from derm_hash import __version__, doctor, plots
from derm_hash.commands import (
    INDEX_FILE,
    encode_command,
    heatmaps_command,
    open_run,
    save_picture,
    train_command,
)
from derm_hash.course import course_data
from derm_hash.data.images import open_image, square
from derm_hash.data.manifest import SPLITS
from derm_hash.devices import DEVICES
from derm_hash.errors import (
    LONGEST_NAME,
    InputError,
    cannot_be_shown,
    exit_code,
    print_on_any_console,
    shown,
)
from derm_hash.experiments.cluster import on_cluster
from derm_hash.experiments.comparisons import differences, score_table
from derm_hash.experiments.evaluation import (
    class_table,
    in_classes_of,
    in_words,
    place,
    seen_and_unseen,
    summarise,
    with_queries,
    write_evaluation,
)
from derm_hash.experiments.file import read_experiment
from derm_hash.experiments.grid import run_grid
from derm_hash.experiments.mask_scores import TARGETS
from derm_hash.experiments.results import settings_that_differ, table_notes
from derm_hash.experiments.scoring import encode_data, has_unseen, score_codes
from derm_hash.files import leaves_folder, write_atomically
from derm_hash.metrics.intervals import lesion_groups
from derm_hash.metrics.scores import SCORES
from derm_hash.model import encode
from derm_hash.options import USUAL_SIZE, add_settings
from derm_hash.retrieval import METRICS, HashIndex

HELP = "Find similar skin lesions by short codes, without a browser."
PICTURE = 160  # side of the pictures of hits, in pixels


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when it worked, 2 with one sentence for bad input, 130 when stopped."""
    print_on_any_console()  # its help, too
    args = parser().parse_args(argv)
    return exit_code("derm-hash", lambda: args.run_command(args), args.stopped)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="derm-hash", description=HELP)
    top.add_argument("--version", action="version", version=f"derm-hash {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name, function, summary, stopped="stopped; nothing new is kept"):
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(run_command=function, stopped=stopped)
        return command

    command = add("train", train_command, "Train a model, or go on where it was stopped.")
    add_data(command)
    command.add_argument(
        "--runs", default="runs", type=Path, help="folder of all runs (%(default)s)"
    )
    command.add_argument(
        "--compile", action="store_true", help="torch.compile the network: meant for GPUs"
    )
    add_device(command)
    add_settings(command)

    command = add(
        "encode", encode_command, "Encode images: the run's search index, or other codes."
    )
    add_run(command)
    add_data(command, size=False)
    add_split(command, "database")
    command.add_argument(
        "--out",
        type=Path,
        help="an index, NAME.safetensors, or the soft codes alone, NAME.npy, in the manifest's "
        "order (default for the database of the run's data: the run's index)",
    )
    command.add_argument(
        "--bf16",
        action="store_true",
        help="in bfloat16: faster where the hardware computes in it (GPUs, CPUs with AMX or "
        "AVX-512 BF16), very slow elsewhere; soft codes differ by up to about 0.01 (default: 32 "
        "bits)",
    )

    command = add("search", search_command, "Find the cases that are similar to an image.")
    command.add_argument("image", type=Path)
    add_run(command)
    command.add_argument("--index", type=Path, help="where to search (default: the run's index)")
    command.add_argument("--k", type=int, default=10, help="hits wanted (%(default)s)")
    command.add_argument("--radius", type=int, default=4, help="Hamming radius (%(default)s)")
    command.add_argument("--metric", "--rank", choices=METRICS, default=METRICS[0])
    command.add_argument("--label", help="the image's diagnosis, to mark hits as right or wrong")
    command.add_argument("--out", type=Path, default=Path("hits.png"), help="picture (%(default)s)")

    command = add("evaluate", evaluate_command, "Score a run on the queries of a data folder.")
    add_run(command)
    add_data(command, size=False)
    command.add_argument(
        "--queries",
        help="another folder, whose images are searched for in the database of --data; its query "
        "split, or all of it if it has none",
    )

    command = add("heatmaps", heatmaps_command, "Score a run's heatmaps against lesion masks.")
    add_run(command)
    add_data(command, size=False)
    add_split(command, "all")
    command.add_argument(
        "--target",
        choices=TARGETS,
        default=TARGETS[0],
        help="what is explained: the predicted class, the match with the nearest hit, the bits "
        "of the code together, or the gates as they are (%(default)s)",
    )
    command.add_argument("--n", type=int, help="so many images, chosen at random (default: all)")
    command.add_argument("--out", type=Path, help="folder for the tables (default: RUN/heatmaps)")

    kept = "stopped; finished runs and checkpoints are kept: the same command goes on"
    summary = "Run a grid of experiments from a TOML file."
    command = add("reproduce", reproduce_command, summary, kept)
    command.add_argument("file", type=Path, help="such as benchmarks/configs/smoke.toml")
    command.add_argument("--out", type=Path, help="folder (default: runs/NAME OF THE FILE)")
    command.add_argument(
        "--jobs", type=int, default=1, help="runs at a time on this machine (%(default)s)"
    )
    command.add_argument(
        "--scheduler", metavar="ADDRESS", help="run on a Dask cluster, such as tcp://head:8786"
    )

    add("doctor", doctor_command, "Check this computer, and say what to do about problems.")
    return top


def add_data(command: argparse.ArgumentParser, size: bool = True) -> None:
    """Options for the data folder."""
    command.add_argument("--data", required=True, help="folder with manifest.csv, or 'atlas'")
    if size:
        command.add_argument(
            "--size", type=int, default=USUAL_SIZE, help="image side in px (%(default)s)"
        )


def add_run(command: argparse.ArgumentParser) -> None:
    """The options for a trained run, and where it computes."""
    command.add_argument("--run", type=Path, required=True, help="folder of a run, runs/NAME")
    add_device(command)


def add_device(command: argparse.ArgumentParser) -> None:
    """The option for the device."""
    text = "where to compute (auto: on a GPU if there is one)"
    command.add_argument("--device", choices=DEVICES, default="auto", help=text)


def add_split(command: argparse.ArgumentParser, default: str) -> None:
    """The option for a part of the data."""
    text = "part of the data folder (%(default)s)"
    command.add_argument("--split", choices=[*SPLITS, "all"], default=default, help=text)


def search_command(args) -> None:
    """derm-hash search"""
    if args.label is not None and cannot_be_shown(args.label):
        raise InputError(
            f"The --label '{shown(args.label)}' has a control character or more than "
            f"{LONGEST_NAME} characters: give the name of a class."
        )
    run = open_run(args)
    query = picture_of(args.image, run.model.image_size)
    path = args.index or run.path / INDEX_FILE
    index = HashIndex.load(path)
    check_items(index, path)
    code = encode(run.model, torch.from_numpy(np.array(query)).permute(2, 0, 1)[None])
    hits = index.search(code, min(args.k, len(index)), args.radius, args.metric)
    table = hit_table(index, hits)
    if table.empty:
        near = f"within {args.radius} bits of {shown(args.image)}"
        print(f"No image lies {near}: try a larger --radius.")
        return
    print(table[["image", "label", "lesion_id", "hamming", "distance"]].to_string())
    if (table["folder"] == "").any():
        print("No picture is drawn, since the built-in atlas has no image files.")
        return
    draw_hits(args, table, code[0], index)


def picture_of(path: Path, side: int) -> Image.Image:
    """An image file, squared; InputError if it is none, such as a pipe, which may never end."""
    # Path.exists raises an error where a name is too long.
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113
        raise InputError(f"{shown(path)} is not a file: name an image file.")
    return square(open_image(path), side)


def check_items(index: HashIndex, path: Path) -> None:
    """InputError unless the index says where the images are, and they lie in their folder."""
    wanted = ["image", "label", "lesion_id", "folder"]
    if not set(wanted) <= set(index.items) or not index.items.columns.is_unique:
        raise InputError(f"{path} does not say where its images are: run `derm-hash encode` again.")
    texts = index.items[wanted].map(lambda value: isinstance(value, str)).all(axis=None)
    if not texts or index.items["image"].map(leaves_folder).any():
        raise InputError(f"{path} names images outside its folder: run `derm-hash encode` again.")
    if index.items[wanted].map(cannot_be_shown).any(axis=None):
        raise InputError(
            f"{path} has names with control characters or of more than {LONGEST_NAME} characters: "
            "rename them in the data folder and run `derm-hash encode` again."
        )


def hit_table(index: HashIndex, hits) -> pd.DataFrame:
    """The hits of one query: rows of the index's items, with rank and distances."""
    found = hits.ids[0] >= 0
    table = index.items.iloc[hits.ids[0][found]].assign(
        id=hits.ids[0][found], hamming=hits.hamming[0][found], distance=hits.distance[0][found]
    )
    return table.set_index(pd.RangeIndex(1, len(table) + 1, name="rank"))


def draw_hits(args, table: pd.DataFrame, code: np.ndarray, index: HashIndex) -> None:
    """The picture of a search: the query, its hits, and their codes."""
    paths = [Path(folder) / name for folder, name in table[["folder", "image"]].to_numpy()]
    pictures = [np.asarray(picture_of(path, PICTURE)) for path in paths]
    figure = plots.plot_hits(
        np.asarray(picture_of(args.image, PICTURE)),
        pictures,
        table["label"].tolist(),
        args.label,
        table["hamming"].to_numpy(),
        table["distance"].to_numpy(),
        code,
        index.codes[table["id"]],
    )
    save_picture(figure, args.out)
    print(f"picture: {shown(args.out)}")


def evaluate_command(args) -> None:
    """derm-hash evaluate"""
    run = open_run(args)
    size, queries = run.model.image_size, args.queries or args.data
    data = in_classes_of(run, course_data(args.data, size), args.data)
    if place(queries) != place(args.data):
        data = with_queries(data, in_classes_of(run, course_data(queries, size), queries))
    coded = encode_data(run.model, data, progress=True)
    scores, found = score_codes(coded, data)
    summary = summarise(scores, found, data)
    table = pd.DataFrame({"value": scores}).join(summary.drop(columns="value"))
    compared = ""
    if place(queries) == place(args.data) and has_unseen(data):
        sides = {side: score_codes(coded, data, database=side) for side in ("trained", "unseen")}
        for side, (side_scores, _) in sides.items():
            table[side] = pd.Series(side_scores)
        compared = (
            "\nagainst equally many images that it was trained on, or has never seen:\n"
            f"{seen_and_unseen(sides)}\n"
        )
    path = write_evaluation(run, table, data, args.data, queries)
    lesions = len(np.unique(lesion_groups(found["lesion_id"])))
    notes = "".join(f"{note}\n" for note in table_notes(pd.DataFrame([scores]), []))
    print(
        f"database: {args.data} (images: {len(data.split('train'))})\n"
        f"queries: {queries} (images: {len(found)}, lesions: {lesions})\n\n"
        f"{class_table(scores, data).to_string(float_format='{:.3f}'.format)}\n\n"
        f"{in_words(summary)}\nintervals are over lesions; chance is the database in random order\n"
        f"{compared}{notes}all scores: {path}"
    )


def reproduce_command(args) -> None:
    """derm-hash reproduce"""
    experiment = read_experiment(args.file)
    out = args.out or Path("runs") / args.file.stem
    data = course_data(**experiment.data)
    with on_cluster(args.scheduler) if args.scheduler else nullcontext():
        results = run_grid(experiment.grid, data, out, jobs=args.jobs, **experiment.train)
    by = settings_that_differ(results) or ["preset"]
    print(score_table(results, by, out).to_string())
    print("mean ± standard deviation over seeds; chance: the database in random order")
    print("* clearly better than every other setting, over lesions and over seeds (see compare)")
    print("\n".join(table_notes(results, by, experiment.planned_seeds)))
    save_picture(plots.plot_scores(results, by, SCORES), out / "results.png")
    print(f"every run: {out / 'results.csv'}\npicture: {out / 'results.png'}")
    if experiment.baseline:
        table = differences(results, by, experiment.baseline, out)
        path = out / "differences.csv"
        write_atomically(path, lambda part: table.to_csv(part, index=False, float_format="%.6g"))
        save_picture(plots.plot_differences(table, by), path.with_suffix(".png"))
        print(f"differences to the baseline, with intervals: {path}, and a picture beside it")


def doctor_command(args) -> int:
    """derm-hash doctor"""
    return doctor.print_report()
