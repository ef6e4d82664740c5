"""What the commands of ``derm-hash`` do. Their options are in the cli module."""

import argparse
import io
import os
import shlex
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from derm_hash import plots
from derm_hash.course import course_data
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import open_image, square
from derm_hash.devices import check_device, make_fabric
from derm_hash.errors import LONGEST_NAME, InputError, cannot_be_shown, counted, shown
from derm_hash.experiments import evaluation
from derm_hash.experiments.cluster import on_cluster
from derm_hash.experiments.comparisons import differences, score_table
from derm_hash.experiments.file import read_experiment
from derm_hash.experiments.grid import run_grid
from derm_hash.experiments.mask_scores import mask_score_table, score_heatmaps, summary_in_words
from derm_hash.experiments.results import settings_that_differ, table_notes
from derm_hash.experiments.scoring import encode_data, has_unseen, score_codes
from derm_hash.files import leaves_folder, write_atomically, write_text
from derm_hash.frozen import train_frozen
from derm_hash.metrics.familiarity import Familiarity
from derm_hash.metrics.intervals import lesion_groups
from derm_hash.metrics.scores import SCORES
from derm_hash.model import encode
from derm_hash.options import chosen_config
from derm_hash.retrieval import HashIndex, build_index
from derm_hash.runs import Run, best_epoch, fingerprint, read_config, settled
from derm_hash.training import train

INDEX_FILE = "index.safetensors"
PICTURE = 160  # side of the pictures of hits, in pixels
PICTURED = 50  # hits that the picture of a search shows at most


def open_run(args: argparse.Namespace) -> Run:
    """Load the run of ``--run``, with its model on the device of ``--device``."""
    device = check_device(args.device)
    run = Run.load(args.run)
    run.model.to(device)
    return run


def save_picture(figure, path: Path) -> None:
    """Write a figure as PNG, all or nothing."""
    write_atomically(path, lambda part: part.write_bytes(plots.figure_png(figure)))


def train_command(args) -> None:
    config = chosen_config(args)
    if config.frozen and (args.compile or args.device == "cuda"):
        raise InputError(
            "a frozen run trains on the CPU, in seconds: leave out --device and --compile"
        )
    if not config.frozen:
        config = settled(config, args.size, args.runs / config.name, args.device)
    fabric = make_fabric(config.precision, args.device)
    data = course_data(args.data, args.size)
    options = {"on_epoch": EpochLines(), "fabric": fabric, "compiled": args.compile}
    if config.frozen:
        run = train_frozen(config, data, args.runs)
    else:
        run = train(config, data, args.runs, **options)
    if fabric.global_rank > 0:
        return
    try:
        run.model.to(fabric.device)
        save_picture(plots.plot_history(run.history), run.path / "history.png")
        write_index(run, data.split("database"), args.data, run.path / INDEX_FILE)
    except KeyboardInterrupt:
        rest = "stopped after training; the model is kept: run the same command to make its index"
        raise KeyboardInterrupt(rest) from None
    best = best_epoch(run.history)
    following = ["derm-hash", "evaluate", "--run", str(run.path), "--data", args.data]
    print(
        f"best on val: class-mean precision@10 {best['val_precision_at_10']:.3f} "
        f"after epoch {best['epoch']:.0f} of {config.epochs}\n"
        f"model, index, metrics.csv and curves: {run.path}\n"
        f"next: {shlex.join(following)}"
    )


class EpochLines:
    """Print a line for each epoch: ``train(..., on_epoch=EpochLines())``."""

    def __init__(self):
        self.began = time.monotonic()

    def __call__(self, history: pd.DataFrame) -> None:
        """Print the last epoch of the history, above the progress bar."""
        last, now = history.iloc[-1], time.monotonic()
        tqdm.write(
            f"epoch {last['epoch']:.0f}: loss {last['loss']:.3f}, class-mean precision@10 on val "
            f"{last['val_precision_at_10']:.3f}, {now - self.began:.0f} s"
        )
        self.began = now


