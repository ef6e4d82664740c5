"""Every reader of files from outside: how to make a sound file for it, and how it is called."""

import argparse
import dataclasses
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from helpers import color_data, encoded, noise, tiny, train_quietly

from data_setup import dermamnist, ham10000, isic2019, own_table, ph2, verify
from data_setup import record as records
from data_setup.sources import files_in
from derm_hash import experiments
from derm_hash.data import images, tables
from derm_hash.data import manifest as manifests
from derm_hash.model import DermHash
from derm_hash.retrieval import HashIndex
from derm_hash.runs import load_model, save_model
from derm_hash.tensors import load_state

CLASSES = ("MEL", "NV")
OWN = ("checkpoint", "model", "index", "pixels", "record")
"""What the kit writes itself; all other files may come from strangers."""


def picture(seed: int = 0, kind: str = "PNG") -> bytes:
    return encoded(noise(seed, 16, 16), kind)


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


@loader("checkpoint", load_state)
def checkpoint(folder):
    return train_quietly(tiny(epochs=1), color_data(), folder).path / "checkpoint.safetensors"


@loader("model", load_model)
def model_file(folder):
    return save_model(DermHash("pocket", 4, 2, None), folder / "model.safetensors")


@loader("index", HashIndex.load)
def index(folder):
    codes = np.random.default_rng(0).random((5, 12), np.float32)
    return HashIndex.build(codes, [0, 1, 0, 1, 1], "abcde").save(folder / "index.safetensors")


@loader("manifest", lambda path: manifests.read_manifest(path.parent))
def manifest(folder):
    (folder / "images").mkdir()
    rows = []
    for i, split in enumerate(("database", "val", "query", "")):
        written(folder / "images" / f"{i}.png", picture(i))
        row = {"image": f"images/{i}.png", "label": CLASSES[i % 2], "lesion_id": f"L{i}"}
        rows.append(row | {"split": split})
    return manifests.write_manifest(pd.DataFrame(rows), folder)


def read_pixels(path):
    names = [f"{i}.png" for i in range(3)]
    return np.array(manifests.stored_pixels(path.parent, names))


@loader("pixels", read_pixels)
def pixels(folder):
    for i in range(3):
        written(folder / f"{i}.png", picture(i))
    return manifests.store_pixels(folder, [f"{i}.png" for i in range(3)])


@loader("experiment", experiments.read_experiment)
def experiment(folder):
    text = '[data]\nsource = "atlas"\nsize = 32\nimages = 60\n'
    text += '[[grid]]\nattention = ["none", "hdcsa"]\nseed = [0, 1]\n'
    text += '[train]\nbits = 8\nmilestones = [40, 60]\n[baseline]\nattention = "none"\n'
    return written(folder / "grid.toml", text)


for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM"):
    loader(f"image {kind}", images.open_image)(
        lambda folder, kind=kind: written(folder / "image", picture(kind=kind))
    )
loader("mask", images.read_mask)(lambda folder: written(folder / "mask.png", picture()))


# --- data_setup ---------------------------------------------------------------------------


def read_archive(path):
    return [member.read_bytes() for member in files_in(path).values()]


@loader("archive", read_archive)
def archive(folder):
    with zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for i in range(3):
            file.writestr(f"images/{i}.png", picture(i))
        file.writestr("metadata.csv", "image_id,dx\n" * 50)
    return folder / "images.zip"


@loader("record", lambda path: list(verify.history(records.read_record(path.parent))))
def record(folder):
    about = {"tool": "derm-hash 1", "command": "folder", "options": {"size": 64}, "bad": {}}
    about |= {"sources": {"a": "b"}, "counts": {"images": 3}}
    return written(folder / "dataset.json", json.dumps(about))


@loader("checksums", verify.read_sums)
def checksums(folder):
    return written(folder / "SHA256SUMS", "".join(f"{i:064x}  images/{i}.png\n" for i in range(3)))


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
    lines += [f"|| IMD{i:03} ||        |        {i % 3}           || 0  | 1  ||" for i in range(6)]
    legend = "Clinical Diagnosis: 0 - Common Nevus; 1 - Atypical Nevus; 2 - Melanoma"
    lines += ["", "Legend:", legend]
    return written(folder / ph2.TABLES[0], "\n".join(lines) + "\n")


def read_labels(path):
    files = {f"{i}.png": path.with_name(f"{i}.png") for i in range(4)}
    columns = {f"{name}_column": None for name in own_table.COLUMNS}
    args = argparse.Namespace(**columns, source=path.parent, no_labels=False, partial=False)
    return own_table.read_own_table(args, path, files, files)


@loader("workbook", lambda path: tables.read_table(path, ["image", "label"]))
def workbook(folder):
    frame = pd.DataFrame({"image": [f"{i}.png" for i in range(4)], "label": CLASSES * 2})
    frame.to_excel(folder / "labels.xlsx", index=False)
    return folder / "labels.xlsx"


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
