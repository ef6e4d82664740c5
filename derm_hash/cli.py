"""The ``derm-hash`` command: the kit without a browser."""

import argparse
import dataclasses
import json
import os
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from derm_hash import doctor, plots
from derm_hash.course import course_data
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import open_image, square
from derm_hash.data.manifest import SPLITS
from derm_hash.devices import make_fabric
from derm_hash.errors import LONGEST_NAME, InputError, cannot_be_shown, counted, exit_code, shown
from derm_hash.experiments.comparisons import differences, score_table
from derm_hash.experiments.file import read_experiment
from derm_hash.experiments.grid import run_grid
from derm_hash.experiments.results import varied
from derm_hash.experiments.scoring import evaluate_run
from derm_hash.files import leaves_folder, write_atomically
from derm_hash.metrics.scores import SCORES
from derm_hash.model import encode
from derm_hash.retrieval import METRICS, HashIndex, build_index
from derm_hash.runs import Run, best_epoch
from derm_hash.settings import PRESETS, TrainConfig
from derm_hash.training import train

INDEX_FILE = "index.safetensors"
HELP = "Find similar skin lesions by short codes, without a browser."
PICTURE = 160  # side of the pictures of hits, in pixels


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when it worked, 2 with one sentence for bad input, 130 when stopped."""

    def command() -> int | None:
        args = parser().parse_args(argv)
        return args.run_command(args)

    return exit_code("derm-hash", command, "stopped; the same command goes on from here.")


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="derm-hash", description=HELP)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name, function, summary):
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(run_command=function)
        return command

    command = add("train", train_command, "Train a model, or go on where it was stopped.")
    add_data(command)
    command.add_argument(
        "--runs", default="runs", type=Path, help="folder of all runs (%(default)s)"
    )
    command.add_argument("--preset", default="recommended", choices=PRESETS)
    command.add_argument(
        "--compile", action="store_true", help="torch.compile the network: meant for GPUs"
    )
    add_settings(command)

    command = add("encode", encode_command, "Encode images and write the run's search index.")
    add_run(command)
    add_data(command, size=False)
    command.add_argument("--split", choices=[*SPLITS, "all"], default="database")
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
    command.add_argument("--k", type=int, default=10, help="hits wanted (%(default)s)")
    command.add_argument("--radius", type=int, default=4, help="Hamming radius (%(default)s)")
    command.add_argument("--metric", "--rank", choices=METRICS, default=METRICS[0])
    command.add_argument("--label", help="the image's diagnosis, to mark hits as right or wrong")
    command.add_argument("--out", type=Path, default=Path("hits.png"), help="picture (%(default)s)")

    command = add("evaluate", evaluate_command, "Score a run on the queries of a data folder.")
    add_run(command)
    add_data(command, size=False)

    command = add("reproduce", reproduce_command, "Run a grid of experiments from a TOML file.")
    command.add_argument("file", type=Path, help="such as benchmarks/configs/smoke.toml")
    command.add_argument("--out", type=Path, help="folder (default: runs/NAME OF THE FILE)")

    add("doctor", doctor_command, "Check this computer, and say what to do about problems.")
    return top


def add_data(command: argparse.ArgumentParser, size: bool = True) -> None:
    """Options for the data folder."""
    command.add_argument("--data", required=True, help="folder with manifest.csv, or 'atlas'")
    if size:
        command.add_argument("--size", type=int, default=64, help="image side in px (%(default)s)")


def add_run(command: argparse.ArgumentParser) -> None:
    """The option for a trained run."""
    command.add_argument("--run", type=Path, required=True, help="folder of a run, runs/NAME")


def add_settings(command: argparse.ArgumentParser) -> None:
    """One option for each field of TrainConfig; only those given change the preset."""
    settings = command.add_argument_group("settings", "what differs from the preset")
    for field in dataclasses.fields(TrainConfig):
        settings.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=f"set_{field.name}",
            default=argparse.SUPPRESS,
            metavar="VALUE",
            type=lambda text, type_=field.type: from_text(text, type_),
        )


def from_text(text: str, type_: object) -> object:
    """A setting from the command line as its type wants it: "0.1" -> 0.1, "40,60" -> [40, 60].

    What is not such a value stays text, so that TrainConfig names it.
    """
    if type_ in (str, str | None):
        return None if type_ is not str and text == "none" else text
    try:
        return json.loads(f"[{text}]" if type_ == tuple[int, ...] else text.lower())
    except ValueError:
        return text


def settings_given(args: argparse.Namespace) -> dict:
    """The TrainConfig fields that were given."""
    return {key[4:]: value for key, value in vars(args).items() if key.startswith("set_")}


def train_command(args) -> None:
    """derm-hash train"""
    config = TrainConfig.preset(args.preset, **settings_given(args))
    data = course_data(args.data, args.size)
    run = train(config, data, args.runs, compiled=args.compile)
    save_picture(plots.plot_history(run.history), run.path / "history.png")
    write_index(run, data.split("database"), args.data)
    best = best_epoch(run.history)
    following = ["derm-hash", "evaluate", "--run", str(run.path), "--data", args.data]
    print(
        f"best on val: class-mean precision@10 {best['val_precision_at_10']:.3f} "
        f"after epoch {best['epoch']:.0f} of {config.epochs}\n"
        f"model, index, metrics.csv and curves: {run.path}\n"
        f"next: {shlex.join(following)}"
    )


def save_picture(figure, path: Path) -> None:
    """Write a figure as PNG, all or nothing."""
    write_atomically(path, lambda part: part.write_bytes(plots.figure_png(figure)))


def encode_command(args) -> None:
    """derm-hash encode"""
    run = Run.load(args.run)
    data = course_data(args.data, run.model.image_size)
    part = data if args.split == "all" else data.split(args.split)
    path = write_index(run, part, args.data, args.bf16)
    print(f"{counted(len(part), 'code')} of {counted(run.model.bits, 'bit')}: {path}")


def write_index(run: Run, part: LesionDataset, source: str, bf16: bool = False) -> Path:
    """Encode a data set into the run's index, whose items say where the images lie."""
    folder = "" if source == "atlas" else str(Path(source).resolve())
    part.table = part.table.assign(folder=folder)
    index = build_index(run.model, part, progress=True, bf16=bf16)
    return index.save(run.path / INDEX_FILE)


