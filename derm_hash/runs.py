"""A run: its folder, its model file, its config and its history."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from derm_hash.data.manifest import read_table
from derm_hash.errors import InputError, one_line
from derm_hash.files import load_tensors, misfit, parse_json, save_tensors
from derm_hash.model import DermHash
from derm_hash.settings import TrainConfig


@dataclass
class Run:
    """A finished or loaded run.

    path: its folder (config.json, metrics.csv, model.safetensors, last.ckpt); model: the
    epoch that was best on ``val`` (of equals the last), in evaluation mode on the CPU;
    history: one row an epoch.
    """

    path: Path
    config: TrainConfig
    model: DermHash
    history: pd.DataFrame

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Read a run's folder; InputError if it is not one or holds no finished epoch."""
        path = Path(path)
        if not (path / "metrics.csv").is_file():
            raise InputError(f"{path} holds no finished epoch of a run: train it first.")
        config, _ = read_config(path)
        return cls(path, config, load_model(path), read_history(path / "metrics.csv"))


def read_config(path: Path) -> tuple[TrainConfig, dict]:
    """The config of a run folder, and what it says of its data."""
    try:
        about = parse_json((path / "config.json").read_bytes())
        settings, data = about["config"], dict(about["data"])
        settings = settings | {"milestones": tuple(settings["milestones"])}
        return TrainConfig(**settings), data
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = one_line(error).rstrip(".")
        raise InputError(f"{path / 'config.json'} is not the config of a run: {reason}.") from error


def read_history(path: Path) -> pd.DataFrame:
    """The table of a run's epochs; InputError if it is none."""
    try:
        table = read_table(path).apply(pd.to_numeric)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path} is not the table of a run: delete the folder and train again."
        ) from error
    if table.empty or not {"epoch", "loss", "val_precision_at_10"} <= set(table):
        raise InputError(f"{path} is not the table of a run: delete the folder and train again.")
    return table


def best_epoch(history: pd.DataFrame) -> pd.Series:
    """The row of a history whose model is kept: the best on ``val``, of equals the last."""
    return history.loc[history["val_precision_at_10"].iloc[::-1].idxmax()]


MODEL_FILE = "model.safetensors"
MAX_SIDE = 8192  # pixels: more than any network here is trained on


def save_model(model: DermHash, path: str | Path) -> Path:
    """Write a model's weights and settings to a safetensors file, all or nothing."""
    if not isinstance(model.settings["attention"], str | None):
        raise InputError("A model with a gate of your own cannot be saved: add it to GATES first.")
    about = model.settings | {"class_names": model.class_names, "image_size": model.image_size}
    return save_tensors(path, model.state_dict(), "derm_hash", json.dumps(about))


def load_model(path: str | Path, bits: int | None = None) -> DermHash:
    """Read a model that :func:`save_model` or a training run has written.

    Parameters
    ----------
    path : str or Path
        The safetensors file, or the run's folder.
    bits : int, optional
        Refuse a model with another code length.

    Raises
    ------
    InputError
        If there is no such file, it is not a derm-hash model, or has other bits.
    """
    path = Path(path)
    path = path / MODEL_FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"There is no model at {path}: train one with `derm-hash train`.")
    tensors, about = load_tensors(path, "derm_hash", "a model saved by derm-hash")
    model = described_model(path, about, tensors)
    if bits is not None and bits != model.bits:
        raise InputError(
            f"{path} makes codes of {model.bits} bits, not {bits}: "
            f"ask for {model.bits} bits or train another model."
        )
    model.load_state_dict(tensors)
    return model.eval()


def described_model(path: Path, about: object, tensors: dict[str, Tensor]) -> DermHash:
    """A new model as a file describes it, into which the file's tensors fit.

    The network is laid out without memory first: what a description claims costs nothing before
    the tensors bear it out.
    """
    try:
        about = dict(about)
        names, size = tuple(about.pop("class_names")), about.pop("image_size")
        about = {"backbone": "resnet18", "attention": "hdcsa", "disc": False} | about
        texts = (*names, about["backbone"], about["attention"] or "")
        if not all(isinstance(name, str) for name in texts):
            raise ValueError("a name is not a text")
        if not (size is None or (type(size) is int and 1 <= size <= MAX_SIDE)):
            raise ValueError(f"an image size of {size!r}")
        numbers = {name: about[name] for name in ("bits", "classes")}
        if any(type(number) is not int for number in numbers.values()):
            raise ValueError(f"{numbers}")
        if len(names) != numbers["classes"] or type(about["disc"]) is not bool:
            raise ValueError(f"{numbers['classes']} classes, disc {about['disc']!r}")
        if about.get("weights") is not None:
            raise ValueError("weights come with the file")
        with torch.device("meta"):
            plan = DermHash(**about)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{path} is not a model saved by derm-hash: {one_line(error)}.") from error
    if misfit(tensors, plan.state_dict()):
        raise InputError(
            f"{path} does not fit the model that it describes: save or train it again."
        )
    model = DermHash(**about)
    model.class_names, model.image_size = names, size
    return model
