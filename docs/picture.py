"""Draw the README's picture, docs/picture.png, from the built-in atlas.

python docs/picture.py
"""

from pathlib import Path

from matplotlib.figure import Figure

from derm_hash import ClassTarget, build_index, course_data, course_pair, encode, grad_cam, overlay
from derm_hash.plots.pictures import draw_code
from derm_hash.plots.style import figure_png, show_picture, use_style
from derm_hash.rotations import rotation_orbit

SHARP = 160  # px: the same lesions drawn larger, to look at; the model sees the small ones
HITS = 5


def main(query: int = 2) -> None:
    """Draw one query, turned four ways, with its code, its hits, and a heatmap of its class."""
    use_style()
    data, sharp = course_data(), course_data(size=SHARP)
    model, _ = course_pair(data)
    index = build_index(model, data.split("database"))
    x, y = data.split("query").batch([query])
    orbit = rotation_orbit(x)[:, 0]
    codes = encode(model, orbit)
    hits = index.search(codes[:1], k=HITS)
    # A map of the class, not of the match: if the codes are equal, the map of a match is noise.
    heat = grad_cam(model, x, ClassTarget(int(y[0])))[0]

    figure = Figure(figsize=(9.2, 4.9), dpi=100)
    pictures, database = sharp.split("query"), sharp.split("database")
    turned = rotation_orbit(pictures.images[[query]])[:, 0]
    for k in range(4):
        ax = figure.add_axes((0.01 + 0.25 * k, 0.53, 0.23, 0.42))
        show_picture(ax, turned[k], f"turned by {90 * k}°")
        draw_code(ax, codes[k], codes[0], (0, -0.17, 1, 0.11), ax.transAxes)
    heated = overlay(pictures.picture(query), heat)
    shown = [heated, *(database.picture(i) for i in hits.ids[0])]
    labels = [data.classes[label] for label in index.labels[hits.ids[0]]]
    titles = [
        f"{n}. {name}, {bits} bits"
        for n, (name, bits) in enumerate(zip(labels, hits.hamming[0], strict=True), 1)
    ]
    for place, (picture, title) in enumerate(
        zip(shown, [f"evidence for {data.classes[y[0]]}", *titles], strict=True)
    ):
        ax = figure.add_axes((0.01 + 0.165 * place, 0.02, 0.155, 0.33))
        show_picture(ax, picture, title)
    Path(__file__).with_name("picture.png").write_bytes(figure_png(figure))


if __name__ == "__main__":
    main()
