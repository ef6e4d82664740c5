"""Encoding images for an index, beside one by one in float32."""

import numpy as np
import torch

from benchmarks import Row, has_bf16, side_by_side
from derm_hash.model import DermHash, encode

COUNT, SIZE = 32, 224


def encoding() -> Row:
    """`encode` of images of 224 px, ResNet-18 with attention, on the CPU."""
    torch.manual_seed(0)
    model = DermHash().eval()
    images = torch.randint(0, 256, (COUNT, 3, SIZE, SIZE), dtype=torch.uint8)
    ways = {
        "one by one": lambda: np.concatenate([one(model, image) for image in images]),
        "float32": lambda: encode(model, images),
        "bfloat16": lambda: encode(model, images, bf16=True),
    }
    if not has_bf16():
        del ways["bfloat16"]
    times, exact = side_by_side(ways), ways["one by one"]()
    fastest = min(times, key=times.get)
    return Row(
        f"encoding images of {SIZE} px, ResNet-18 + HDC-SA, CPU",
        "one by one in float32",
        target=3,
        measured=times["one by one"] / times[fastest],
        note=f"in {fastest}",
        details={
            "ms_per_image": {name: 1e3 * taken / COUNT for name, taken in times.items()},
            "largest_deviation": {
                name: float(np.abs(way() - exact).max()) for name, way in ways.items()
            },
        },
    )


@torch.no_grad()
def one(model: DermHash, image: torch.Tensor) -> np.ndarray:
    """The soft code (1, bits) of an image (3, S, S) uint8."""
    return model(image[None].float() / 127.5 - 1).code.numpy()
