"""Coarse-to-fine retrieval: Hamming radius first, soft codes second.

Coarse: every database image whose hash code lies within a Hamming radius of the
query's (faiss, exhaustive and exact). Fine: those candidates, ranked by the
distance between soft codes.

Two shortcuts give the same hits sooner. Many queries ranked by cosine take their
candidates from one matrix product, since the nearest soft codes mostly lie within the
radius anyway; where they do not, the two steps are taken after all. A ranking by
Hamming distance leaves both steps to faiss.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import pandas as pd
import torch
from torch import nn

from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError, one_line
from derm_hash.files import load_tensors, save_tensors
from derm_hash.model import encode

RANKS = ("cosine", "euclidean", "manhattan", "hamming")
PAIRS_AT_ONCE = 2_000_000  # candidate pairs ranked in one go: bounds the memory
NOTHING = np.uint64(2**64 - 1)  # sorts behind every hit
BLOCK = 64  # neighbours in the database of which only the nearest is looked at first
SPARE_BLOCKS = 4  # looked at beyond the one a hit that must suffice without a radius
MANY_QUERIES = 32  # from so many in one go on, a matrix product pays
ROWS_AT_ONCE = 65_536  # codes packed in one go: bounds the memory
MOST_HITS = 1_000_000  # that may be asked for of a smaller index: the rest is padding


class Hits(NamedTuple):
    """What a search found, best first; each (queries, k).

    ids: position in the database (int64); hamming: distance between hash codes in
    bits (int64); distance: between soft codes (float32). Where fewer than k were
    found the ids and hamming are -1 and the distance is nan.
    """

    ids: np.ndarray
    hamming: np.ndarray
    distance: np.ndarray


def no_hits(queries: int, k: int) -> Hits:
    """Hits of a search that has found nothing yet."""
    ids = np.full((queries, k), -1, dtype=np.int64)
    return Hits(ids, ids.copy(), np.full(ids.shape, np.nan, dtype=np.float32))


def widened(hits: Hits, k: int) -> Hits:
    """The hits with columns of nothing behind them, k in all."""
    nothing = no_hits(len(hits.ids), k - hits.ids.shape[1])
    return Hits(*(np.hstack(pair) for pair in zip(hits, nothing, strict=True)))


def pack_bits(codes: np.ndarray) -> np.ndarray:
    """Soft codes (N, bits) -> hash codes as bytes (N, ceil(bits / 8)) uint8, padded with zeros."""
    packed = np.empty((len(codes), -(-codes.shape[1] // 8)), dtype=np.uint8)
    for first in range(0, len(codes), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        packed[part] = np.packbits(codes[part] > 0.5, axis=1)
    return packed


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
            Hits wanted for each query, at least 1; may exceed the size of the index, up to a
            million.
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
        # No work for hits that cannot be: beyond the database there is padding alone.
        hits = self._found(codes, min(k, len(self)), self._reach(radius), rank)
        return hits if k <= len(self) else widened(hits, k)

    def _found(self, codes, k, radius, rank):
        """A search whose arguments are checked, and for no more hits than there are images."""
        if rank == "hamming":
            return self._scan(codes, k, radius)
        hits = no_hits(len(codes), k)
        left = np.arange(len(codes))
        at_once = min(len(codes), PAIRS_AT_ONCE // len(self))
        if rank == "cosine" and at_once >= MANY_QUERIES and (k + SPARE_BLOCKS) * BLOCK <= len(self):
            self._fill(hits, left, codes, Nearest(self, k, radius), rank)
            left = np.flatnonzero(hits.ids[:, -1] < 0)  # fewer than k so near, or k at all
        self._fill(hits, left, codes, lambda part: self._candidates(part, radius), rank)
        return hits

    def _scan(self, codes, k, radius):
        """Search by Hamming distance alone; of equal ones faiss, too, keeps the first."""
        hits = no_hits(len(codes), k)
        step = max(1, PAIRS_AT_ONCE // k)
        for first in range(0, len(codes), step):
            part = slice(first, first + step)
            hamming, ids = self._binary.search(pack_bits(codes[part]), k)
            near = (ids >= 0) & (hamming <= radius)
            hits.ids[part][near], hits.hamming[part][near] = ids[near], hamming[near]
            hits.distance[part][near] = hamming[near]
        return hits

    def _fill(self, hits, rows, codes, candidates, rank):
        """Search for some of the queries, in portions; ``candidates`` is the coarse step."""
        step = max(1, PAIRS_AT_ONCE // len(self))
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            starts, ids = candidates(codes[part])
            best = no_hits(len(part), hits.ids.shape[1])
            self._rank(codes[part], np.diff(starts), ids, rank, best)
            for field, found in zip(hits, best, strict=True):
                field[part] = found

    def _candidates(self, codes, radius):
        """Coarse step: where each query's candidates begin (Q + 1,), and their ids."""
        # faiss returns what is strictly nearer than the radius that it is given.
        starts, _, ids = self._binary.range_search(pack_bits(codes), radius + 1)
        return starts.astype(np.int64), ids.astype(np.int64)

    def _rank(self, codes, counts, ids, rank, hits):
        """Fine step: fill ``hits`` with the best of each query's candidates."""
        query = np.repeat(np.arange(len(codes)), counts)
        place = np.arange(len(ids)) - np.repeat(np.cumsum(counts) - counts, counts)
        distance = soft_distance(codes[query], self.codes[ids], rank)
        table = np.full((len(codes), counts.max()), NOTHING)
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
        codes = self._checked(codes, 1, radius, RANKS[0])
        return np.diff(self._candidates(codes, self._reach(radius))[0])

    def _reach(self, radius: int | None) -> int:
        return self.bits if radius is None else int(min(radius, self.bits))

    def _checked(self, codes, k, radius, rank) -> np.ndarray:
        codes = np.ascontiguousarray(codes, dtype=np.float32)
        if codes.ndim != 2 or codes.shape[1] != self.bits:
            raise InputError(
                f"The index holds codes of {self.bits} bits and the query has shape {codes.shape}: "
                "encode the query with the model that made the index."
            )
        if k < 1:
            raise InputError(f"k is the number of hits wanted and must be 1 or more, not {k}.")
        if k > max(len(self), MOST_HITS):
            raise InputError(
                f"The index holds {len(self)} images, so that {k} hits are too many to ask for: "
                "choose a smaller k."
            )
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


