"""Alternative text of figures, for readers who do not see them."""

from collections.abc import Sequence
from itertools import chain, zip_longest

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, PercentFormatter, ScalarFormatter

LONGEST = 1500  # characters
SHOWN = 12  # values of a bar chart or line; with more, only the ends and extremes are told
NUMBERS = LogFormatter, PercentFormatter, ScalarFormatter  # they write numbers at ticks, not words


def describe(figure: Figure) -> str:
    """What a figure shows, in words and numbers: its title, then one sentence for each panel.

    Titles, axis labels and texts are quoted. A line or a row of bars comes with its values, or with
    its ends and extremes if there are many; bars and points come with the words at their ticks.
    Where that tells little, ``figure.set_label`` sets a text that replaces the panels.
    """
    told = [_line(figure.get_label())] if figure.get_label() else list(map(_panel, figure.axes))
    named = [part for part in told if part != "picture"] or told
    text = ". ".join(part for part in [figure.get_suptitle(), *named] if part)
    return text if len(text) <= LONGEST else text[: LONGEST - 4].rsplit(" ", 1)[0] + " ..."


def _panel(ax: Axes) -> str:
    """One panel: its title, what its axes measure, and its content."""
    name = _line(ax.get_title())
    if not ax.has_data() and not ax.texts:
        return name
    measured = " against ".join(filter(None, [_line(ax.get_ylabel()), _line(ax.get_xlabel())]))
    content = [_bars(ax, bars) for bars in ax.containers if isinstance(bars, BarContainer)]
    content += _points(ax)
    content += [
        _curve(*np.asarray(line.get_data(orig=False), float), str(line.get_label()))
        for line in ax.lines
    ]
    content += [_line(text.get_text()) for text in ax.texts]
    picture = "picture" if ax.images and not measured else ""
    return ": ".join(filter(None, [picture, name, measured, "; ".join(filter(None, content))]))


def _words(axis: Axis) -> dict[int, str]:
    """The words at the ticks of an axis, by their place; none where the ticks are numbers."""
    writes, places = axis.get_major_formatter(), axis.get_ticklocs()
    if isinstance(writes, NUMBERS):
        return {}
    return dict(zip(map(round, places), map(_line, writes.format_ticks(places)), strict=True))


def _bars(ax: Axes, bars: BarContainer) -> str:
    name, across = bars.get_label(), bars.orientation == "horizontal"
    words = _words(ax.yaxis if across else ax.xaxis)
    corners = [(b.get_y(), b.get_height()) if across else (b.get_x(), b.get_width()) for b in bars]
    at = [words.get(round(start + size / 2), "") for start, size in corners]
    values = np.asarray(bars.datavalues, dtype=float)
    return _values(values, "" if name.startswith("_") else name, at)


def _points(ax: Axes) -> list[str]:
    """The points of a dot plot, each with the word at its height and the first bar through it."""
    words, told = _words(ax.yaxis), []
    bars = [c.get_segments() for c in ax.collections if isinstance(c, LineCollection)]
    dots = [c.get_offsets() for c in ax.collections if isinstance(c, PathCollection)]
    for x, y in chain(*dots):
        ends = [f" ({a:.3g} to {b:.3g})" for (a, low), (b, _) in chain(*bars) if low == y]
        if name := words.get(y):
            told.append(f"{name} {x:.3g}{''.join(ends[:1])}")
    return told


def _curve(x: np.ndarray, y: np.ndarray, name: str) -> str:
    """Describe a line with a name or more than two points; "" for others, which are only marks."""
    named = not name.startswith("_")
    name = name if named else ""
    if len(y) < 3 and not named:
        return ""
    if len(y) <= SHOWN:
        return _values(y, name)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if not len(y):
        return name
    low, high = y.argmin(), y.argmax()
    ends = f"from {y[0]:.3g} at {x[0]:.3g} to {y[-1]:.3g} at {x[-1]:.3g}"
    extremes = f"lowest {y[low]:.3g} at {x[low]:.3g}, highest {y[high]:.3g} at {x[high]:.3g}"
    return f"{name} {ends}, {extremes}".strip()


def _values(y: np.ndarray, name: str, words: Sequence[str] = ()) -> str:
    if len(y) > SHOWN:
        return f"{name} {len(y)} values from {np.nanmin(y):.3g} to {np.nanmax(y):.3g}".strip()
    numbers = [f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" for value in y]
    pairs = zip_longest(words, numbers, fillvalue="")
    return f"{name} {', '.join(' '.join(pair).strip() for pair in pairs)}".strip()


def _line(text: str) -> str:
    return " ".join(text.split())
