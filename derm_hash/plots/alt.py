"""Alternative text of figures, for readers who do not see them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

LONGEST = 1500  # characters
SHOWN = 12  # values of a bar chart or of a line; of more, the ends and the extremes


def describe(figure: Figure) -> str:
    """What a figure shows, in words and numbers: its title, then one sentence for each panel.

    Titles, axis labels and writing come as they are. A line or a row of bars comes with its values,
    or with its ends and extremes where there are many.
    """
    parts = [figure.get_suptitle(), *map(_panel, figure.axes)]
    text = ". ".join(part for part in parts if part)
    return text if len(text) <= LONGEST else text[: LONGEST - 4].rsplit(" ", 1)[0] + " ..."


def _panel(ax: Axes) -> str:
    """One panel: its title, what its axes measure, and its content."""
    name = _line(ax.get_title())
    if not ax.has_data() and not ax.texts:
        return name
    measured = " against ".join(filter(None, [_line(ax.get_ylabel()), _line(ax.get_xlabel())]))
    content = [_bars(bars) for bars in ax.containers if isinstance(bars, BarContainer)]
    content += [
        _curve(*np.asarray(line.get_data(orig=False), float), str(line.get_label()))
        for line in ax.lines
    ]
    content += [_line(text.get_text()) for text in ax.texts]
    picture = "picture" if ax.images and not measured else ""
    return ": ".join(filter(None, [picture, name, measured, "; ".join(filter(None, content))]))


def _bars(bars: BarContainer) -> str:
    name = bars.get_label()
    return _values(np.asarray(bars.datavalues, dtype=float), "" if name.startswith("_") else name)


def _curve(x: np.ndarray, y: np.ndarray, name: str) -> str:
    """A line with a name or more than two points; others are marks and helping lines."""
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


def _values(y: np.ndarray, name: str) -> str:
    if len(y) > SHOWN:
        return f"{name} {len(y)} values from {np.nanmin(y):.3g} to {np.nanmax(y):.3g}".strip()
    return f"{name} {', '.join(f'{value:.3g}' for value in y)}".strip()


def _line(text: str) -> str:
    return " ".join(text.split())
