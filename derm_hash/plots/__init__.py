"""The figures that the notebooks share, in one visual language.

Every function returns a matplotlib Figure that pyplot does not manage: a notebook shows it once,
where it is the last value of a cell, or with ``display(figure)``. A function with an ``ax`` draws
into your axes and returns them instead. A *picture* is a uint8 array (S, S, 3), or network input
(3, S, S) in [-1, 1].

Classes, and right and wrong hits, never differ by colour alone: a word, a mark or a line style
tells them apart too.
"""

from derm_hash.plots.alt import describe
from derm_hash.plots.curves import (
    PENALTY_COLORS,
    PENALTY_NAMES,
    PENALTY_STYLES,
    LiveCurves,
    plot_history,
    plot_penalties,
    plot_rotation,
    plot_rotation_polar,
)
from derm_hash.plots.pictures import (
    image_grid,
    montage,
    plot_code,
    plot_gates,
    plot_heatmaps,
    plot_hits,
    plot_orbit,
    plot_query,
)
from derm_hash.plots.style import (
    WIDTH,
    class_color,
    figure_png,
    new_figure,
    overlay,
    show_picture,
    text_color,
    use_style,
)
from derm_hash.plots.tables import (
    plot_audit,
    plot_class_bars,
    plot_class_scores,
    plot_differences,
    plot_scores,
)
