"""Coarse-to-fine retrieval: hash codes find the candidates, soft codes rank them.

Coarse step: find all database images whose hash code differs from the query's in at most ``radius``
bits. Queries with the same hash code share one coarse search.

Fine step: rank these candidates by the distance between soft codes. Equal distances keep the order
of the database, so a result does not depend on chance.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import pandas as pd
from torch import nn

from derm_hash.data.classes import class_indices
from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError
from derm_hash.model import encode
from derm_hash.tensors import load_tensors, save_tensors

METRICS = ("cosine", "euclidean", "manhattan", "hamming")
LEAST = np.finfo(np.float64).tiny  # length of a zero code, by which we can divide
PAIRS_AT_ONCE = 1_000_000  # pairs of query and candidate per block, which bounds the memory


class Hits(NamedTuple):
    """The hits of Q queries, nearest first; where fewer than k were found, padding follows."""

    ids: np.ndarray
    """(Q, k) int64 positions in the database; -1 is padding."""
    hamming: np.ndarray
    """(Q, k) int64 Hamming distances between hash codes, in bits; -1 is padding."""
    distance: np.ndarray
    """(Q, k) float32 distances by the search's metric; nan is padding."""


class HashIndex:
    """A database of codes that can be searched. Make one with :meth:`build`.

    Attributes
    ----------
    codes : (N, bits) float32 array of soft codes in [0, 1]
    labels : (N,) int64 array of class indices
    items : DataFrame, one row for each database image
    classes : tuple of class names, or None; label i means classes[i]
    """

    def __init__(self, codes, labels, items, classes):
        self.codes, self.labels, self.items = codes, labels, items
        self.classes = None if classes is None else tuple(classes)
        self._lengths = _lengths(codes)
        packed = pack_bits(codes)
        self._binary = faiss.IndexBinaryFlat(packed.shape[1] * 8)
        self._binary.add(packed)

    @classmethod
    def build(cls, codes, labels, items, classes: Sequence[str] | None = None) -> "HashIndex":
        """Make an index; `InputError` if the lengths differ or are 0, or a value is out of range.

        Parameters
        ----------
        codes : (N, bits) array, tensor or nested list of soft codes in [0, 1]
        labels : (N,) array, tensor or list of class indices
        items : N names, or a DataFrame with N rows, such as those of a manifest
        classes : sequence of str, optional
            Class names: label i means classes[i]. Queries are matched with them by name.
        """
        codes = np.ascontiguousarray(codes, dtype=np.float32)
        labels = class_indices(labels, classes)
        if not isinstance(items, pd.DataFrame):
            items = pd.DataFrame({"image": [str(item) for item in items]})
        if codes.ndim != 2 or not codes.size:
            raise InputError(f"An index needs codes of shape (N, bits), not {codes.shape}")
        if not len(codes) == len(labels) == len(items):
            found = f"{len(labels)} labels and {len(items)} items for {len(codes)} codes"
            raise InputError(f"An index needs one label and one item for each code, not {found}")
        _check_range(codes)
        return cls(codes, labels, items.reset_index(drop=True), classes)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def bits(self) -> int:
        """Length of the codes."""
        return self.codes.shape[1]

    def search(self, codes, k: int = 10, radius: int | None = 4, rank: str = "cosine") -> Hits:
        """Find the k nearest database images of each query.

        Parameters
        ----------
        codes : (Q, bits) array, tensor or nested list of soft codes in [0, 1]
        k : int >= 1
        radius : int or None
            Hamming radius in bits; None searches the whole database.
        rank : str
            The metric: "cosine", "euclidean" or "manhattan" distance between soft codes, or
            "hamming" distance between hash codes. Equal distances keep the database's order.

        Returns
        -------
        Hits; InputError if the codes do not fit the index, or an argument is out of range
        """
        codes = self._checked(codes, radius)
        if k < 1:
            raise InputError(f"k is the number of hits wanted and must be 1 or more, not {k}")
        if rank not in METRICS:
            raise InputError(f"Unknown metric {rank!r}: use one of {', '.join(METRICS)}")
        ids = np.full((len(codes), k), -1, dtype=np.int64)
        hits = Hits(ids, ids.copy(), np.full(ids.shape, np.nan, dtype=np.float32))
        if rank == "hamming":  # faiss needs no candidates for it
            k = min(k, len(self))
            hamming, ids = self._binary.search(pack_bits(codes), k)
            near = hamming <= self._reach(radius)
            hits.ids[:, :k][near] = ids[near]
            hits.hamming[:, :k][near] = hits.distance[:, :k][near] = hamming[near]
            return hits
        for queries, candidates in self._candidates(codes, radius):
            ids, distance = self._nearest(codes[queries], candidates, k, rank)
            found = ids.shape[1]
            hits.ids[queries, :found] = ids
            apart = soft_distance(codes[queries, None], self.codes[ids], "hamming")
            hits.hamming[queries, :found], hits.distance[queries, :found] = apart, distance
        return hits

    def within(self, codes, radius: int = 4) -> np.ndarray:
        """Count the database images within a Hamming radius: codes (Q, bits) -> (Q,) int64."""
        codes = self._checked(codes, radius)
        counts = np.zeros(len(codes), dtype=np.int64)
        for queries, candidates in self._candidates(codes, radius):
            counts[queries] = len(candidates)
        return counts

    def _candidates(self, codes, radius) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Coarse step: yield groups of queries (P,) and the ids (C,) that are near all of them.

        The queries of a group have one hash code. Large groups are split, so that a group has at
        most about ``PAIRS_AT_ONCE`` pairs of query and candidate.
        """
        packed = pack_bits(codes)
        if radius is None:
            packed[:] = 0  # one group of all queries: the whole database is near to any code
        hash_codes, group = np.unique(packed, axis=0, return_inverse=True)
        pairs = PAIRS_AT_ONCE * 64 // max(64, self.bits)  # memory grows with the bits
        at_once = max(1, pairs // len(self))
        for first in range(0, len(hash_codes), at_once):
            # faiss returns what is strictly nearer than the radius that it is given.
            ends, _, ids = self._binary.range_search(
                hash_codes[first : first + at_once], self._reach(radius) + 1
            )
            for number, near in enumerate(np.split(ids, ends[1:-1].astype(int)), start=first):
                queries = np.flatnonzero(group.ravel() == number)
                parts = math.ceil(len(queries) * len(near) / pairs)
                for part in np.array_split(queries, max(parts, 1)):
                    yield part, near

    def _nearest(self, codes, ids, k, metric) -> tuple[np.ndarray, np.ndarray]:
        """Fine step: rank candidates (C,) of queries (P, bits) -> ids and distances (P, <= k)."""
        table = ids[None]
        if metric == "cosine" and k < len(ids):
            # One matrix product compares all pairs, many times faster than soft_distance. It
            # rounds differently, so it only chooses which candidates are worth ranking.
            lengths, own = self._lengths.take(ids, axis=0), _lengths(codes)
            similarity = (codes / own) @ (self.codes.take(ids, axis=0) / lengths).T
            similarity[np.ix_((own == LEAST)[:, 0], (lengths == LEAST)[:, 0])] = 1  # zero codes
            columns = shortlist(similarity, k)
            table = np.where(columns < 0, -1, ids[columns])
        distance = soft_distance(codes[:, None], self.codes[table], metric)
        table = np.broadcast_to(table, distance.shape)
        distance[table < 0] = np.nan  # sorted to the end
        order = np.argsort(distance, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(table, order, 1), np.take_along_axis(distance, order, 1)

    def _reach(self, radius: int | None) -> int:
        return self.bits if radius is None else int(min(radius, self.bits))

    def _checked(self, codes, radius) -> np.ndarray:
        codes = np.ascontiguousarray(codes, dtype=np.float32)
        if codes.ndim != 2 or codes.shape[1] != self.bits:
            raise InputError(
                f"The index holds codes of {self.bits} bits and the query has shape {codes.shape}: "
                "encode the query with the model that made the index"
            )
        if radius is not None and radius < 0:
            raise InputError(f"A Hamming radius is 0 or more, or None for no limit, not {radius}")
        _check_range(codes)
        return codes

    def save(self, path: str | Path) -> Path:
        """Write the index to one safetensors file, all or nothing."""
        items = self.items.to_json(orient="split", index=False, double_precision=15)
        about = {"items": items, "classes": json.dumps(self.classes)}
        return save_tensors(path, {"codes": self.codes, "labels": self.labels}, about)

    @classmethod
    def load(cls, path: str | Path) -> "HashIndex":
        """Read what :meth:`save` wrote; `InputError` if there is no file, or it is not an index."""
        path = Path(path)
        if not path.is_file():
            raise InputError(f"There is no index at {path}: make one with `derm-hash encode`")
        tensors, about = load_tensors(path, "items", "an index that derm-hash has saved")
        codes, labels = tensors["codes"].numpy(), tensors["labels"].numpy()
        return cls(codes, labels, pd.DataFrame(**about["items"]), about["classes"])


def build_index(
    model: nn.Module, dataset: LesionDataset, progress: bool = False, bf16: bool | None = None
) -> HashIndex:
    """Encode a data set and index it; the items are the rows of its manifest.

    Parameters
    ----------
    model : DermHash or OrbitMean
    dataset : LesionDataset
    progress, bf16 : as in `encode`
    """
    codes = encode(model, dataset, progress=progress, bf16=bf16)
    return HashIndex.build(codes, dataset.labels.numpy(), dataset.table, dataset.classes)


# --- distances ------------------------------------------------------------------------------


def pack_bits(codes: np.ndarray) -> np.ndarray:
    """Soft codes (N, bits) -> hash codes as bytes (N, ceil(bits / 8)) uint8, padded with zeros."""
    return np.packbits(codes > 0.5, axis=1)


def soft_distance(a: np.ndarray, b: np.ndarray, metric: str) -> np.ndarray:
    """Distance between soft codes, broadcast: (..., bits), (..., bits) -> (...) float32 >= 0.

    A code of zeros has cosine distance 0 to another such code, and 1 to every other code.
    """
    if metric == "hamming":
        return ((a > 0.5) != (b > 0.5)).sum(axis=-1).astype(np.float32)
    # Sums are in 64 bits: trained codes nearly agree, so in 32 bits 1 - cosine has few digits.
    if metric == "euclidean":
        difference = a - b
        return np.sqrt(_dot(difference, difference)).astype(np.float32)
    if metric == "manhattan":
        return np.abs(a - b).sum(axis=-1, dtype=np.float64).astype(np.float32)
    squares = _dot(a, a), _dot(b, b)
    norms = np.sqrt(squares[0] * squares[1])
    both_zero = np.array(np.equal(*squares), dtype=np.float64)  # where the product is zero
    cosine = np.divide(_dot(a, b), norms, out=both_zero, where=norms > 0)
    return np.maximum(1 - cosine, 0).astype(np.float32)


def shortlist(similarity: np.ndarray, k: int) -> np.ndarray:
    """Few candidates for each query that include its k nearest: similarity (P, C > k) -> (P, W).

    The result holds columns of the float64 cosine similarity, ascending; -1 fills short rows. It
    makes large searches faster and changes no hit, so a first reading can skip it.
    """
    # Split the candidates into at least 4 k runs, and take the maximum of each. At least k
    # similarities reach the k-th largest maximum, so whatever lies below this bound is not among
    # the k nearest. The maxima are quicker to sort than all similarities.
    run = max(1, similarity.shape[1] // (4 * k))
    best = np.maximum.reduceat(similarity, np.arange(0, similarity.shape[1], run), axis=1)
    bound = np.partition(best, -k, axis=1)[:, -k, None]
    # Distances are compared in 32 bits, so keep what may round to the distance of the bound.
    near = similarity >= 1 - (1 - bound) * (1 + 1e-6) - 1e-12
    rows, columns = np.divmod(np.flatnonzero(near), similarity.shape[1])
    counts = np.bincount(rows)  # each row has k of them or more
    table = np.full((len(near), counts.max()), -1)
    table[np.arange(counts.max()) < counts[:, None]] = columns
    return table


def _lengths(codes: np.ndarray) -> np.ndarray:
    """Euclidean length of each code in 64 bits: (N, bits) -> (N, 1), at least `LEAST`."""
    return np.maximum(np.sqrt(_dot(codes, codes)), LEAST)[:, None]


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("...b,...b->...", a, b, dtype=np.float64)


def _check_range(codes: np.ndarray) -> None:
    # Only the extremes: comparing each of a million codes would take hundreds of megabytes.
    if codes.size and not (codes.min() >= 0 and codes.max() <= 1):
        raise InputError("A soft code lies in [0, 1]: pass the model's codes, not its logits")