class Nearest:
    """Coarse step of many queries that are ranked by cosine: a few nearest within the radius.

    Called with queries (Q, bits) it returns where each query's candidates begin (Q + 1,), and
    their ids: either the k best within the radius are among them, or there are none.

    One matrix product in 64 bits gives the similarities of all pairs. The best of a query lie
    in the blocks of the database whose own best are the best: the last of a few more than k
    blocks draws the line, and what lies beyond it is not looked at. A query with fewer than k
    within the radius on this side of the line has no candidates.
    """

    def __init__(self, index: HashIndex, k: int, radius: int):
        self.index, self.k, self.radius = index, k, radius
        self.blocks = k + SPARE_BLOCKS
        blocks = -(-len(index) // BLOCK)
        self.units = torch.zeros(blocks * BLOCK, index.bits, dtype=torch.float64)
        self.units[: len(index)] = _units(index.codes)
        self.room = torch.empty(0, dtype=torch.float64)  # for the product, asked for once

    def __call__(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # torch, since its product and maximum use every core.
        pairs = torch.mm(_units(codes), self.units.T, out=self.room.resize_(0))
        pairs = pairs.unflatten(1, (-1, BLOCK))
        best = pairs.amax(dim=-1).numpy()
        line = np.partition(best, -self.blocks, axis=1)[:, -self.blocks]
        # Ranks are decided by distances of 32 bits: what may round to the line's is a candidate.
        wide = 1 - (1 - line) * (1 + 1e-6) - 1e-12
        query, block = np.nonzero(best >= wide[:, None])
        alike = pairs.numpy()[query, block]
        row, place = np.nonzero(alike >= wide[query, None])
        alike, query, ids = alike[row, place], query[row], block[row] * BLOCK + place
        ids, padding = np.minimum(ids, len(self.index) - 1), ids >= len(self.index)
        hamming = soft_distance(codes[query], self.index.codes[ids], "hamming")
        near = (hamming <= self.radius) & ~padding
        sure = np.bincount(query[near & (alike >= line[query])], minlength=len(codes))
        near &= (sure >= self.k)[query]
        return np.searchsorted(query[near], np.arange(len(codes) + 1)), ids[near]


def _units(codes: np.ndarray) -> torch.Tensor:
    """Codes (N, bits) scaled to length 1, in 64 bits; a code of zeros stays."""
    codes = torch.from_numpy(codes).double()
    length = torch.linalg.norm(codes, dim=1, keepdim=True)
    return codes / length.clamp_min(torch.finfo(codes.dtype).tiny)


def _check_range(codes: np.ndarray) -> None:
    # Without a comparison of each: of a million codes it would take hundreds of megabytes.
    if codes.size and not (codes.min() >= 0 and codes.max() <= 1):
        raise InputError("A soft code lies in [0, 1]: pass the model's codes, not its logits.")


def build_index(
    model: nn.Module, dataset: LesionDataset, progress: bool = False, bf16: bool = False
) -> HashIndex:
    """Encode a data set and index it; the items are its manifest rows.

    ``bf16`` is that of :func:`derm_hash.model.encode`: sooner on some machines, and by default
    not, so that the codes are the same on all.
    """
    codes = encode(model, dataset, progress=progress, bf16=bf16)
    return HashIndex.build(codes, dataset.labels.numpy(), dataset.table)
