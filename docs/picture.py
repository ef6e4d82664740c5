"""Draw the README's picture, docs/picture.png, from the built-in atlas.

python docs/picture.py
"""

from pathlib import Path

from derm_hash import MatchTarget, build_index, course_data, course_run, encode, grad_cam, overlay
from derm_hash.plots import draw_code, figure_png, new_figure, show_picture, use_style
from derm_hash.rotations import rotation_orbit

SHARP = 160  # px: the same lesions drawn larger, to look at; the model sees the small ones
HITS = 5


def main(query: int = 2) -> None:
    """Draw one query, turned four ways, with its code, its hits, and the heatmap of the match."""
    use_style()
    data, sharp = course_data(), course_data(size=SHARP)
    run = course_run(data)
    index = build_index(run.model, data.split("database"))
    x, _ = data.split("query").batch([query])
    orbit = rotation_orbit(x)[:, 0]
    codes = encode(run.model, orbit)
    hits = index.search(codes[:1], k=HITS)
    heat = grad_cam(run.model, x, MatchTarget(index.codes[hits.ids[0, 0]]))[0]

    figure = new_figure(9.2, 3.7)
    above, below = figure.subfigures(2, 1)
    pictures, database = sharp.split("query"), sharp.split("database")
    turned = rotation_orbit(pictures.images[[query]])[:, 0]
    for k, ax in enumerate(above.subplots(1, 4)):
        show_picture(ax, turned[k], f"turned by {90 * k}°")
        draw_code(ax.inset_axes([-0.45, -0.2, 1.9, 0.13]), codes[k], codes[0])
    axes = below.subplots(1, HITS + 1)
    show_picture(axes[0], overlay(pictures.picture(query), heat), "where the match lies")
    for rank, (ax, i) in enumerate(zip(axes[1:], hits.ids[0], strict=True), start=1):
        label = data.classes[index.labels[i]]
        show_picture(ax, database.picture(i), f"{rank}. {label}, {hits.hamming[0, rank - 1]} bits")
    Path(__file__).with_name("picture.png").write_bytes(figure_png(figure))


if __name__ == "__main__":
    main()
