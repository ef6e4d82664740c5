"""Code quality against numpy and scipy on random codes, and by hand on extreme ones."""

import numpy as np
import pytest
from scipy.stats import entropy

from derm_hash.metrics.codes import code_quality


def test_code_quality_in_plain_loops():
    rng = np.random.default_rng(0)
    for _ in range(100):
        codes = rng.random((int(rng.integers(1, 60)), int(rng.integers(1, 12))))
        codes = codes ** rng.choice([0.2, 1, 5], codes.shape[1])  # unbalanced, constant bits too
        hard = (codes > 0.5).astype(int)
        rows = ["".join(map(str, row)) for row in hard]
        counts = [rows.count(row) for row in set(rows)]
        ones = hard.mean(axis=0)
        alive = [b for b in range(codes.shape[1]) if 0 < ones[b] < 1]
        pairs = [
            abs(np.corrcoef(hard[:, i], hard[:, j])[0, 1]) for i in alive for j in alive if i < j
        ]
        expected = {
            "bit_balance": np.mean([2 * min(p, 1 - p) for p in ones]),
            "bit_correlation": np.mean(pairs) if pairs else 0,
            "distinct_codes": len(counts),
            "code_entropy": entropy(counts, base=2),
            "quantisation_gap": np.mean(np.minimum(codes, 1 - codes)),
        }
        assert code_quality(codes) == pytest.approx(expected, abs=1e-9)


def test_a_perfect_and_a_collapsed_code():
    every = (np.arange(16)[:, None] >> np.arange(4) & 1).astype(float)
    assert code_quality(every) == {
        "bit_balance": 1,
        "bit_correlation": 0,
        "distinct_codes": 16,
        "code_entropy": 4,
        "quantisation_gap": 0,
    }
    scores = code_quality(np.full((10, 20), 0.5))
    assert scores == {
        "bit_balance": 0,
        "bit_correlation": 0,
        "distinct_codes": 1,
        "code_entropy": 0,
        "quantisation_gap": 0.5,
    }
    assert not np.signbit(scores["code_entropy"])
