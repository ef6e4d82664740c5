"""The explorers that need no model: the loss, and a guess before the answer."""

from collections.abc import Sequence
from numbers import Real

import numpy as np
import traitlets as t
from matplotlib.figure import Figure

from derm_hash.errors import InputError
from derm_hash.explorers.still import Still
from derm_hash.plots import plot_penalties
from derm_hash.plots.curves import PENALTY_COLORS, PENALTY_NAMES, PENALTY_STYLES
from derm_hash.plots.style import WIDTH, new_figure


class LossExplorer(Still):
    """Place one bit of an image's four turned copies: what does each penalty do about it?

    The page computes everything itself, so it works without a kernel too.

    Attributes
    ----------
    gamma : float from 0.05 to 2, scale of the penalties
    copies : list of four soft values, 0..1
    """

    kind = t.Unicode("loss").tag(sync=True)
    gamma = t.Float(0.5, min=0.05, max=2).tag(sync=True)
    copies = t.List(t.Float(min=0, max=1), [0.9, 0.2, 0.2, 0.2], minlen=4, maxlen=4).tag(sync=True)

    def __init__(self, **view):
        kinds = [
            {"kind": key, "name": name, "color": PENALTY_COLORS[key], "line": PENALTY_STYLES[key]}
            for key, name in PENALTY_NAMES.items()
        ]
        super().__init__(about={"kinds": kinds}, **view)

    def figures(self) -> list[Figure]:
        return [plot_penalties(self.gamma)]


class Guess(Still):
    """Ask the reader for a guess before a cell gives the answer, and show both in one picture.

    ``guess = Guess("How many of 16 bits flip?", high=16)`` as the last line of a cell; after the
    computation, ``guess.reveal(3)``. With ``truth`` a button reveals it, without a kernel too.

    Parameters
    ----------
    question : str
    options : sequence of str, optional
        To choose from, in place of a number.
    low, high : float
        Ends of the scale of a number, or of the vertical axis of a curve.
    x : sequence of float, optional
        Positions at which the reader draws a curve with the finger.
    unit : str, after a number
    truth : number, one of the options, or one number for each x; optional

    Attributes
    ----------
    guess : what the reader has committed, or None
    """

    kind = t.Unicode("guess").tag(sync=True)
    guess = t.Any(None, allow_none=True).tag(sync=True)
    truth = t.Any(None, allow_none=True).tag(sync=True)

    def __init__(self, question, options=None, low=0, high=1, x=None, unit="", truth=None):
        self.question = question
        self.options = None if options is None else list(options)
        self.x = None if x is None else np.asarray(x, dtype=float).tolist()
        about = {"question": question, "options": self.options, "x": self.x}
        super().__init__(about=about | {"low": float(low), "high": float(high), "unit": unit})
        if truth is not None:
            self.reveal(truth)

    def reveal(self, truth: float | str | Sequence[float]) -> None:
        """Show the truth beside the guess, once there is one; `InputError` if it cannot be true."""
        if self.options is not None:
            fits = truth in self.options
        elif self.x is None:
            fits = isinstance(truth, Real)
        else:
            fits = np.shape(truth) == (len(self.x),)
        if not fits:
            raise InputError(f"{truth!r} is no answer to the question {self.question!r}")
        self.truth = truth if self.options is not None else np.asarray(truth, dtype=float).tolist()

    def figures(self) -> list[Figure]:
        figure = new_figure(WIDTH, 1.2)
        words = self.question + ("" if not self.options else "\n" + " / ".join(self.options))
        figure.text(0.02, 0.6, words, va="center", parse_math=False)
        figure.set_label(words)
        return [figure]
