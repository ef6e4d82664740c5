"""The systems that the questions are asked: hash heads and baselines on frozen features."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy import ndarray

from derm_hash.data.dataset import LesionDataset
from derm_hash.experiments.baselines import BASELINES, same
from derm_hash.frozen import head_codes, train_head
from derm_hash.settings import TrainConfig

BACKBONE, WEIGHTS, BITS, SEEDS = "tf_efficientnet_lite0", "imagenet", 16, 10

UPRIGHT = {"invariance": None, "classify": "upright", "epochs": 8}
HEADS = {  # as in benchmarks/configs/frozen.toml
    "head, upright": UPRIGHT,
    "head, random rotations": UPRIGHT | {"random_rotations": True, "epochs": 16},
    "head, four copies": {"invariance": None, "epochs": 8},
    "head, four copies, Cauchy": {"invariance": "cauchy", "epochs": 8},
    "head, two copies, Cauchy": {"invariance": "cauchy", "orbit_sample": 2, "epochs": 16},
    "head, upright, orbit mean": UPRIGHT,
    "head, random rotations, orbit mean": UPRIGHT | {"random_rotations": True, "epochs": 16},
    "head, two copies, orbit mean": {"invariance": "cauchy", "orbit_sample": 2, "epochs": 16},
}
CHANCE, KNOWN = "chance", "known class"
METHODS = {
    **dict.fromkeys((CHANCE, "float cosine", "product quantisation"), 1),
    **dict.fromkeys(("softmax", "predicted class", KNOWN), 1),
    **dict.fromkeys(("LSH", "ITQ", *HEADS), SEEDS),
}
"""Every method, and its number of seeds: 1 for those without random numbers."""

Encode = Callable[[ndarray], ndarray]
"""Features (4, n, F) of images under quarter turns -> codes (n, bits) in [0, 1]."""
System = tuple[Encode, Callable[[ndarray, Sequence[str]], ndarray]]
"""How queries are encoded, and how a database is, whose n labels are known."""


def fit(method: str, data: LesionDataset, features: ndarray, seed: int) -> System:
    """Fit a method in ``METHODS`` on the part ``train``.

    ``features`` (4, N, F) belong to the N images of the data.
    """
    if method in BASELINES:
        rows = data.positions("train")
        values, labels = features[0, rows].astype(np.float32), data.labels.numpy()[rows]
        encode, encode_database = BASELINES[method](values, labels, BITS, seed)
        numbers = {name: number for number, name in enumerate(data.classes)}
        return (
            lambda x: encode(x[0].astype(np.float32)),
            lambda x, names: encode_database(
                x[0].astype(np.float32), np.array([numbers.get(name, -1) for name in names])
            ),
        )
    if method == CHANCE:  # equal codes, so that all images tie
        return same(lambda x: np.zeros((x.shape[1], 1)))
    head, _, _ = train_head(head_config(method, seed), data, features)
    return same(lambda x: head_codes(head, x, method.endswith("orbit mean"))[0])


def head_config(method: str, seed: int) -> TrainConfig:
    """The settings of a head in ``HEADS``."""
    common = {"frozen": True, "backbone": BACKBONE, "weights": WEIGHTS, "attention": None}
    common |= {"bits": BITS, "orbit_sample": 0}
    return TrainConfig.preset("recommended", seed=seed, **(common | HEADS[method]))
