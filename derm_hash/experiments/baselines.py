"""Simple systems on frozen features: what a hash network must beat to be worth training.

A baseline is fitted on the features (n, F) and labels (n,) of the trained images, and returns two
functions: one encodes features (n, F) of queries as codes in [0, 1], the other features and labels
of a database. All are searched by the same index and scored by the same metrics as a network. Look
at the ``tie_aware`` scores of binary codes, since most of them tie.
"""

from collections.abc import Callable

import faiss
import numpy as np
from numpy import ndarray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError
from derm_hash.experiments.scoring import Coded

Encode = Callable[[ndarray], ndarray]
Fitted = tuple[Encode, Callable[[ndarray, ndarray], ndarray]]


def float_cosine(features: ndarray, labels: ndarray, bits: int, seed: int) -> Fitted:
    """The features themselves, divided by one number, which leaves cosine distances unchanged."""
    if features.min() < 0:
        raise InputError("features below 0 cannot be codes in [0, 1]: choose another backbone")
    scale = features.max()
    return same(lambda x: (x / scale).clip(0, 1))


def product_quantisation(features: ndarray, labels: ndarray, bits: int, seed: int) -> Fitted:
    """Jegou et al., TPAMI 2011: the database has ``bits`` bits an image, the queries are exact."""
    quantiser = faiss.ProductQuantizer(features.shape[1], bits // 8, 8)
    quantiser.cp.seed = seed
    quantiser.cp.min_points_per_centroid = 1  # no warning about small sets; changes no result
    scale = features.max()

    def unit(x: ndarray) -> ndarray:
        return np.ascontiguousarray((x / scale).clip(0, 1), dtype=np.float32)

    quantiser.train(unit(features))
    return unit, lambda x, y: quantiser.decode(quantiser.compute_codes(unit(x))).clip(0, 1)


def lsh(features: ndarray, labels: ndarray, bits: int, seed: int) -> Fitted:
    """Locality-sensitive hashing: signs of random projections (Charikar, STOC 2002)."""
    mean = features.mean(axis=0)
    directions = np.random.default_rng(seed).normal(size=(features.shape[1], bits))
    return same(lambda x: (x - mean) @ directions > 0)


def itq(features: ndarray, labels: ndarray, bits: int, seed: int) -> Fitted:
    """Iterative quantisation: rotated principal components' signs (Gong & Lazebnik, CVPR 2011)."""
    transform = faiss.ITQTransform(features.shape[1], bits, True)
    transform.itq.seed = seed
    transform.train(np.ascontiguousarray(features))
    return same(lambda x: transform.apply(np.ascontiguousarray(x)) > 0)


def softmax_code(features: ndarray, labels: ndarray, bits: int, seed: int) -> Fitted:
    """The class probabilities of a linear probe as a soft code with one number for each class."""
    return same(linear_probe(features, labels))


def predicted_class(features: ndarray, labels: ndarray, bits: int, seed: int) -> Fitted:
    """The class that the probe predicts, of queries and database: one bit for each class."""
    probe, classes = linear_probe(features, labels), np.eye(labels.max() + 1)
    return same(lambda x: classes[probe(x).argmax(axis=1)])


def known_class(features: ndarray, labels: ndarray, bits: int, seed: int) -> Fitted:
    """Queries have the class that the probe predicts, the database has its known classes.

    The class -1 stands for one that the probe does not know, and has the last bit.
    Sablayrolles et al., "How should we evaluate supervised hashing?", ICASSP 2017.
    """
    probe, classes = linear_probe(features, labels), np.eye(labels.max() + 2)
    return lambda x: classes[probe(x).argmax(axis=1)], lambda x, y: classes[y]


BASELINES: dict[str, Callable[[ndarray, ndarray, int, int], Fitted]] = {
    "float cosine": float_cosine,
    "product quantisation": product_quantisation,
    "LSH": lsh,
    "ITQ": itq,
    "softmax": softmax_code,
    "predicted class": predicted_class,
    "known class": known_class,
}
CLASSIFIERS = ("softmax", "predicted class", "known class")
"""Baselines whose codes have one number for each class."""


def same(encode: Encode) -> Fitted:
    """Encode queries and databases alike."""
    return encode, lambda x, y: encode(x)


def linear_probe(features: ndarray, labels: ndarray) -> Encode:
    """A logistic regression, classes balanced: features (n, F) -> probabilities (n, classes).

    Among C = 0.0001 to 1, 0.001 gave the best class-mean accuracy on ``val`` of HAM10000 (0.671).
    """
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=0.001, max_iter=500, class_weight="balanced")
    model.fit(scaler.transform(features), labels)
    return lambda x: model.predict_proba(scaler.transform(x))


def baseline_codes(
    name: str, data: LesionDataset, features: ndarray, bits: int, seed: int, scored_on: str
) -> Coded:
    """Fit a baseline in ``BASELINES`` on the trained images, and encode all images.

    ``features`` (4, N, F) are the :func:`derm_hash.frozen.frozen_features` of the N images;
    ``scored_on`` is the part that stands for the queries. Some baselines ignore bits and seed.
    """
    rows, queries = data.positions("train"), data.positions(scored_on)
    values, labels = features.astype(np.float32), data.labels.numpy()
    encode, encode_database = BASELINES[name](values[0, rows], labels[rows], bits, seed)
    codes = np.asarray(encode_database(values[0], labels), dtype=np.float32)
    orbit = np.stack([encode(member) for member in values[:, queries]]).astype(np.float32)
    codes[queries] = orbit[0]
    return Coded(codes, codes if name in CLASSIFIERS else None, orbit)
