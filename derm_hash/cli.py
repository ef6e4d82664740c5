"""The ``derm-hash`` command: the kit without a browser."""

import argparse
from pathlib import Path

from derm_hash import __version__, commands, doctor
from derm_hash.data.manifest import SPLITS
from derm_hash.devices import DEVICES
from derm_hash.errors import exit_code, print_on_any_console
from derm_hash.experiments.mask_scores import TARGETS
from derm_hash.options import USUAL_SIZE, add_settings
from derm_hash.retrieval import METRICS

HELP = "Find similar skin lesions by short codes, without a browser."


def main(argv: list[str] | None = None) -> int:
    """Run a command; return 0, or 2 after one sentence about bad input, or 130 when stopped."""
    print_on_any_console()  # before the parser prints its help
    args = parser().parse_args(argv)
    return exit_code("derm-hash", lambda: args.run_command(args), args.stopped)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="derm-hash", description=HELP)
    top.add_argument("--version", action="version", version=f"derm-hash {__version__}")
    subparsers = top.add_subparsers(required=True, metavar="COMMAND")

    data, run, device = (argparse.ArgumentParser(add_help=False) for _ in range(3))
    data.add_argument("--data", required=True, help="folder with manifest.csv, or 'atlas'")
    run.add_argument("--run", type=Path, required=True, help="folder of a run, runs/NAME")
    text = "where to compute (auto: on a GPU if there is one)"
    device.add_argument("--device", choices=DEVICES, default="auto", help=text)
    split = {"choices": [*SPLITS, "all"], "help": "part of the data folder (%(default)s)"}

    def add(name, function, summary, *parents, stopped="stopped; nothing new is kept"):
        command = subparsers.add_parser(name, help=summary, description=summary, parents=parents)
        command.set_defaults(run_command=function, stopped=stopped)
        return command

    summary = "Train a model, or resume a training that was stopped."
    command = add("train", commands.train_command, summary, data, device)
    option = command.add_argument
    option("--size", type=int, default=USUAL_SIZE, help="image side in px (%(default)s)")
    option("--runs", default="runs", type=Path, help="folder of all runs (%(default)s)")
    option("--compile", action="store_true", help="torch.compile the network: meant for GPUs")
    add_settings(command)

    summary = "Encode images: the run's search index, or other codes."
    option = add("encode", commands.encode_command, summary, run, data, device).add_argument
    option("--split", default="database", **split)
    text = (
        "an index, NAME.safetensors, or the soft codes alone, NAME.npy, in the manifest's order "
        "(default for the database of the run's data: the run's index)"
    )
    option("--out", type=Path, help=text)
    text = (
        "in bfloat16: faster where the hardware computes in it (GPUs, CPUs with AMX or AVX-512 "
        "BF16), very slow elsewhere; soft codes differ by up to about 0.01 (default: on such "
        "hardware, if the run was trained in bfloat16)"
    )
    option("--bf16", action=argparse.BooleanOptionalAction, help=text)

    summary = "Find the cases that are similar to an image."
    option = add("search", commands.search_command, summary, run, device).add_argument
    option("image", type=Path)
    option("--index", type=Path, help="where to search (default: the run's index)")
    option("--k", type=int, default=10, help="hits wanted (%(default)s)")
    option("--radius", type=int, default=4, help="Hamming radius (%(default)s)")
    option("--metric", "--rank", choices=METRICS, default=METRICS[0])
    option("--label", help="the image's diagnosis, to mark hits as right or wrong")
    option("--out", type=Path, default=Path("hits.png"), help="picture (%(default)s)")

    summary = "Score a run on the queries of a data folder."
    option = add("evaluate", commands.evaluate_command, summary, run, data, device).add_argument
    text = (
        "another folder, whose images are searched for in the database of --data; its query split, "
        "or all of it if it has none"
    )
    option("--queries", help=text)

    summary = "Score a run's heatmaps against lesion masks."
    option = add("heatmaps", commands.heatmaps_command, summary, run, data, device).add_argument
    option("--split", default="all", **split)
    text = (
        "what is explained: the predicted class, the match with the nearest hit, the bits of the "
        "code together, or the gates as they are (%(default)s)"
    )
    option("--target", choices=TARGETS, default=TARGETS[0], help=text)
    option("--n", type=int, help="number of images, chosen at random (default: all)")
    option("--out", type=Path, help="folder for the tables (default: RUN/heatmaps)")

    summary = "Run a grid of experiments from a TOML file."
    kept = "stopped; finished runs and checkpoints are kept: run the same command to continue"
    option = add("reproduce", commands.reproduce_command, summary, stopped=kept).add_argument
    option("file", type=Path, help="such as benchmarks/configs/smoke.toml")
    option("--out", type=Path, help="folder (default: runs/NAME OF THE FILE)")
    option("--jobs", type=int, default=1, help="runs at a time on this machine (%(default)s)")
    option("--scheduler", metavar="ADDRESS", help="run on a Dask cluster, such as tcp://head:8786")

    summary = "Check this computer, and say what to do about problems."
    add("doctor", lambda _: doctor.print_report(), summary)
    return top
