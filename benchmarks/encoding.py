"""Encoding images for an index, compared with one image at a time in float32."""

import numpy as np
import pandas as pd
import torch

from benchmarks import Row, has_bf16, side_by_side
from derm_hash.data.dataset import LesionDataset
from derm_hash.model import DermHash
from derm_hash.retrieval import build_index

COUNT, SIZE = 32, 224


def encoding(device: str = "cpu", count: int = COUNT, size: int = SIZE) -> Row:
    """`build_index` of images, ResNet-18 with attention."""
    name = {"cpu": "CPU", "cuda": "GPU"}[device]
    what = f"encoding images of {size} px for an index, ResNet-18 + HDC-SA, {name}"
    row = Row(what, "one by one in float32", 3, None)
    torch.manual_seed(0)
    model, data = DermHash().to(device).eval(), noise(count, size)
    ways = {
        "one by one": lambda: np.concatenate([one(model, image) for image in data.images]),
        "float32": lambda: build_index(model, data).codes,
    }
    if device == "cuda" or has_bf16():
        ways["bfloat16"] = lambda: build_index(model, data, bf16=True).codes
    times, exact = side_by_side(ways), ways["one by one"]()
    ratios = {name: times["one by one"] / taken for name, taken in times.items()}
    row.measured, row.note = ratios["float32"], "this CPU has no bfloat16 units"
    if "bfloat16" in ratios:
        row.measured = ratios["bfloat16"]
        row.note = f"in bfloat16, as train leaves the network; {ratios['float32']:.3g} x in 32 bits"
    row.details = {
        "ms_per_image": {name: 1e3 * taken / count for name, taken in times.items()},
        "largest_deviation": {
            name: float(np.abs(way() - exact).max()) for name, way in ways.items()
        },
    }
    return row


def noise(count: int, size: int) -> LesionDataset:
    """Images of noise, since the work does not depend on the pixels."""
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    return LesionDataset(images, pd.DataFrame({"image": map(str, range(count)), "label": "NV"}))


@torch.no_grad()
def one(model: DermHash, image: torch.Tensor) -> np.ndarray:
    """The soft code (1, bits) of an image (3, S, S) uint8."""
    x = image[None].to(model.hash_layer.weight.device).float() / 127.5 - 1
    return model(x).code.cpu().numpy()
