"""What the explorers put on a page: pictures as bytes, codes and words as HTML, charts as SVG."""

import base64
import html
import io
from itertools import pairwise

import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image
from scipy.ndimage import binary_erosion

from derm_hash.errors import counted
from derm_hash.explorers.states import HeatView, LossView, Query, RetrievalState, RetrievalView
from derm_hash.plots.curves import PENALTY_COLORS, PENALTY_NAMES, PENALTY_STYLES
from derm_hash.plots.style import GREY, INK, WRONG, overlay

FONT = f'font-family="DejaVu Sans, Verdana, sans-serif" fill="{INK}"'
BLUE = "#0072b2"
SHOWN = 256  # pixels: smaller pictures are enlarged before an outline is drawn on them


def jpeg(picture: np.ndarray, most: int | None = None) -> bytes:
    """A picture as JPEG, with its colours at full resolution; at ``most`` pixels wide."""
    buffer, image = io.BytesIO(), Image.fromarray(picture)
    if most is not None and image.width > most:
        image = image.resize((most, most), Image.Resampling.BOX, reducing_gap=2)
    image.save(buffer, format="JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def picture_html(content: bytes, words: str, side: int = 224, frame: str = "none") -> str:
    """A JPEG as HTML, ``side`` pixels wide, with its alternative text and a frame of 3 pixels."""
    source = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
    style = f"display:block;width:{side}px;height:{side}px;max-width:none;border:3px {frame}"
    words = html.escape(words)
    # Decoded at once: a picture that takes the place of another does not flicker.
    return f'<img alt="{words}" src="{source}" decoding="sync" style="{style}">'


def enlarged(picture: np.ndarray, method=Image.Resampling.BICUBIC) -> np.ndarray:
    """A picture of at least ``SHOWN`` pixels, so that what is drawn on it is fine."""
    side = max(picture.shape[0], SHOWN)
    return np.asarray(Image.fromarray(picture).resize((side, side), method))


def with_heat(picture, heat, mask, opacity: float) -> np.ndarray:
    """A picture with its heatmap and the outline of its lesion, enlarged."""
    result = overlay(enlarged(picture), heat, opacity)
    if mask is not None:
        inside = enlarged(mask.astype(np.uint8) * 255, Image.Resampling.BILINEAR) > 127
        outside, inner = edge(~inside), edge(inside)
        result[outside], result[inner] = 0, 255
    return result


def edge(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask (S, S) bool that touch a pixel outside it."""
    return mask & ~binary_erosion(mask, border_value=1)


def code_strip(code: np.ndarray, reference: np.ndarray) -> str:
    """A code as HTML: shade and title are the soft value, a wedge marks what differs."""
    cells = []
    for i, (value, old) in enumerate(zip(code, reference, strict=True)):
        bit, changed = value > 0.5, (value > 0.5) != (old > 0.5)
        shade = round(255 * (1 - float(value)))
        ring = f"outline:3px solid {WRONG};outline-offset:-3px;" if changed else ""
        style = (
            f"display:inline-block;width:1.15em;text-align:center;line-height:1.6;{ring}"
            f"border:1px solid #767676;background:rgb({shade},{shade},{shade});"
            f"color:{'#fff' if shade < 118 else '#000'}"
        )
        title = f"bit {i}: {value:.3f}" + (f", unturned {old:.3f}: flipped" if changed else "")
        wedge = "▾" if changed else "&nbsp;"
        cells.append(
            f'<span title="{title}" style="display:inline-block;text-align:center;line-height:1">'
            f'{wedge}<br><span style="{style}">{int(bit)}</span></span>'
        )
    digits = "".join(str(int(value > 0.5)) for value in code)
    return (
        f'<div role="img" aria-label="code {digits}" style="max-width:27em">{"".join(cells)}</div>'
    )


def svg_charts(view: LossView, gamma: float) -> str:
    """The loss and its gradient side by side, with the four orbit points, as SVG."""
    width, height = 900, 350
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'{FONT} font-size="13" style="max-width:900px" role="img" aria-label="'
        "loss and gradient against the distance of "
        'a bit from the mean of its orbit">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for left, which, name in ((60, 0, "loss ρ(d)"), (510, 1, "gradient ρ′(d)")):
        lines = {kind: curve[which + 1] for kind, curve in view.curves.items()}
        dots = {kind: values[which] for kind, values in view.points.items()}
        title = f"{name} at γ = {gamma:g}"
        parts += _chart(left, title, name, view.curves, lines, view.distance, dots)
    parts += _legend(view.curves)
    return "\n".join([*parts, "</svg>"])


def _chart(left, title, ylabel, curves, lines, distance, dots) -> list[str]:
    """One chart: frame, ticks, a line for each penalty, and its points."""
    top, bottom, right = 34, 240, left + 370
    high = max(max(float(y.max()) for y in lines.values()), 0.1) * 1.05

    def at(x, y):
        return left + 370 * x, bottom - (bottom - top) * y / high

    parts = [f'<text x="{left}" y="20" font-weight="bold">{title}</text>']
    for tick in np.linspace(0, 1, 6):
        x, _ = at(tick, 0)
        parts.append(f'<path d="M{x:.0f} {top}V{bottom}" stroke="#e0e0e0"/>')
        parts.append(f'<text x="{x:.0f}" y="{bottom + 18}" text-anchor="middle">{tick:.1f}</text>')
    for tick in MaxNLocator(5).tick_values(0, high):
        _, y = at(0, tick)
        if tick <= high:
            parts.append(f'<path d="M{left} {y:.0f}H{right}" stroke="#e0e0e0"/>')
            parts.append(f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{tick:g}</text>')
    parts.append(
        f'<text x="{(left + right) / 2}" y="{bottom + 38}" text-anchor="middle">'
        "distance from the mean d = |u − ū|, in units of the soft code</text>"
    )
    for kind, y in lines.items():
        path = " ".join(
            "{:.1f},{:.1f}".format(*at(*p)) for p in zip(curves[kind][0], y, strict=True)
        )
        parts.append(f'<polyline points="{path}" fill="none" {_stroke(kind)}/>')
    for kind, y in dots.items():
        color = PENALTY_COLORS[kind]
        (x0, y0), (x1, y1) = at(distance[0], y[0]), at(distance[1], y[1])
        parts.append(f'<circle cx="{x1:.1f}" cy="{y1:.1f}" r="5.5" fill="{color}"/>')
        diamond = f"M{x0:.1f} {y0 - 8:.1f}l8 8l-8 8l-8 -8z"
        parts.append(f'<path d="{diamond}" fill="{color}" stroke="white"/>')
    return parts


def _stroke(kind: str) -> str:
    dashes = {"-": "none", "--": "9 5", "-.": "9 4 2 4", ":": "2 4"}
    dash = dashes[PENALTY_STYLES[kind]]
    return f'stroke="{PENALTY_COLORS[kind]}" stroke-width="2.5" stroke-dasharray="{dash}"'


def _legend(kinds) -> list[str]:
    """Penalties by line, the orbit's members by mark."""
    parts = []
    for i, kind in enumerate(kinds):
        x = 60 + 125 * i
        parts.append(f'<path d="M{x} 306h36" {_stroke(kind)}/>')
        parts.append(f'<text x="{x + 44}" y="311">{PENALTY_NAMES[kind]}</text>')
    marks = "◆ the bit that disagrees &#160;&#160; ● the three others (at one place)"
    return [*parts, f'<text x="60" y="335">{marks}</text>']


def svg_follows(followed: dict[float, float], angle: float, mirrored: bool) -> str:
    """How well a heatmap follows its image, over the angles that were looked at, as SVG."""
    left, right, top, bottom = 44, 338, 26, 130

    def at(degrees: float, correlation: float) -> str:
        x = left + (right - left) * degrees / 360
        return f"{x:.1f},{bottom - (bottom - top) * (correlation + 1) / 2:.1f}"

    words = ", ".join(f"{value:.2f} at {each:g}°" for each, value in sorted(followed.items()))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 360 170" {FONT} font-size="11" '
        f'role="img" aria-label="correlation with the unturned map: {words or "not turned yet"}">',
        '<rect width="360" height="170" fill="white"/>',
        '<text x="8" y="15" font-weight="bold">Does the map turn with the image?</text>',
    ]
    for tick in (-1, 0, 1):
        y = at(0, tick).partition(",")[2]
        parts.append(f'<path d="M{left} {y}H{right}" stroke="#e0e0e0"/>')
        parts.append(f'<text x="{left - 6}" y="{y}" dy="4" text-anchor="end">{tick}</text>')
    for tick in range(0, 361, 90):
        x = at(tick, 0).partition(",")[0]
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{tick}°</text>')
    x = at(angle, 0).partition(",")[0]
    parts.append(f'<path d="M{x} {top}V{bottom}" stroke="{GREY}" stroke-dasharray="3 3"/>')
    # Neither turned nor mirrored, it is itself; mirrored, that has to be looked at too.
    known = followed if mirrored else {**followed, 0: 1.0}
    points = sorted((known | {360: known[0]} if 0 in known else known).items())
    for before, after in pairwise(points):
        if after[0] - before[0] <= 30:
            parts.append(f'<path d="M{at(*before)}L{at(*after)}" stroke="{BLUE}"/>')
    for point in points:
        x, y = at(*point).split(",")
        parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{BLUE}"/>')
    name = "turned by; height: correlation with the unturned map, turned"
    parts.append(f'<text x="8" y="{bottom + 34}">{name}</text>')
    return "\n".join([*parts, "</svg>"])


def stacked(pictures: list[bytes]) -> bytes:
    """PNG files one below the other, as one PNG file."""
    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    size = max(image.width for image in images), sum(image.height for image in images)
    result, buffer = Image.new("RGB", size, "white"), io.BytesIO()
    top = 0
    for image in images:
        result.paste(image, (0, top))
        top += image.height
    result.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


# --- words and links --------------------------------------------------------------------


def link(content: bytes, kind: str, name: str, text: str) -> str:
    """A link that saves a file from the page itself: nothing is written where the kernel runs."""
    data = base64.b64encode(content).decode()
    return f'<a download="{html.escape(name)}" href="data:{kind};base64,{data}">{text}</a>'


def lines(*texts: str) -> str:
    """Lines of HTML, close together."""
    return f'<div style="line-height:1.35">{"<br>".join(texts)}</div>'


def about(query: Query, name: str) -> str:
    """A query in words, as HTML; name: its id."""
    label = query.label or "class not known"
    origin = {"query": "", "database": " (from the database)", "upload": " (uploaded)"}
    return lines(f"<b>query: {html.escape(label)}</b>", html.escape(name) + origin[query.origin])


def in_words(view: RetrievalView, state: RetrievalState) -> str:
    """The numbers of a view, as HTML."""
    n, right = len(view.hits), sum(bool(hit.right) for hit in view.hits)
    where = "in the database" if state.radius is None else f"within {counted(state.radius, 'bit')}"
    only = f" of {html.escape(state.hits_from)}" if state.hits_from else ""
    parts = [f"{view.within} images{only} {where}"]
    if view.precision is not None:
        parts.insert(0, f"<b>precision@{state.k}: {view.precision:.2f}</b> ({right} of {n} hits)")
    if state.is_turned:
        parts.append(f"<b>{view.flipped} of {len(view.code)} bits flipped</b> by turning")
        parts.append(f"{view.kept} of the unturned query's {view.before} hits still here")
    if not n and state.radius is None:
        parts.append("no hits: the query is the only image that is searched")
    elif not n:
        parts.append("no hits: choose a larger radius")
    return lines(" · ".join(parts))


def heat_in_words(view: HeatView) -> str:
    """The numbers of a heatmap, as HTML."""
    parts = []
    if view.low is not None:
        parts.append(
            f"the query's gate goes from {view.low:.2f} (dark) to {view.high:.2f} (bright)"
        )
    if not view.heat.any():
        parts.append("nothing in the query speaks for it: the map is empty")
    elif view.energy is not None:
        where = "on" if view.points else "off"
        parts.append(
            f"<b>{view.energy:.0%} of the heat is on the lesion</b>, which covers {view.area:.0%} "
            f"of the image; the hottest point is {where} it"
        )
    if view.follows is not None:
        parts.append(f"the map follows the turn with correlation {view.follows:.2f}")
    return lines(" · ".join(parts) or "no lesion mask for this image")
