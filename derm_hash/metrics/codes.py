"""How well does a set of codes use its bits? Balance, correlation, diversity, quantisation."""

import numpy as np

from derm_hash.errors import InputError


def code_quality(codes: np.ndarray) -> dict[str, float]:
    """Measure how well a set of soft codes uses its bits.

    Parameters
    ----------
    codes : (N, bits) array
        Soft codes in [0, 1]; bit b of image i is h_ib = [code > 0.5].

    Returns
    -------
    dict of float
        bit_balance
            ``1/b sum_b (1 - |2 p_b - 1|)``, p_b the share of ones in bit b: 1 if every bit
            is one for half of the images, 0 if all bits are constant. Weiss, Torralba & Fergus
            ask for balanced and uncorrelated bits ("Spectral hashing", NIPS 2008).
        bit_correlation
            Mean absolute Pearson correlation of two different bits, in [0, 1], over the
            pairs of bits that are not constant; 0 if there is no such pair, 1 if all bits
            are copies of one.
        distinct_codes
            Number of different hash codes, at most min(N, 2^bits).
        code_entropy
            ``-sum_c p_c log2 p_c`` over the different codes, in bits, p_c the share of images
            with code c (Shannon, 1948): at most min(bits, log2 N).
        quantisation_gap
            Mean of |code - h|, in [0, 0.5]: what rounding to bits changes; 0 for binary
            codes. It is the quantisation loss of Gong & Lazebnik ("Iterative quantization", CVPR
            2011) as a mean absolute difference.

    Raises
    ------
    InputError
        If there are no codes.
    """
    codes = np.asarray(codes)
    if codes.ndim != 2 or not codes.size:
        raise InputError(f"Code quality needs codes of shape (N, bits), not {codes.shape}")
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