def encode_command(args) -> None:
    run = open_run(args)
    data = course_data(args.data, run.model.image_size)
    out = args.out or own_index(run, data, args)
    if out.suffix not in (".npy", ".safetensors"):
        raise InputError(f"--out {out} must end in .safetensors (an index) or .npy (codes alone)")
    part = data if args.split == "all" else data.split(args.split)
    if out.suffix == ".npy":
        content = io.BytesIO()
        np.save(content, encode(run.model, part, progress=True, bf16=args.bf16))
        write_atomically(out, lambda temporary: temporary.write_bytes(content.getvalue()))
    else:
        write_index(run, part, args.data, out, args.bf16)
    print(f"{counted(len(part), 'code')} of {counted(run.model.bits, 'bit')}: {out}")


def own_index(run: Run, data: LesionDataset, args: argparse.Namespace) -> Path:
    """The run's index, if the images are the database of its data, else InputError."""
    path = run.path / INDEX_FILE
    trained_on = read_config(run.path)[1].get("fingerprint")
    if args.split == "database" and fingerprint(data) == trained_on:
        return path
    raise InputError(
        f"{path} is for the database of the data that the run was trained on: name another file "
        f"for --split {args.split} of {args.data}, such as --out {args.split}.safetensors or "
        f"--out {args.split}.npy"
    )


def write_index(
    run: Run, part: LesionDataset, source: str, out: Path, bf16: bool | None = None
) -> None:
    """Encode a data set into an index, whose items say where the images lie."""
    folder = "" if source == "atlas" else str(Path(source).resolve())
    part.table = part.table.assign(folder=folder)
    build_index(run.model, part, progress=True, bf16=bf16).save(out)


def search_command(args) -> None:
    if args.label is not None and cannot_be_shown(args.label):
        raise InputError(
            f"The --label '{shown(args.label)}' has a control character or more than "
            f"{LONGEST_NAME} characters: give the name of a class"
        )
    run = open_run(args)
    query = picture_of(args.image, run.model.image_size)
    path = args.index or run.path / INDEX_FILE
    index = HashIndex.load(path)
    check_items(index, path)
    image = torch.from_numpy(np.array(query)).permute(2, 0, 1)[None]
    code = encode(run.model, image)
    hits = index.search(code, min(args.k, len(index)), args.radius, args.metric)
    found = hits.ids[0] >= 0
    ids, hamming, distance = (field[0][found] for field in hits)
    table = index.items.iloc[ids].assign(id=ids, hamming=hamming, distance=distance)
    table = table.set_index(pd.RangeIndex(1, len(table) + 1, name="rank"))
    if table.empty:
        near = f"within {args.radius} bits of {shown(args.image)}"
        print(f"No image lies {near}: try a larger --radius")
        return
    print(table[["image", "label", "lesion_id", "hamming", "distance"]].to_string())
    if (table["folder"] == "").any():
        print("No picture is drawn, since the built-in atlas has no image files")
    else:
        draw_hits(args, table.head(PICTURED), code[0], index)
        if len(table) > PICTURED:
            print(f"It shows the first {PICTURED} of {len(table)} hits")
    warn_of_strange(image, table["folder"].iloc[0])


def warn_of_strange(image: torch.Tensor, folder: str) -> None:
    """Say so if an image (1, 3, S, S) is unlike the database in a data folder ("": the atlas)."""
    data = course_data(folder or "atlas", image.shape[-1])
    parts = set(data.table["split"])
    if "database" not in parts or parts.isdisjoint({"val", "query"}):
        return  # nothing says how far from the database an image usually is
    others = data.split("val" if "val" in parts else "query")
    [found] = Familiarity(data.split("database"), others).about(image)
    if found["distance"] > found["limit"]:
        print(
            "The image is unlike everything in the database (distance {distance:.2f} from the "
            "nearest, usual is up to {limit:.2f}): its hits mean nothing".format(**found)
        )


def picture_of(path: Path, side: int) -> Image.Image:
    """Read an image file, squared; InputError if it is no file, such as a pipe that never ends."""
    # Path.exists raises an error where a name is too long.
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113
        raise InputError(f"{shown(path)} is not a file: name an image file")
    return square(open_image(path), side)


