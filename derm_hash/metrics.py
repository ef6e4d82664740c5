"""Is retrieval any good, does the code hold still, does the heatmap look at the lesion?

Two families of retrieval scores are reported under names that cannot be confused:
``paper_*`` follow the protocol of Zhang et al. (2022), whose "mAP" is a class-balanced
precision among at most ten hits within a Hamming radius; ``map`` is the usual mean
average precision over the ranking of the whole database.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from derm_hash.errors import InputError
from derm_hash.rotations import rotate, turn

QUERIES_AT_ONCE = 256  # whole rankings held at a time: bounds the memory


def precision(relevant: np.ndarray) -> np.ndarray:
    """Share of relevant hits among those returned: (Q, k) -> (Q,); 0 where nothing was returned.

    ``relevant`` holds 1 for a hit with the query's label, 0 for another, -1 for no hit.
    """
    returned = (relevant >= 0).sum(axis=1)
    return (relevant == 1).sum(axis=1) / np.maximum(returned, 1)


def reciprocal_rank(relevant: np.ndarray) -> np.ndarray:
    """One over the rank of the first relevant hit: (Q, k) -> (Q,); 0 where there is none."""
    found = relevant == 1
    return np.where(found.any(axis=1), 1 / (found.argmax(axis=1) + 1), 0.0)


def average_precision(relevant: np.ndarray) -> np.ndarray:
    """Mean of the precisions at the ranks of the relevant items: (Q, N) -> (Q,).

    ``AP = 1/R sum_{i: rel_i = 1} (1/i) sum_{j <= i} rel_j`` with R relevant items among
    all N (Manning, Raghavan & Schuetze, "Introduction to Information Retrieval", 2008,
    section 8.4); 0 where nothing is relevant.
    """
    relevant = relevant == 1
    at_rank = np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
    return (at_rank * relevant).sum(axis=1) / np.maximum(relevant.sum(axis=1), 1)


def relevance(ids: np.ndarray, database_labels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Hits (Q, k) -> 1 where the label is the query's, 0 where not, -1 where there is no hit."""
    same = database_labels[ids] == labels[:, None]
    return np.where(ids >= 0, same, -1).astype(np.int8)


