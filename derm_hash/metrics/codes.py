"""How well does a set of codes use its bits? Balance, correlation, diversity, quantisation."""

import numpy as np


def code_quality(codes: np.ndarray) -> dict[str, float]:
    """Measure how well soft codes (N, bits) in [0, 1] use their bits, h_ib = [code > 0.5].

    bit_balance
        ``1/b sum_b (1 - |2 p_b - 1|)``, p_b the share of ones in bit b: 1 if every bit is one for
        half of the images, 0 if all are constant (Weiss et al., "Spectral hashing", NIPS 2008).
    bit_correlation
        Mean absolute Pearson correlation in [0, 1] of two different bits that are not constant;
        0 if there are no two such bits, 1 if all bits are copies of one.
    distinct_codes
        Number of different hash codes, at most min(N, 2^bits).
    code_entropy
        ``-sum_c p_c log2 p_c`` in bits, p_c the share of images with code c (Shannon, 1948): at
        most min(bits, log2 N).
    quantisation_gap
        Mean of |code - h|, in [0, 0.5], which is 0 for binary codes: the quantisation loss of
        Gong & Lazebnik ("Iterative quantization", CVPR 2011) as a mean absolute difference.
    """
    codes = np.asarray(codes)
    hard = codes > 0.5
    packed = np.ascontiguousarray(np.packbits(hard, axis=1))
    _, counts = np.unique(packed.view(f"V{packed.shape[1]}"), return_counts=True)
    share = counts / len(codes)
    return {
        "bit_balance": float(1 - np.abs(2 * hard.mean(axis=0) - 1).mean()),
        "bit_correlation": _bit_correlation(hard),
        "distinct_codes": float(len(counts)),
        "code_entropy": float(max(0.0, -(share * np.log2(share)).sum())),  # never -0
        "quantisation_gap": float(np.abs(codes - hard).mean()),
    }


def _bit_correlation(hard: np.ndarray) -> float:
    alive = hard[:, hard.any(axis=0) & ~hard.all(axis=0)]
    bits = alive.shape[1]
    if bits < 2:
        return 0.0
    size = np.abs(np.corrcoef(alive, rowvar=False))
    return float((size.sum() - np.trace(size)) / (bits * (bits - 1)))
