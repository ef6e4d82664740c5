"""What ``derm-hash train``, ``encode`` and ``heatmaps`` do. Their options are in the cli module."""

import argparse
import shlex
import time
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from derm_hash import plots
from derm_hash.course import course_data
from derm_hash.data.dataset import LesionDataset
from derm_hash.devices import check_device, make_fabric
from derm_hash.errors import InputError, counted
from derm_hash.experiments.mask_scores import mask_score_table, score_heatmaps, summary_in_words
from derm_hash.files import write_atomically
from derm_hash.frozen import train_frozen
from derm_hash.model import encode
from derm_hash.options import chosen_config
from derm_hash.retrieval import HashIndex, build_index
from derm_hash.runs import Run, best_epoch, fingerprint, read_config
from derm_hash.training import train

INDEX_FILE = "index.safetensors"


def open_run(args: argparse.Namespace) -> Run:
    """The run of ``--run``, its model on the device of ``--device``."""
    device = check_device(args.device)
    run = Run.load(args.run)
    run.model.to(device)
    return run


def save_picture(figure, path: Path) -> None:
    """Write a figure as PNG, all or nothing."""
    write_atomically(path, lambda part: part.write_bytes(plots.figure_png(figure)))


def train_command(args) -> None:
    """derm-hash train"""
    config = chosen_config(args)
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
        rest = "stopped after training; the model is kept: the same command makes its index"
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
    """Print a line an epoch: ``train(..., on_epoch=EpochLines())``."""

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
    """derm-hash encode"""
    run = open_run(args)
    data = course_data(args.data, run.model.image_size)
    out = args.out or own_index(run, data, args)
    if out.suffix not in (".npy", ".safetensors"):
        raise InputError(f"--out {out} must end in .safetensors (an index) or .npy (codes alone)")
    if out.suffix not in (".npy", ".safetensors"):
        raise InputError(f"--out {out} must end in .safetensors (an index) or .npy (codes alone)")
    part = data if args.split == "all" else data.split(args.split)
    if out.suffix == ".npy":
        codes = encode(run.model, part, progress=True, bf16=args.bf16)
        write_atomically(out, lambda temporary: save_array(codes, temporary))
    else:
        write_index(run, part, args.data, out, args.bf16)
    print(f"{counted(len(part), 'code')} of {counted(run.model.bits, 'bit')}: {out}")


def own_index(run: Run, data: LesionDataset, args: argparse.Namespace) -> Path:
    """The run's index, if the images are the database of its data; InputError for any others."""
    path = run.path / INDEX_FILE
    trained_on = read_config(run.path)[1].get("fingerprint")
    if args.split == "database" and fingerprint(data) == trained_on:
        return path
    raise InputError(
        f"{path} is for the database of the data that the run was trained on: name another file "
        f"for --split {args.split} of {args.data}, such as --out {args.split}.safetensors or "
        f"--out {args.split}.npy"
    )


def save_array(array: np.ndarray, path: Path) -> None:
    """Write an .npy file of any name; numpy would add .npy to the name of a path."""
    with path.open("wb") as file:
        np.save(file, array)


def write_index(run: Run, part: LesionDataset, source: str, out: Path, bf16: bool = False) -> None:
    """Encode a data set into an index, whose items say where the images lie."""
    folder = "" if source == "atlas" else str(Path(source).resolve())
    part.table = part.table.assign(folder=folder)
    build_index(run.model, part, progress=True, bf16=bf16).save(out)


def heatmaps_command(args) -> None:
    """derm-hash heatmaps"""
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
        write_atomically(path, lambda p, t=part: t.to_csv(p, index=False, float_format="%.6g"))
    print(summary_in_words(summary).to_string())
    images, without = table["image"].nunique(), int((data.table["mask"] == "").sum())
    print(
        f"means over {images} images with 95 % intervals by lesion; without a lesion mask: "
        f"{without} of {len(data)}\nevery image: {out / name}.csv"
    )
