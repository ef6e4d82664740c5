"""A run's folder: its config, its model file, and the history of its epochs."""

import dataclasses
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError, one_line
from derm_hash.files import write_json
from derm_hash.model import DermHash
from derm_hash.precision import fastest_precision
from derm_hash.settings import TrainConfig
from derm_hash.tensors import load_state, load_tensors, save_state, save_tensors

MODEL_FILE = "model.safetensors"
CHECKPOINT = "checkpoint.safetensors"
REMEDY = "use a smaller learning_rate or 32-true precision; the last checkpoint is still good"


def save_model(model: DermHash, path: str | Path) -> Path:
    """Write a model's weights and settings to a safetensors file, all or nothing."""
    for part in ("backbone", "attention"):
        if callable(model.settings[part]):
            raise InputError(
                f"A model with {part} of your own cannot be saved: give it a name in "
                f"{'BACKBONES' if part == 'backbone' else 'GATES'} first"
            )
    return save_tensors(path, model.state_dict(), {"derm_hash": json.dumps(model.settings)})


def load_model(path: str | Path) -> DermHash:
    """Read a model that :func:`save_model` or a training run has written, from its file or folder.

    It is in evaluation mode, on the CPU. `InputError` if the file is missing or is no such model.
    """
    path = Path(path)
    path = path / MODEL_FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"There is no model at {path}: train one with `derm-hash train`")
    tensors, about = load_tensors(path, "derm_hash", "a model saved by derm-hash")
    try:
        model = DermHash(**about["derm_hash"])
        model.load_state_dict(tensors)
    except (TypeError, RuntimeError, InputError) as error:  # other settings, or other tensors
        raise InputError(
            f"{path} is not a model of this version of derm-hash ({one_line(error)}): "
            "train it again"
        ) from error
    return model.eval()


@dataclass
class Run:
    """A finished or loaded run.

    Attributes
    ----------
    path : Path
        Its folder, with config.json, metrics.csv, model.safetensors, checkpoint.safetensors.
    config : TrainConfig
    model : DermHash in evaluation mode, on the CPU
        After the epoch that was best on ``val`` (on a tie, the later one).
    history : DataFrame with a row for each epoch
    """

    path: Path
    config: TrainConfig
    model: DermHash
    history: pd.DataFrame

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Read a run's folder; InputError if it is not one, or has no finished epoch."""
        path = Path(path)
        if not (path / "metrics.csv").is_file():
            raise InputError(f"{path} holds no finished epoch of a run: train it first")
        config, _ = read_config(path)
        return cls(path, config, load_model(path), pd.read_csv(path / "metrics.csv"))


def read_config(path: Path) -> tuple[TrainConfig, dict]:
    """Read ``config.json`` of a run: the config, and the description of the data."""
    try:
        about = json.loads((path / "config.json").read_bytes())
        return TrainConfig(**about["config"]), about["data"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{path / 'config.json'} is not the config of a run ({one_line(error)}): "
            "delete the folder and train again"
        ) from error


def claim_folder(path: Path, config: TrainConfig, data: LesionDataset, write: bool = True) -> None:
    """Write a run's ``config.json``; InputError if the folder holds another run or other data."""
    about = {"classes": list(data.classes), "size": data.size, "fingerprint": fingerprint(data)}
    if (path / "config.json").exists():
        old, old_data = read_config(path)
        changed = [
            f"{field.name} was {getattr(old, field.name)!r}"
            for field in dataclasses.fields(config)
            if getattr(old, field.name) != getattr(config, field.name)
        ]
        changed += [f"the data's {key} differs" for key in about if old_data.get(key) != about[key]]
        if changed:
            raise InputError(
                f"{path} holds another run ({', '.join(changed)}): "
                "choose another name, or delete that folder"
            )
    if write:
        write_json(path / "config.json", {"config": dataclasses.asdict(config), "data": about})


