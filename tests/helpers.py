"""Set-ups that several test files share: tiny networks, data sets, and comparisons of runs."""

import io
import socket
import struct
import zlib
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from PIL import Image
from torch import nn
from torchvision.models.resnet import BasicBlock

from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError
from derm_hash.metrics import ranking
from derm_hash.model import BACKBONES
from derm_hash.settings import TrainConfig
from derm_hash.tensors import load_state
from derm_hash.training import train

CLASSES = ("MEL", "NV", "BCC")
SPLITS = ["database"] * 28 + ["val"] * 8 + ["query"] * 4
COLOURS = torch.tensor([[60, 40, 30], [200, 150, 120], [120, 60, 200]])
RUN_FILES = {".lock", "config.json", "metrics.csv", "model.safetensors", "checkpoint.safetensors"}


class Stop(Exception):
    """Training is interrupted."""


class Pocket(nn.Module):
    """A residual network of one block: a step takes milliseconds."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=4, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.block = BasicBlock(16, 16)
        self.fc = nn.Linear(16, 1)

    def forward(self, x):
        return self.fc(self.block(self.bn1(self.conv1(x)).relu()).mean(dim=(2, 3)))


BACKBONES["pocket"] = lambda weights: Pocket()


def color_data(seed=0, splits=SPLITS, labels=None, size=32) -> LesionDataset:
    """Images in three classes, in turn if no labels are given; the class is the colour, under
    noise."""
    labels = torch.arange(len(splits)) % 3 if labels is None else torch.as_tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(-40, 41, (len(splits), 3, size, size), generator=generator)
    images = (COLOURS[labels][:, :, None, None] + noise).clamp(0, 255).to(torch.uint8)
    table = {"image": [f"images/{i}.png" for i in range(len(splits))], "split": splits}
    table["label"] = [CLASSES[i] for i in labels]
    return LesionDataset(images, pd.DataFrame(table), CLASSES)


def tiny(**changes) -> TrainConfig:
    """A run of two epochs with three steps each on :func:`color_data`."""
    small = {"name": "tiny", "backbone": "pocket", "bits": 8, "epochs": 2, "batch_size": 8}
    fixed = {"precision": "32-true", "orbit_sample": 0}
    return TrainConfig(**small | fixed | changes)


def train_quietly(config, data, root, **changes):
    return train(config, data, root, **{"progress": False} | changes)


def checkpoint_of(folder) -> dict:
    """The last checkpoint in a run's folder."""
    return load_state(folder / "checkpoint.safetensors")


def assert_equal_states(ours, expected):
    """Nested dictionaries hold the same tensors and values, to the bit."""
    assert ours.keys() == expected.keys()
    for name, value in ours.items():
        if isinstance(value, dict):
            assert_equal_states(value, expected[name])
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, expected[name]), name
        else:
            assert value == expected[name], name


def assert_same_run(run, expected):
    """Two runs have the same history, model and checkpoint, to the bit."""
    pd.testing.assert_frame_equal(run.history, expected.history, check_exact=True)
    assert_equal_states(run.model.state_dict(), expected.model.state_dict())
    assert_equal_states(checkpoint_of(run.path), checkpoint_of(expected.path))


@contextmanager
def one_sentence(*words):
    """An `InputError` of one line, in which all these words stand."""
    with pytest.raises(InputError) as error:
        yield error
    text = str(error.value)
    assert "\n" not in text and [word for word in words if str(word) not in text] == [], text


def network_input(batch, size=32, seed=0, channels=3):
    """Random images in [-1, 1]: (batch, channels, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, channels, size, size, generator=generator) * 2 - 1


def sixteen_bits(scale, growth_interval):
    """A Fabric on the CPU with 16-bit gradients, which Fabric itself offers on a GPU alone."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=growth_interval)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    return Fabric(accelerator="cpu", devices=1, plugins=[plugin])


# --- servers and notebooks ----------------------------------------------------------------

KERNELSPEC = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def free_port():
    """A port of 127.0.0.1 that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# --- rankings -----------------------------------------------------------------------------


def plain_scores(relevant, k):
    """The scores of rankings without ties: relevance (Q, N) -> dict of (Q,)."""
    top, wanted = relevant[:, :k], relevant.sum(axis=1)
    return {
        "precision": ranking.precision(top),
        "recall": ranking.recall(top, wanted),
        "ndcg": ranking.ndcg(top, wanted),
        "ap": ranking.average_precision(relevant),
        "ap at k": ranking.average_precision(top),
        "reciprocal rank": ranking.reciprocal_rank(relevant),
    }


# --- image files --------------------------------------------------------------------------


def noise(seed, width=20, height=15):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image, kind, **options):
    """The file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def flat_png(size=(40, 50), mode="RGB", color=128):
    """A PNG file of one grey."""
    return encoded(Image.new(mode, size, color if mode == "L" else (color,) * 3), "PNG")


def png_chunk(kind, content):
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png_that_claims(width, height, body=None):
    """A small PNG file whose header promises so many pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = body or png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + body + png_chunk(b"IEND", b"")
