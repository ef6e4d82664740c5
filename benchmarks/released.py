"""The procedure that was released with the paper, written anew: the baseline of the benchmarks.

It does what the released code does: five forward passes a training step, Python loops over the
hash table for each query, and the full-size image files opened each time. The mistakes that stop
that code (README, "The paper, and what is different here") are corrected.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

GAMMA, WEIGHT = 0.5, 0.5  # of the Cauchy rotation-invariance loss

# --- training --------------------------------------------------------------------------


def quarter_turn(x: Tensor) -> Tensor:
    """Images (B, C, H, H) turned by 90 degrees: the last axis reversed by an index, transposed."""
    backwards = torch.arange(x.shape[-1] - 1, -1, -1, device=x.device)
    return x.index_select(-1, backwards).transpose(-2, -1).contiguous()


def frequencies(y: Tensor, classes: int) -> Tensor:
    """Class weights of a batch: the share of each class in the labels (B,), counted in Python."""
    labels = y.tolist()
    return torch.tensor([labels.count(c) / len(labels) for c in range(classes)], device=y.device)


def step_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Loss of a training step: images (B, 3, H, H), labels (B,) -> scalar. Five passes."""
    logits = model(x).logits
    orbit = [x]
    for _ in range(3):
        orbit.append(quarter_turn(orbit[-1]))
    codes = [model(turned).code for turned in orbit]
    mean = sum(codes) / 4
    invariance = sum(torch.log(1 + (code - mean).abs() / GAMMA).mean() for code in codes)
    return F.cross_entropy(logits, y, frequencies(y, logits.shape[1])) + WEIGHT * invariance


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """A whole training step in float32."""
    optimizer.zero_grad()
    step_loss(model, x, y).backward()
    optimizer.step()


# --- retrieval -------------------------------------------------------------------------

Table = dict[tuple[bool, ...], list[int]]


def hash_table(codes: np.ndarray) -> Table:
    """Images by hash code: soft codes (N, bits) -> code -> positions in the database."""
    table: Table = {}
    for i, code in enumerate(codes > 0.5):
        table.setdefault(tuple(code.tolist()), []).append(i)
    return table


def cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine distance of two soft codes (bits,)."""
    return 1 - np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))


def search(
    table: Table, codes: np.ndarray, query: np.ndarray, k: int = 10, radius: int = 4
) -> list[int]:
    """At most k positions within the Hamming radius of a soft code (bits,), nearest first."""
    key = tuple((query > 0.5).tolist())
    found = []
    for other, images in table.items():
        different = 0
        for mine, theirs in zip(key, other, strict=True):
            if mine != theirs:
                different += 1
        if different <= radius:
            for i in images:
                found.append((cosine_distance(query, codes[i]), i))
    found.sort()
    return [i for _, i in found[:k]]


def paper_scores(
    table: Table, codes: np.ndarray, labels: np.ndarray, query: np.ndarray, label: int
) -> tuple[float, float]:
    """Precision and reciprocal rank of one query, by the paper's protocol."""
    right = [labels[i] == label for i in search(table, codes, query)]
    if not any(right):
        return 0.0, 0.0
    return sum(right) / len(right), 1 / (right.index(True) + 1)


# --- loading ---------------------------------------------------------------------------


def opened(path: Path) -> Image.Image:
    """Open an image of any size and convert it."""
    with Image.open(path) as image:
        return image.convert("RGB")


def load(path: Path, size: int) -> np.ndarray:
    """Open, convert and resize an image of any size: uint8 (3, size, size)."""
    return np.asarray(ImageOps.fit(opened(path), (size, size))).transpose(2, 0, 1)
