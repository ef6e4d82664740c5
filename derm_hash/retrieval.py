"""Coarse-to-fine retrieval: Hamming radius first, soft codes second.

Coarse: every database image whose hash code lies within a Hamming radius of the
query's (faiss, exhaustive and exact). Fine: those candidates, ranked by the
distance between soft codes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import pandas as pd
import torch
from torch import nn

from derm_hash.data import LesionDataset
from derm_hash.errors import InputError
from derm_hash.model import encode
from derm_hash.storage import load_tensors, one_line, save_tensors

RANKS = ("cosine", "euclidean", "manhattan", "hamming")
PAIRS_AT_ONCE = 2_000_000  # candidate pairs ranked in one go: bounds the memory
NOTHING = np.uint64(2**64 - 1)  # sorts behind every hit


class Hits(NamedTuple):
    """What a search found, best first; each (queries, k).

    ids: position in the database (int64); hamming: distance between hash codes in
    bits (int64); distance: between soft codes (float32). Where fewer than k were
    found the ids and hamming are -1 and the distance is nan.
    """

    ids: np.ndarray
    hamming: np.ndarray
    distance: np.ndarray


def pack_bits(codes: np.ndarray) -> np.ndarray:
    """Soft codes (N, bits) -> hash codes as bytes (N, ceil(bits / 8)) uint8, padded with zeros."""
    return np.packbits(codes > 0.5, axis=1)


def soft_distance(a: np.ndarray, b: np.ndarray, rank: str) -> np.ndarray:
    """Distance between soft codes, (..., bits) x (..., bits) -> (...) float32 >= 0."""
    if rank == "hamming":
        return ((a > 0.5) != (b > 0.5)).sum(axis=-1).astype(np.float32)
    if rank == "euclidean":
        return np.linalg.norm(a - b, axis=-1)
    if rank == "manhattan":
        return np.abs(a - b).sum(axis=-1)
    # In 64 bits: trained codes nearly agree, and 1 - cosine would cancel in 32.
    norms = np.sqrt(_dot(a, a) * _dot(b, b))
    cosine = _dot(a, b) / np.maximum(norms, np.finfo(np.float64).tiny)
    return np.maximum(1 - cosine, 0).astype(np.float32)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("...b,...b->...", a, b, dtype=np.float64)


def _sort_keys(distance: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """One integer sorts by distance, then by position: the bits of a float that is not
    negative have the order of the float."""
    return distance.view(np.uint32).astype(np.uint64) << np.uint64(32) | ids.astype(np.uint64)


def _key_ids(keys: np.ndarray) -> np.ndarray:
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


class HashIndex:
    """A database of codes that can be searched; make one with :meth:`build`.

    Attributes
    ----------
    codes : (N, bits) float32 array of soft codes in [0, 1]
    labels : (N,) int64 array of class indices
    items : DataFrame with one row for each database image
    """

    def __init__(self, codes: np.ndarray, labels: np.ndarray, items: pd.DataFrame):
        self.codes, self.labels, self.items = codes, labels, items
        packed = pack_bits(codes)
        self._binary = faiss.IndexBinaryFlat(packed.shape[1] * 8)
        self._binary.add(packed)

    @classmethod
    def build(cls, codes, labels, items: Sequence[str] | pd.DataFrame) -> "HashIndex":
        """Make an index.

        Parameters
        ----------
        codes : (N, bits) soft codes in [0, 1], array or tensor
        labels : (N,) class indices
        items : N names, or a DataFrame with N rows (say, of a manifest)

        Raises
        ------
        InputError
            If the lengths differ, there is nothing to index, or a code leaves [0, 1].
        """
        codes = np.ascontiguousarray(codes, dtype=np.float32)
        labels = np.ascontiguousarray(labels, dtype=np.int64)  # safetensors ignores strides
        if not isinstance(items, pd.DataFrame):
            items = pd.DataFrame({"image": [str(item) for item in items]})
        if codes.ndim != 2 or not codes.size:
            raise InputError(f"An index needs codes of shape (N, bits), not {codes.shape}.")
        if not len(codes) == len(labels) == len(items):
            raise InputError(
                f"An index needs one label and one item for each code, not {len(labels)} labels "
                f"and {len(items)} items for {len(codes)} codes."
            )
        _check_range(codes)
        return cls(codes, labels, items.reset_index(drop=True))

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
        codes : (Q, bits) soft codes in [0, 1]
        k : int
            Hits wanted for each query, at least 1; may exceed the size of the index.
        radius : int or None
            Hamming radius in bits; None searches the whole database.
        rank : str
            Distance between soft codes: "cosine", "euclidean", "manhattan", or
            "hamming" (of the hash codes alone). Equal distances keep the order of the
            database, so that a result can be reproduced.

        Raises
        ------
        InputError
            If the codes have other bits than the index or leave [0, 1], or an option is not
            valid.
        """
        codes = self._checked(codes, k, radius, rank)
        hits = Hits(
            np.full((len(codes), k), -1, dtype=np.int64),
            np.full((len(codes), k), -1, dtype=np.int64),
            np.full((len(codes), k), np.nan, dtype=np.float32),
        )
        step = max(1, PAIRS_AT_ONCE // len(self))
        for first in range(0, len(codes), step):
            part = slice(first, first + step)
            starts, ids = self._candidates(codes[part], radius)
            best = Hits(*(field[part] for field in hits))
            self._rank(codes[part], np.diff(starts), ids, rank, best)
        return hits

    def _candidates(self, codes, radius):
        """Coarse step: the ids within the radius, and where each query's begin (Q + 1,)."""
        radius = self.bits if radius is None else int(min(radius, self.bits))
        # faiss returns what is strictly nearer than the radius that it is given.
        starts, _, ids = self._binary.range_search(pack_bits(codes), radius + 1)
        return starts.astype(np.int64), ids.astype(np.int64)

    def _rank(self, codes, counts, ids, rank, hits):
        """Fine step: fill ``hits`` with the best of each query's candidates."""
        query = np.repeat(np.arange(len(codes)), counts)
        place = np.arange(len(ids)) - np.repeat(np.cumsum(counts) - counts, counts)
        distance = soft_distance(codes[query], self.codes[ids], rank)
        table = np.full((len(codes), counts.max(initial=0)), NOTHING)
        table[query, place] = _sort_keys(distance, ids)
        k = min(hits.ids.shape[1], table.shape[1])
        if k < table.shape[1]:
            table = np.partition(table, k, axis=1)[:, :k]
        table.sort(axis=1)
        rows, places = np.nonzero(table != NOTHING)
        best = _key_ids(table[rows, places])
        hits.ids[rows, places] = best
        hits.distance[rows, places] = (
            (table[rows, places] >> np.uint64(32)).astype(np.uint32).view(np.float32)
        )
        hits.hamming[rows, places] = soft_distance(codes[rows], self.codes[best], "hamming")

    def order(self, codes, rank: str = "cosine") -> np.ndarray:
        """The whole database, nearest first: (Q, bits) -> ids (Q, N) int64.

        The ids of a :meth:`search` for all N hits without a radius, several times faster.
        """
        codes = self._checked(codes, 1, None, rank)
        ids = np.empty((len(codes), len(self)), dtype=np.int64)
        step = max(1, PAIRS_AT_ONCE // len(self))
        for first in range(0, len(codes), step):
            part = slice(first, first + step)
            distance = soft_distance(codes[part, None], self.codes, rank)
            keys = _sort_keys(distance, np.arange(len(self)))
            keys.sort(axis=1)
            ids[part] = _key_ids(keys)
        return ids

    def within(self, codes, radius: int = 4) -> np.ndarray:
        """How many database images lie within a Hamming radius: (Q, bits) -> (Q,) int64."""
        return np.diff(self._candidates(self._checked(codes, 1, radius, RANKS[0]), radius)[0])

    def _checked(self, codes, k, radius, rank) -> np.ndarray:
        codes = np.ascontiguousarray(codes, dtype=np.float32)
        if codes.ndim != 2 or codes.shape[1] != self.bits:
            raise InputError(
                f"The index holds codes of {self.bits} bits and the query has shape {codes.shape}: "
                "encode the query with the model that made the index."
            )
        if k < 1:
            raise InputError(f"k is the number of hits wanted and must be 1 or more, not {k}.")
        if radius is not None and radius < 0:
            raise InputError(f"A Hamming radius is 0 or more, or None for no limit, not {radius}.")
        if rank not in RANKS:
            raise InputError(f"Unknown ranking {rank!r}: choose one of {', '.join(RANKS)}.")
        _check_range(codes)
        return codes

    def save(self, path: str | Path) -> Path:
        """Write the index to one safetensors file, all or nothing."""
        tensors = {"codes": self.codes, "labels": self.labels}
        items = self.items.to_json(orient="split", index=False, double_precision=15)
        return save_tensors(path, tensors, "items", items)

    @classmethod
    def load(cls, path: str | Path) -> "HashIndex":
        """Read what :meth:`save` wrote; InputError if there is no such index."""
        path = Path(path)
        if not path.is_file():
            raise InputError(f"There is no index at {path}: make one with `derm-hash encode`.")
        tensors, table = load_tensors(path, "items", "an index that derm-hash has saved")
        try:
            items = pd.DataFrame(table["data"], columns=table["columns"])
            codes, labels = tensors["codes"], tensors["labels"]
            if (codes.dtype, labels.dtype, labels.ndim) != (torch.float32, torch.int64, 1):
                raise ValueError(f"codes of {codes.dtype}, labels of {labels.dtype}")
            if len(labels) and labels.min() < 0:
                raise ValueError("a label below 0")
            return cls.build(codes.numpy(), labels.numpy(), items)
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            raise InputError(
                f"{path} is not an index that derm-hash has saved: {one_line(error)}."
            ) from error


def _check_range(codes: np.ndarray) -> None:
    if not ((codes >= 0) & (codes <= 1)).all():
        raise InputError("A soft code lies in [0, 1]: pass the model's codes, not its logits.")


def build_index(model: nn.Module, dataset: LesionDataset, progress: bool = False) -> HashIndex:
    """Encode a data set and index it; the items are its manifest rows."""
    codes = encode(model, dataset, progress=progress)
    return HashIndex.build(codes, dataset.labels.numpy(), dataset.table)