def search_command(args) -> None:
    """derm-hash search"""
    if args.label is not None and cannot_be_shown(args.label):
        raise InputError(
            f"The --label '{shown(args.label)}' has a control character or more than "
            f"{LONGEST_NAME} characters: give the name of a class."
        )
    run = Run.load(args.run)
    query = picture_of(args.image, run.model.image_size)
    index = HashIndex.load(run.path / INDEX_FILE)
    check_items(index, run.path / INDEX_FILE)
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
    run = Run.load(args.run)
    data = course_data(args.data, run.model.image_size)
    if data.classes != run.model.class_names:
        trained = shown(", ".join(run.model.class_names))
        raise InputError(
            f"{args.run} was trained on {trained} and {args.data} has "
            f"{', '.join(data.classes)}: evaluate it on data with the same classes."
        )
    scores = evaluate_run(run, data, progress=True)
    write_atomically(
        run.path / "evaluation.csv",
        lambda part: pd.Series(scores, name="value").rename_axis("score").to_csv(part),
    )
    print(per_class_table(scores, data.classes).to_string(float_format="{:.3f}".format))
    print(f"\n{scores_in_words(scores)}\nall scores: {run.path / 'evaluation.csv'}")


def per_class_table(scores: dict[str, float], classes: tuple[str, ...]) -> pd.DataFrame:
    """Queries, precision@10 and average precision of each class."""
    present = [name for name in classes if f"ap_{name}" in scores]
    columns = {"queries": "queries", "precision@10": "precision_at_10", "AP": "ap"}
    table = {title: [scores[f"{key}_{name}"] for name in present] for title, key in columns.items()}
    return pd.DataFrame(table, index=present).astype({"queries": int})


def scores_in_words(scores: dict[str, float]) -> str:
    """The scores over all classes, a line each."""
    lines = {
        "class-mean precision@10": "class_mean_precision_at_10",
        "class-mean mAP": "class_mean_map",
        "class-mean mAP by Hamming distance, tie-aware": "class_mean_tie_aware_map",
        "paper protocol, precision in radius 4, top 10": "paper_precision",
        "paper protocol, reciprocal rank": "paper_reciprocal_rank",
        "bits that flip under quarter turns": "flipped_bits",
        "top 10 that stay under quarter turns": "overlap_at_10",
    }
    return "\n".join(f"{title + ':':48}{scores[key]:.3f}" for title, key in lines.items())


def reproduce_command(args) -> None:
    """derm-hash reproduce"""
    experiment = read_experiment(args.file)
    out = args.out or Path("runs") / args.file.stem
    data = course_data(**experiment.data)
    results = run_grid(experiment.grid, data, out, **experiment.train)
    if make_fabric().global_rank > 0:
        return
    by = varied(results) or ["preset"]
    print(score_table(results, by, out).to_string())
    print("mean ± deviation over seeds; * best, and not by chance (paired tests, p < 0.05)")
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