def class_means(values: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Mean of a value of each query (Q,) within each class that has queries."""
    return {int(c): float(values[labels == c].mean()) for c in np.unique(labels)}


def evaluate_retrieval(
    index,
    codes: np.ndarray,
    labels: np.ndarray,
    k: int = 10,
    radius: int = 4,
    rank: str = "cosine",
    class_names: tuple[str, ...] | None = None,
) -> dict[str, float]:
    """Score the retrieval of all queries.

    Parameters
    ----------
    index : HashIndex
    codes : (Q, bits) soft codes of the queries
    labels : (Q,) their class indices
    k, radius, rank
        As in :meth:`HashIndex.search`. Equal distances keep the database's order.
    class_names : tuple of str, optional
        Names for the scores of single classes; by default the index of the class.

    Returns
    -------
    dict of float in [0, 1]:
        paper_precision, paper_reciprocal_rank
            The paper protocol: hits within the radius, at most k; mean over classes.
        precision_at_k, class_mean_precision_at_k
            Among the k nearest of the whole database; mean over queries, over classes.
        map, class_mean_map
            Mean average precision over the ranking of the whole database.
        precision_at_k_NAME, ap_NAME, queries_NAME
            The same for each class, and its number of queries.
    (with the number k in the place of the letter)
    """
    codes, labels = np.asarray(codes), np.asarray(labels)
    if not len(codes) or len(codes) != len(labels):
        raise InputError(
            f"Retrieval is scored on one label a query, not {len(labels)} labels "
            f"for {len(codes)} queries."
        )
    near = relevance(index.search(codes, k, radius, rank).ids, index.labels, labels)
    at_k, average = np.empty(len(codes)), np.empty(len(codes))
    for part in np.array_split(np.arange(len(codes)), len(codes) // QUERIES_AT_ONCE + 1):
        ranked = index.search(codes[part], len(index), None, rank).ids
        ranked = relevance(ranked, index.labels, labels[part])
        at_k[part], average[part] = precision(ranked[:, :k]), average_precision(ranked)
    scores = {
        "paper_precision": _mean(class_means(precision(near), labels)),
        "paper_reciprocal_rank": _mean(class_means(reciprocal_rank(near), labels)),
        f"precision_at_{k}": float(at_k.mean()),
        f"class_mean_precision_at_{k}": _mean(class_means(at_k, labels)),
        "map": float(average.mean()),
        "class_mean_map": _mean(class_means(average, labels)),
    }
    per_class = class_means(average, labels)
    for label, value in class_means(at_k, labels).items():
        name = class_names[label] if class_names else str(label)
        scores[f"precision_at_{k}_{name}"] = value
        scores[f"ap_{name}"] = per_class[label]
        scores[f"queries_{name}"] = float((labels == label).sum())
    return scores


def _mean(per_class: dict[int, float]) -> float:
    return float(np.mean(list(per_class.values())))


def flipped_bits(codes: np.ndarray | Tensor) -> float:
    """Share of bits that change when the image is turned.

    Parameters
    ----------
    codes : (n, N, bits) soft codes of the orbits of N images; member 0 is unturned

    Returns
    -------
    float in [0, 1]: mean over members 1.., images and bits of [bit differs from member 0].
    """
    hard = np.asarray(codes) > 0.5
    if hard.ndim != 3 or len(hard) < 2:
        raise InputError(f"Flipped bits need codes (n >= 2, N, bits), not {hard.shape}.")
    return float((hard[1:] != hard[0]).mean())


def topk_overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Mean share of hits that two searches have in common: ids (Q, k) x (Q, k) -> [0, 1].

    Missing hits (-1) never count as common; the share is of the k wanted.
    """
    common = [len(np.intersect1d(x[x >= 0], y[y >= 0])) for x, y in zip(a, b, strict=True)]
    return float(np.mean(common)) / a.shape[1]


@torch.no_grad()
def rotation_report(
    model, images: Tensor, angles: tuple[float, ...] = (90, 180, 270), batch_size: int = 256
) -> pd.DataFrame:
    """How far the code moves when images are turned.

    Parameters
    ----------
    model : DermHash
    images : (N, 3, S, S) float tensor in [-1, 1]
    angles : tuple of float
        In degrees, counter-clockwise. Multiples of 90 turn the whole square without
        resampling; other angles compare the inscribed discs, at 0 degrees too.

    Returns
    -------
    DataFrame with a row for each angle: angle, flipped_bits (share of bits in [0, 1]),
    code_distance (mean absolute difference of soft codes).
    """
    device, training = next(model.parameters()).device, model.training
    model.eval()

    def code(x: Tensor) -> np.ndarray:
        return model(x).code.float().cpu().numpy()

    rows = []
    for angle in angles:
        pairs = []
        for part in tqdm(images.split(batch_size), f"turned by {angle}", leave=False, disable=None):
            x = part.to(device)
            upright = x if angle % 90 == 0 else rotate(x, 0)
            pairs.append(np.stack([code(upright), code(turn(x, angle))]))
        pair = np.concatenate(pairs, axis=1)
        distance = float(np.abs(pair[1] - pair[0]).mean())
        rows.append({"angle": angle, "flipped_bits": flipped_bits(pair), "code_distance": distance})
    model.train(training)
    return pd.DataFrame(rows)


def mask_energy(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Share of a heatmap's sum that falls on the lesion: (H, W) >= 0 x (H, W) bool -> [0, 1].

    Compare it with ``mask.mean()``, which a flat heatmap gets. 0 for an empty heatmap.
    """
    _check_heatmap(heatmap, mask)
    total = float(heatmap.sum())
    return float(heatmap[mask].sum()) / total if total > 0 else 0.0


def pointing_game(heatmap: np.ndarray, mask: np.ndarray) -> bool:
    """Whether the highest point lies on the lesion (Zhang et al., "Top-down neural attention
    by excitation backprop", ECCV 2016)."""
    _check_heatmap(heatmap, mask)
    return bool(mask.ravel()[heatmap.argmax()])


def iou_at_mask_area(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union of the lesion and as many of the hottest pixels: -> [0, 1]."""
    _check_heatmap(heatmap, mask)
    hottest = np.zeros(mask.size, dtype=bool)
    hottest[np.argsort(-heatmap.ravel(), kind="stable")[: int(mask.sum())]] = True
    inside = mask.ravel()
    return float((hottest & inside).sum() / max((hottest | inside).sum(), 1))


def _check_heatmap(heatmap: np.ndarray, mask: np.ndarray) -> None:
    if heatmap.shape != mask.shape:
        raise InputError(
            f"A heatmap {heatmap.shape} and a mask {mask.shape} of different shape cannot be "
            "compared: resize the heatmap to the mask first."
        )
