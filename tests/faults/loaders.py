"""Every reader of files from outside: how to make a sound file for it, and how it is called."""

import argparse
import dataclasses
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import nn

from data_setup import common, dermamnist, download, ham10000, isic2019, ph2, verify
from data_setup import folder as own_images
from data_setup.archives import Archive
from derm_hash import course, data, experiments, images, model, training
from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError
from derm_hash.model import DermHash
from derm_hash.retrieval import HashIndex
from derm_hash.settings import TrainConfig
from derm_hash.training_state import TrainingState, make_optimizer, make_scheduler

CONFIG = TrainConfig(name="run", bits=4, epochs=2)
CLASSES = ("MEL", "NV")


class Pocket(nn.Module):
    """A network so small that its files are, too; in the place of resnet10."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 1)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).mean(dim=(2, 3)))


def use_pocket(patch) -> None:
    """Put the small network in the place of resnet10."""
    real = model.make_backbone
    patch.setattr(
        model, "make_backbone", lambda name, w: Pocket() if name == "resnet10" else real(name, w)
    )


def small_model() -> DermHash:
    torch.manual_seed(0)
    found = DermHash("resnet10", 4, 2, attention=None)
    found.class_names, found.image_size = CLASSES, 32
    return found


def small_state() -> TrainingState:
    """Training after two of three steps."""
    torch.manual_seed(0)
    network = small_model()
    optimizer = make_optimizer(CONFIG, network)
    scheduler = make_scheduler(CONFIG, optimizer, 3)
    state = TrainingState(
        CONFIG, Fabric(accelerator="cpu", devices=1), network, optimizer, scheduler, None, 3
    )
    for _ in range(2):
        network(torch.rand(4, 3, 8, 8)).logits.sum().backward()
        optimizer.step()
        scheduler.step()
    state.step, state.totals = 2, {"loss": 1.5, "lr": 0.002}
    return state


def picture(seed: int = 0, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


@dataclasses.dataclass(frozen=True)
class Loader:
    """How to make a sound file in an empty folder, and how to read it."""

    make: Callable[[Path], Path]
    load: Callable[[Path], object]


LOADERS: dict[str, Loader] = {}


def loader(name: str, load: Callable[[Path], object]) -> Callable:
    """Register the function that makes the file."""

    def register(make: Callable[[Path], Path]) -> Callable:
        LOADERS[name] = Loader(make, load)
        return make

    return register


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- derm_hash ------------------------------------------------------------------------------


@loader("checkpoint", lambda path: small_state().resume(path))
def checkpoint(folder):
    path = folder / "last.ckpt"
    small_state().save(path)
    return path


@loader("model", model.load_model)
def model_file(folder):
    return model.save_model(small_model(), folder / "model.safetensors")


@loader("index", HashIndex.load)
def index(folder):
    codes = np.random.default_rng(0).random((5, 12), np.float32)
    items = pd.DataFrame(
        {"image": [f"{i}.png" for i in range(5)], "label": "NV", "folder": "/data"}
    )
    return HashIndex.build(codes, [0, 1, 0, 1, 1], items).save(folder / "index.safetensors")


@loader("config", lambda path: training.read_config(path.parent))
def config(folder):
    pixels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    table = pd.DataFrame({"image": ["a", "b"], "label": CLASSES, "split": "database"})
    training.claim_folder(folder, CONFIG, LesionDataset(pixels, table))
    return folder / "config.json"


@loader("metrics", training.read_history)
def metrics(folder):
    text = "epoch,loss,val_precision_at_10,lr\n1,0.75,0.5,0.001\n2,0.5,0.625,0.0005\n"
    return written(folder / "metrics.csv", text)


@loader("manifest", lambda path: data.read_manifest(path.parent))
def manifest(folder):
    (folder / "images").mkdir()
    rows = []
    for i in range(4):
        written(folder / "images" / f"{i}.png", picture(i))
        split = ("database", "val", "query", "")[i]
        rows.append(
            {"image": f"images/{i}.png", "label": CLASSES[i % 2], "lesion_id": f"L{i}"}
            | {"split": split}
        )
    return data.write_manifest(pd.DataFrame(rows), folder)


def read_pixels(path):
    names = [f"{i}.png" for i in range(3)]
    return np.array(data.stored_pixels(path.parent, names))


@loader("pixels", read_pixels)
def pixels(folder):
    for i in range(3):
        written(folder / f"{i}.png", picture(i))
    return data.store_pixels(folder, [f"{i}.png" for i in range(3)])


def read_result(path):
    out = path.parents[1]
    experiments.collect(out)
    try:
        experiments.read_results(out)
    except InputError as error:
        raise AssertionError("a result has made a table that cannot be read") from error


ROW = {"run": "run", "readout": "plain", "scored_on": "query", "preset": "recommended"}
ROW |= {"split": "given", "split_seed": 0, "data": "0123abcd", "attention": "none", "seed": 1}
ROW |= {"milestones": "40,60", "torch": "2.4", "python": "3.11", "seconds": None, "map": 0.25}
ROW |= dict.fromkeys(experiments.SCORES, 0.5) | {"flipped_bits": float("nan")}


@loader("result", read_result)
def result(folder):
    (folder / "run").mkdir()
    return written(folder / "run" / "result-plain.json", json.dumps(ROW, indent=1))


@loader("results", lambda path: experiments.read_results(path.parent))
def results(folder):
    pd.DataFrame([ROW, ROW | {"seed": 2}]).to_csv(folder / "results.csv", index=False)
    return folder / "results.csv"


@loader("experiment", experiments.read_experiment)
def experiment(folder):
    text = '[data]\nsource = "atlas"\nsize = 32\nimages = 60\n'
    text += '[[grid]]\nattention = ["none", "hdcsa"]\nseed = [0, 1]\n'
    text += '[train]\nbits = 8\nmilestones = [40, 60]\n[baseline]\nattention = "none"\n'
    return written(folder / "grid.toml", text)


def read_atlas(path):
    if course.stored_atlas(path, 4, 8, 0) is None:
        raise InputError("The cached atlas is drawn again.")


@loader("atlas", read_atlas)
def atlas(folder):
    rng, path = np.random.default_rng(0), folder / "atlas.npz"
    pixels = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    names = {"labels": np.array(["MEL", "NV"] * 2), "lesion_ids": np.array(list("aabc"))}
    np.savez(path, images=pixels, masks=pixels[..., 0] > 100, **names)
    return path


for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM"):
    loader(f"image {kind}", images.open_image)(
        lambda folder, kind=kind: written(folder / "image", picture(kind=kind))
    )
loader("mask", images.read_mask)(lambda folder: written(folder / "mask.png", picture()))


# --- data_setup ---------------------------------------------------------------------------


def read_archive(path):
    with Archive(path) as archive:
        return [archive.read(name) for name in archive.members]


@loader("archive", read_archive)
def archive(folder):
    with zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for i in range(3):
            file.writestr(f"images/{i}.png", picture(i))
        file.writestr("metadata.csv", "image_id,dx\n" * 50)
    return folder / "images.zip"


@loader("record", lambda path: list(verify.history(common.read_record(path.parent))))
def record(folder):
    about = {
        "tool": "derm-hash 1",
        "command": "folder",
        "options": {"size": 64},
        "sources": {"a": "b"},
    }
    return written(
        folder / "dataset.json", json.dumps(about | {"bad": {}, "counts": {"images": 3}})
    )


@loader("checksums", verify.read_sums)
def checksums(folder):
    return written(folder / "SHA256SUMS", "".join(f"{i:064x}  images/{i}.png\n" for i in range(3)))


@loader("ledger", lambda path: download._Ledger(path.parent))
def ledger(folder):
    entry = {"hash": "sha256:00", "size": 3, "mtime_ns": 5, "part": {"mark": "x", "size": 3}}
    return written(folder / "downloads.json", json.dumps({"a.zip": entry}))


@loader("npz", lambda path: dermamnist.load(path, 8))
def npz(folder):
    rng, arrays = np.random.default_rng(0), {}
    for part in dermamnist.PARTS:
        arrays[f"{part}_images"] = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
        arrays[f"{part}_labels"] = rng.integers(0, 7, (4, 1), np.uint8)
    np.savez(folder / "dermamnist.npz", **arrays)
    return folder / "dermamnist.npz"


@loader("HAM10000", ham10000.read_metadata)
def ham(folder):
    lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    lines += [f"HAM_{i:07},ISIC_{i:07},nv,histo,50.0,male,back" for i in range(4)]
    return written(folder / "HAM10000_metadata.csv", "\n".join(lines) + "\n")


@loader("ISIC 2019", isic2019.read_truth)
def isic(folder):
    lines = ["image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK", "ISIC_0,1.0,0,0,0,0,0,0,0,0"]
    lines += ["ISIC_1,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0"]
    return written(folder / "truth.csv", "\n".join(lines) + "\n")


@loader("PH2", ph2.read_diagnoses)
def ph2_table(folder):
    lines = ["||   Name || Histological Diagnosis | Clinical Diagnosis || Asymmetry |  Colors ||"]
    lines += [
        f"|| IMD{i:03} ||                        |        {i % 3}           || 0  | 1  ||"
        for i in range(6)
    ]
    lines += [
        "",
        "Legend:",
        "Clinical Diagnosis: 0 - Common Nevus; 1 - Atypical Nevus; 2 - Melanoma",
    ]
    return written(folder / ph2.TABLE, "\n".join(lines) + "\n")


def read_labels(path):
    columns = dict.fromkeys(("image_column", "label_column", "lesion_column"))
    return own_images.labelled(path.parent, argparse.Namespace(csv=path, **columns))


@loader("folder --csv", read_labels)
def labels(folder):
    lines = ["image,label,lesion_id"]
    for i in range(4):
        written(folder / f"{i}.png", b"")
        lines.append(f"{i}{'.png' * (i % 2)},{CLASSES[i % 2]},L{i // 2}")
    return written(folder / "labels.csv", "\n".join(lines) + "\n")


def prepared(folder: Path, name: str) -> tuple[Path, Callable[[Path], object]]:
    """A sound file of a loader in an empty folder, and the function that reads it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return LOADERS[name].make(folder), LOADERS[name].load