def settled(config: TrainConfig, size: int, path: Path, device: str = "auto") -> TrainConfig:
    """Replace the precision "auto" by the one that the run started with, or the faster one here.

    ``size`` is the side of the images in pixels, ``path`` the run's folder, which keeps the answer.
    """
    if config.precision != "auto":
        return config
    if (path / "config.json").exists():
        return dataclasses.replace(config, precision=read_config(path)[0].precision)

    def network() -> DermHash:
        return DermHash(config.backbone, attention=config.attention, image_size=size)

    what = f"{config.backbone}, {config.attention or 'no gate'}"
    images = config.batch_size * config.copies
    precision = fastest_precision(device, what, network, images, size)
    return dataclasses.replace(config, precision=precision)


def check_weights(state) -> None:
    """Raise InputError if a weight is no longer finite."""
    weights = (v for v in state.model.state_dict().values() if v.is_floating_point())
    if not all(value.isfinite().all() for value in weights):
        raise InputError(f"The weights are not finite in epoch {state.epoch + 1}: {REMEDY}")


def save_checkpoint(state, path: Path) -> None:
    """Write a checkpoint of a ``training.State``; all processes call it, the first one writes."""
    check_weights(state)
    if state.fabric.global_rank == 0:
        schedule = state.scheduler.state_dict()
        saved = {name: getattr(state, name) for name in ("epoch", "step", "totals", "history")}
        saved["model"] = state.model.state_dict()
        saved["contrast"] = state.contrast.state_dict() if state.contrast else {}
        saved["optimizer"] = state.optimizer.state_dict()
        # The rest follows from the config, and some of it (a Counter) does not fit into JSON.
        parts = ("last_epoch", "_step_count", "_last_lr")
        saved["scheduler"] = {name: schedule[name] for name in parts}
        saved["precision"] = state.fabric.strategy.precision.state_dict()  # the scaler of 16-mixed
        save_state(path / CHECKPOINT, saved)
    state.fabric.barrier()


def keep_progress(state, path: Path) -> str:
    """Save a checkpoint after Ctrl-C, and return the sentence that says what is kept."""
    if state.fabric.world_size > 1:
        kept = (path / CHECKPOINT).exists()
        return f"stopped; the last checkpoint is {'kept' if kept else 'not written yet'}"
    if state.epoch == state.step == 0:
        return "stopped before the end of the first step: nothing is kept"
    save_checkpoint(state, path)
    step = f"step {state.step} of " if state.step else ""
    epoch = state.epoch + 1 if state.step else state.epoch
    return f"stopped after {step}epoch {epoch}; a checkpoint is kept: run the same command again"


def load_checkpoint(state, path: Path) -> None:
    """Restore a ``training.State`` from its checkpoint, if any; InputError if it does not fit."""
    path = path / CHECKPOINT
    if not path.exists():
        return
    saved = load_state(path)
    try:
        state.model.load_state_dict(saved["model"])
        if state.contrast:
            state.contrast.load_state_dict(saved["contrast"])
        # JSON has turned the parameters' numbers into strings.
        kept = {int(i): tensors for i, tensors in saved["optimizer"]["state"].items()}
        state.optimizer.load_state_dict(saved["optimizer"] | {"state": kept})
        state.scheduler.load_state_dict(saved["scheduler"])
        state.fabric.strategy.precision.load_state_dict(saved["precision"])
        for name in ("epoch", "step", "totals", "history"):
            setattr(state, name, saved[name])
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} does not fit this run ({one_line(error)}): delete the run's folder and start "
            "again"
        ) from error
    for parameter, tensors in state.optimizer.state.items():
        for name, value in tensors.items():  # rounding may depend on the layout in memory
            if value.shape == parameter.shape:
                tensors[name] = torch.empty_like(parameter).copy_(value)


def fingerprint(data: LesionDataset) -> str:
    """A checksum of the pixels, labels and splits of a data set."""
    value = zlib.crc32(data.images.contiguous().numpy())
    value = zlib.crc32(data.labels.numpy(), value)
    return f"{zlib.crc32(','.join(data.table['split']).encode(), value):08x}"


def best_epoch(history: pd.DataFrame) -> pd.Series:
    """The row of the epoch whose model is kept: the best on ``val``; on a tie, the later one."""
    return history.loc[history["val_precision_at_10"].iloc[::-1].idxmax()]
