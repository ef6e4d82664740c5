"""Scores of a ranking with ties: expected values over all orders of the tied items.

Codes of b bits have only b + 1 different Hamming distances, so thousands of images tie,
and a ranking by Hamming distance is one of very many. Each function below gives the mean
of a score of :mod:`derm_hash.metrics.ranking` over all orders within the ties, in closed
form (McSherry & Najork, "Computing information retrieval performance measures efficiently
in the presence of tied scores", ECIR 2008).

The functions take a histogram for each query: how many items, and how many relevant ones,
lie at each distance. In the formulas group d has t_d items, r_d of them relevant, and
n_d = sum_{e < d} t_e items come before it, m_d = sum_{e < d} r_e of them relevant. R is
the number of all relevant items, N of all items.
"""

import numpy as np
from scipy.stats import hypergeom

from derm_hash.metrics.ranking import cumulative_discount

NEGLIGIBLE = 1e-15  # a sum over outcomes stops when less probability than this is left


def hamming_histograms(
    database_codes: np.ndarray, database_labels: np.ndarray, codes: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count the items, and those with the query's label, at each Hamming distance.

    Soft codes (N, bits) and class indices (N,) of a database, (Q, bits) and (Q,) of the queries ->
    total and relevant, two (Q, bits + 1) int64 arrays: column d counts the items at distance d.
    """
    bits = codes.shape[1]
    # For codes of signs +-1, a . b = bits - 2 distance, and the product is exact.
    a, b = (np.where(c > 0.5, np.float32(1), np.float32(-1)) for c in (codes, database_codes))
    distance = ((bits - a @ b.T) / 2).astype(np.int64)
    distance += np.arange(len(codes))[:, None] * (bits + 1)  # one bin for each query and distance
    same = labels[:, None] == database_labels
    size = len(codes) * (bits + 1)
    counts = (np.bincount(d, minlength=size) for d in (distance.ravel(), distance[same]))
    total, relevant = (c.reshape(len(codes), bits + 1) for c in counts)
    return total, relevant


def expected_precision(total: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Expected precision at k: histograms (Q, D) -> (Q,).

    ``E[P@k] = 1/min(k, N) sum_d r_d min(max((k - n_d) / t_d, 0), 1)``: each item of the group that
    contains rank k is equally likely to be among the first k.
    """
    return _expected_hits(total, relevant, k) / np.maximum(np.minimum(k, total.sum(axis=1)), 1)


def expected_recall(total: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Expected recall at k: histograms (Q, D) -> (Q,); the same sum over R; 0 if R is 0."""
    return _expected_hits(total, relevant, k) / np.maximum(relevant.sum(axis=1), 1)


def _expected_hits(total, relevant, k):
    part = (k - _before(total)) / np.maximum(total, 1)
    return (relevant * np.clip(part, 0, 1)).sum(axis=1)


def expected_ndcg(total: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Expected nDCG at k: histograms (Q, D) -> (Q,); 0 if nothing is relevant.

    ``E[DCG@k] = sum_d (r_d / t_d) sum_{i = n_d + 1}^{min(n_d + t_d, k)} 1 / log2(i + 1)``,
    over the best DCG, which is the same for every order.
    """
    best = cumulative_discount(k)
    start = _before(total)
    discount = best[np.minimum(start + total, k)] - best[np.minimum(start, k)]
    gain = (relevant / np.maximum(total, 1) * discount).sum(axis=1)
    return gain / np.maximum(best[np.minimum(relevant.sum(axis=1), k)], 1)


def expected_average_precision(total: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Expected average precision of the whole ranking: histograms (Q, D) -> (Q,); 0 if R is 0.

    Rank n_d + j holds a relevant item with probability r_d / t_d, and then on average
    (j - 1) (r_d - 1) / (t_d - 1) of the j - 1 tied items before it are relevant:

    ``E[AP] = 1/R sum_d (r_d / t_d) sum_{j=1}^{t_d}
    (m_d + 1 + (j - 1) (r_d - 1) / (t_d - 1)) / (n_d + j)``

    With the harmonic numbers H and h = H(n_d + t_d) - H(n_d), the inner sum is
    (m_d + 1) h + (t_d - (n_d + 1) h) (r_d - 1) / (t_d - 1).
    """
    harmonic = _harmonic(total)
    summands = _precisions(harmonic, _before(total), _before(relevant), total, relevant)
    return summands.sum(axis=1) / np.maximum(relevant.sum(axis=1), 1)


def expected_average_precision_at(total: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Expected average precision of the first k hits: histograms (Q, D) -> (Q,).

    McSherry & Najork leave this score out: its mean is over the relevant hits among the k, whose
    number is random. In the group that contains rank k, s = k - n_d items are among the first k,
    x of them relevant with the probability p(x) = C(r_d, x) C(t_d - r_d, s - x) / C(t_d, s):
    ``E[AP@k] = sum_x p(x) (sum of the groups before + sum of this one) / (m_d + x)``, with the
    inner sums of :func:`expected_average_precision`, here of a group of s items, x relevant.
    """
    harmonic, start, hits = _harmonic(total), _before(total), _before(relevant)
    k = np.minimum(k, total.sum(axis=1))
    summands = _precisions(harmonic, start, hits, total, relevant)
    # The first group that reaches rank k.
    group = (start + total < k[:, None]).sum(axis=1)[:, None]
    before = np.where(np.arange(total.shape[1]) < group, summands, 0).sum(axis=1, keepdims=True)
    n, m, t, r = (np.take_along_axis(x, group, axis=1) for x in (start, hits, total, relevant))
    s = k[:, None] - n
    x = np.arange(np.minimum(s, r).max() + 1)[None]
    value = (before + _precisions(harmonic, n, m, s, x)) / np.maximum(m + x, 1)
    return (hypergeom.pmf(x, t, r, s) * value).sum(axis=1)


def expected_reciprocal_rank(total: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Expected reciprocal rank of the first relevant item: histograms (Q, D) -> (Q,); 0 if R is 0.

    ``E[RR] = sum_{j=1}^{t - r + 1} p_j / (n + j)`` over the first group with a relevant item, where
    p_j = C(t - j, r - 1) / C(t, r) = q_{j-1} - q_j, and q_j = q_{j-1} (t - r - j + 1) / (t - j + 1)
    with q_0 = 1 is the chance that none of j items is relevant. The sum ends at q_j < 1e-15.
    """
    group = (relevant > 0).argmax(axis=1)[:, None]
    n, t, r = (
        np.take_along_axis(x, group, axis=1)[:, 0] for x in (_before(total), total, relevant)
    )
    expected, left = np.zeros(len(total)), (r > 0).astype(float)
    j = 0
    while len(open_ := np.flatnonzero(left > NEGLIGIBLE)):
        j += 1
        after = left[open_] * (1 - r[open_] / (t[open_] - j + 1))
        expected[open_] += (left[open_] - after) / (n[open_] + j)
        left[open_] = after
    return expected


def _before(counts):
    """How many items come before each group: (Q, D) -> (Q, D)."""
    return np.cumsum(counts, axis=1) - counts


def _harmonic(total):
    """Harmonic numbers H(0) .. H(N) for the largest database among the queries."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, total.sum(axis=1).max() + 1))])


def _precisions(harmonic, n, m, t, r):
    """Expected sum of precisions at the r relevant items in a group of t items, elementwise.

    n items come before the group, m of them relevant.
    """
    h = harmonic[n + t] - harmonic[n]
    others = (r - 1) / np.maximum(t - 1, 1)
    return r / np.maximum(t, 1) * ((m + 1) * h + others * (t - (n + 1) * h))
