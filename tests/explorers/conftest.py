"""A model with spread codes, a data set of soft blobs, their index, and explorers of them."""

import numpy as np
import pandas as pd
import pytest
import torch

from derm_hash.data.dataset import LesionDataset
from derm_hash.explorers import HeatmapExplorer, RetrievalExplorer
from derm_hash.model import DermHash
from derm_hash.retrieval import build_index
from tests.explorers.common import CLASSES, SIZE


@pytest.fixture(scope="module")
def dataset():
    """30 database images and 10 queries: soft blobs; some queries share a lesion with them."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((40, 3, 5, 5)))
    images = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    table = pd.DataFrame(
        {
            "image": [f"images/blob{i}.png" for i in range(40)],
            "label": [CLASSES[i % 4] for i in range(40)],
            "lesion_id": [f"L{i % 20}" if i % 3 else "" for i in range(40)],
            "split": ["query" if i % 4 == i // 10 else "database" for i in range(40)],
        }
    )
    masks = np.zeros((40, SIZE, SIZE), dtype=bool)
    masks[:, 6:20, 10:30] = True
    return LesionDataset((images * 255).to(torch.uint8), table, masks=masks)


@pytest.fixture(scope="module")
def foldered(dataset):
    """The images in class folders that all count from 000; but the last one's id is its alone."""
    names = [f"images/{label}/{i // 4:03}.png" for i, label in enumerate(dataset.table["label"])]
    table = dataset.table.assign(image=[*names[:-1], "images/BKL/alone.png"])
    return LesionDataset(dataset.images, table)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = DermHash("resnet8", bits=12, class_names=CLASSES).eval()
    with torch.no_grad():  # untrained codes are all alike: spread them
        model.hash_layer.weight.mul_(60)
        model.hash_layer.bias.zero_()
    return model


@pytest.fixture(scope="module")
def index(model, dataset):
    return build_index(model, dataset.split("database"))


@pytest.fixture
def explorer(model, index, dataset):
    explorer = RetrievalExplorer(model, index, dataset)
    yield explorer
    explorer.close()


@pytest.fixture
def heat(model, index, dataset):
    explorer = HeatmapExplorer(model, index, dataset)
    yield explorer
    explorer.close()


@pytest.fixture
def sent(monkeypatch):
    """What explorers send to the page: (content, buffers)."""
    messages = []
    for kind in (RetrievalExplorer, HeatmapExplorer):
        take = lambda self, content, buffers=None: messages.append((content, buffers))  # noqa: E731
        monkeypatch.setattr(kind, "send", take)
    return messages