def check_items(index: HashIndex, path: Path) -> None:
    """InputError unless the index says where the images are, and they lie in their folder."""
    wanted = ["image", "label", "lesion_id", "folder"]
    if not set(wanted) <= set(index.items) or not index.items.columns.is_unique:
        raise InputError(f"{path} does not say where its images are: run `derm-hash encode` again")
    texts = index.items[wanted].map(lambda value: isinstance(value, str)).all(axis=None)
    if not texts or index.items["image"].map(leaves_folder).any():
        raise InputError(f"{path} names images outside its folder: run `derm-hash encode` again")
    if index.items[wanted].map(cannot_be_shown).any(axis=None):
        raise InputError(
            f"{path} has names with control characters or of more than {LONGEST_NAME} characters: "
            "rename them in the data folder and run `derm-hash encode` again"
        )


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
    run = open_run(args)
    size, queries = run.model.image_size, args.queries or args.data
    data = evaluation.in_classes_of(run, course_data(args.data, size), args.data)
    if evaluation.place(queries) != evaluation.place(args.data):
        others = evaluation.in_classes_of(run, course_data(queries, size), queries)
        data = evaluation.with_queries(data, others)
    coded = encode_data(run.model, data, progress=True)
    scores, found = score_codes(coded, data)
    summary = evaluation.summarise(scores, found)
    table = pd.DataFrame({"value": scores}).join(summary.drop(columns="value"))
    compared = ""
    trained_on = read_config(run.path)[1].get("fingerprint")
    if fingerprint(data) == trained_on and has_unseen(data):
        sides = {side: score_codes(coded, data, database=side) for side in ("trained", "unseen")}
        for side, (side_scores, _) in sides.items():
            table[side] = pd.Series(side_scores)
        compared = (
            "\nagainst equally many images that the run was trained on, or has never seen:\n"
            f"{evaluation.seen_and_unseen(sides)}\n"
        )
    path = evaluation.write_evaluation(run, table, data, args.data, queries)
    classes = evaluation.class_table(scores, data)
    save_picture(plots.plot_class_scores(classes), path.with_suffix(".png"))
    lesions = len(np.unique(lesion_groups(found["lesion_id"])))
    notes = "".join(f"{note}\n" for note in table_notes(pd.DataFrame([scores]), []))
    print(
        f"database: {args.data} (images: {len(data.split('train'))})\n"
        f"queries: {queries} (images: {len(found)}, lesions: {lesions})\n\n"
        f"{classes.to_string(float_format='{:.3f}'.format)}\n\n"
        f"{evaluation.in_words(summary)}\n"
        f"intervals are over lesions; chance is the database in random order\n"
        f"{compared}{notes}all scores: {path}\n"
        f"scores against class size: {path.with_suffix('.png')}"
    )


def reproduce_command(args) -> None:
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
        write_text(path, table.to_csv(index=False, float_format="%.6g"))
        save_picture(plots.plot_differences(table, by), path.with_suffix(".png"))
        print(f"differences to the baseline, with intervals: {path}, and a picture beside it")


def heatmaps_command(args) -> None:
    run = open_run(args)
    data = course_data(args.data, run.model.image_size)
    data = data if args.split == "all" else data.split(args.split)
    index = HashIndex.load(run.path / INDEX_FILE) if args.target == "match" else None
    table = score_heatmaps(run.model, data, args.target, args.n, index, progress=True)
    summary = mask_score_table(table)
    out = args.out or run.path / "heatmaps"
    out.mkdir(parents=True, exist_ok=True)
    name = f"{args.target}-{Path(args.data).resolve().name}"
    for part, path in ((table, out / f"{name}.csv"), (summary, out / f"{name}-summary.csv")):
        write_text(path, part.to_csv(index=False, float_format="%.6g"))
    print(summary_in_words(summary).to_string())
    images, without = table["image"].nunique(), int((data.table["mask"] == "").sum())
    print(
        f"means over {images} images with 95 % intervals by lesion; without a lesion mask: "
        f"{without} of {len(data)}\nevery image: {out / name}.csv"
    )
