"""Pictures, codes and readers of figures that the tests of several figures share."""

import numpy as np

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
CODES = RNG.random((6, 8)).astype(np.float32)


def titles(figure):
    """The titles of a figure's axes."""
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def texts(ax):
    """The texts that are written into axes."""
    return [text.get_text() for text in ax.texts]
