"""The explorers: turn a lesion and watch the bits, see why a hit matched, bend the loss.

Each explorer is two things. Its state is plain Python: methods that set what is asked
(the query, the angle, k, ...), and ``view()``, which computes what there is to see; it
needs no browser. The explorer itself is a thin ipywidgets view on it: pictures travel as
encoded bytes, and the page sends a slider's latest value only when the last one has been
answered, so that dragging never queues up work.

Saved in a notebook, an explorer leaves a picture of its first view for pages without a
kernel. Running its cell again closes the one before.
"""

import html
import io
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

import ipywidgets as widgets
import numpy as np
import torch
from IPython import get_ipython
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from derm_hash import plots
from derm_hash.data import LesionDataset, from_input, open_image, square, to_input
from derm_hash.errors import InputError
from derm_hash.heatmaps import (
    BitTarget,
    ClassTarget,
    MatchTarget,
    gate_maps,
    grad_cam,
    overlay,
    resize_map,
)
from derm_hash.losses import PENALTIES, OrbitPenalty
from derm_hash.metrics import mask_energy, pointing_game
from derm_hash.model import DermHash, encode
from derm_hash.retrieval import RANKS, HashIndex
from derm_hash.rotations import disc_mask, rotate, turn
from derm_hash.training import Run

MOST_HITS = 20
MOST_BYTES = 10_000_000
"""Of an uploaded file. Jupyter's own limit for one message from the page is 10 MiB."""
UNDO = 100  # queries that the way back remembers
SHOWN = 256  # pixels: smaller pictures are enlarged before an outline is drawn on them


# --- what is asked --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Query:
    """An image that is asked about.

    image: (3, S, S) float tensor in [-1, 1]; label: class name, None where it is not known;
    position: in the queries or the database, None for an upload.
    """

    image: Tensor
    name: str
    label: str | None = None
    lesion_id: str = ""
    origin: str = "upload"
    position: int | None = None


def query_from(dataset: LesionDataset, position: int, origin: str) -> Query:
    """Image ``position`` of a data set as a query; origin is "query" or "database"."""
    row = dataset.table.iloc[position]
    image, _ = dataset[position]
    return Query(image, row["image"], row["label"], row["lesion_id"], origin, position)


class QueryState:
    """Which image is asked about, and how it is turned.

    Parameters
    ----------
    model : DermHash or Run
    index : HashIndex
        Of the database images, in their order.
    dataset : LesionDataset
        With the splits ``query`` and ``database``; or the queries alone, if ``database`` is given.
    database : LesionDataset, optional
        The images that the index was built from.
    seed : int
        Of the random choices.

    Raises
    ------
    InputError
        If the index does not belong to the database or to the model.
    """

    def __init__(
        self,
        model: DermHash | Run,
        index: HashIndex,
        dataset: LesionDataset,
        database: LesionDataset | None = None,
        seed: int = 0,
    ):
        self.model = model.model if isinstance(model, Run) else model
        self.index = index
        self.queries = dataset.split("query") if database is None else dataset
        self.database = dataset.split("database") if database is None else database
        if not np.array_equal(index.labels, self.database.labels.numpy()):
            raise InputError(
                f"The index of {len(index)} images was not made from this database of "
                f"{len(self.database)}: make it with build_index(model, dataset.split('database'))."
            )
        if index.bits != self.model.bits:
            raise InputError(
                f"The index holds codes of {index.bits} bits and the model makes "
                f"{self.model.bits}: make the index with this model."
            )
        self.classes = self.queries.classes
        self._rng = np.random.default_rng(seed)
        self._past: deque[Query] = deque(maxlen=UNDO)
        self.among = np.arange(len(self.queries))
        self.only_class: str | None = None
        self.query = query_from(self.queries, 0, "query")
        self.angle, self.mirrored = 0.0, False

    def ask(self, query: Query) -> None:
        """Make this the query, upright; `back` leads to the one before."""
        self._past.append(self.query)
        self.query, self.angle, self.mirrored = query, 0.0, False

    def back(self) -> None:
        """Return to the query before, if there is one."""
        if self._past:
            self.query, self.angle, self.mirrored = self._past.pop(), 0.0, False

    @property
    def can_go_back(self) -> bool:
        """Whether there is a query to go back to."""
        return bool(self._past)

    def choose(self, position: int) -> None:
        """Ask about query image ``position``, 0..N-1."""
        if not 0 <= position < len(self.queries):
            raise InputError(f"There are {len(self.queries)} queries, from 0 on: no {position}.")
        self.ask(query_from(self.queries, position, "query"))

    def show_class(self, name: str | None) -> None:
        """Go through the queries of one class, or all (None), from its first one on."""
        among = np.flatnonzero([name in (None, label) for label in self.queries.table["label"]])
        if not len(among):
            raise InputError(f"There is no query of the class {name}: choose another.")
        self.among, self.only_class = among, name
        self.choose(int(among[0]))

    def step(self, by: int) -> None:
        """Ask about the query that is ``by`` places further, round and round."""
        at = np.flatnonzero(self.among == self._last_query_position())
        start = int(at[0]) if len(at) else (-1 if by > 0 else 0)
        self.choose(int(self.among[(start + by) % len(self.among)]))

    def _last_query_position(self) -> int | None:
        """Of the query, or of the last one before it that was one of the query images."""
        for query in (self.query, *reversed(self._past)):
            if query.origin == "query":
                return query.position
        return None

    def random(self) -> None:
        """Ask about any query of the class."""
        self.choose(int(self._rng.choice(self.among)))

    def turn(self, angle: float) -> None:
        """Turn the query to an angle in degrees, counter-clockwise."""
        self.angle = float(angle) % 360

    def mirror(self, mirrored: bool) -> None:
        """Mirror the query left to right (before it is turned), or not."""
        self.mirrored = bool(mirrored)

    def turned(self, x: Tensor) -> Tensor:
        """Images or maps (B, C, S, S), mirrored and turned as the query is."""
        return turn(x.flip(-1) if self.mirrored else x, self.angle)

    @property
    def is_turned(self) -> bool:
        """Whether the query is turned or mirrored."""
        return bool(self.angle or self.mirrored)

    def pair(self) -> Tensor:
        """The query as it is and as it is turned: (2, 3, S, S).

        At angles other than multiples of 90 degrees both show the inscribed disc alone,
        since the turned image has no corners.
        """
        x = self.query.image[None]
        upright = x if self.angle % 90 == 0 else rotate(x, 0)
        return torch.cat([upright, self.turned(x)])

    def hits_of(self, codes: np.ndarray, k: int, radius: int | None, rank: str) -> list["Hit"]:
        """The k best hits for one soft code (bits,), without the query itself."""
        itself = self.query.position if self.query.origin == "database" else -1
        found = self.index.search(codes[None], k + (itself >= 0), radius, rank)
        rows = zip(*(part[0].tolist() for part in found), strict=True)
        kept = [row for row in rows if row[0] >= 0 and row[0] != itself][:k]
        return [self._hit(*row) for row in kept]

    def _hit(self, position: int, hamming: int, distance: float) -> "Hit":
        row, query = self.database.table.iloc[position], self.query
        right = None if query.label is None else bool(row["label"] == query.label)
        same = bool(query.lesion_id) and row["lesion_id"] == query.lesion_id
        return Hit(position, row["image"], row["label"], hamming, distance, right, same)


@dataclass(frozen=True)
class Hit:
    """A hit: place in the database, id, label, distances; right is None without a query label."""

    position: int
    name: str
    label: str
    hamming: int
    distance: float
    right: bool | None
    same_lesion: bool

    @property
    def mark(self) -> str:
        """Right or wrong as a sign."""
        return {True: "✓", False: "✗", None: ""}[self.right]


# --- retrieval ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class RetrievalView:
    """What the retrieval explorer shows.

    picture: uint8 (S, S, 3), the query as it is turned; code, reference: (bits,) soft codes of
    it and of the unturned query; precision: share of right hits among those returned, None
    without a label; within: database images in the radius; kept: how many of the unturned
    query's ``before`` hits are still there.
    """

    query: Query
    picture: np.ndarray
    code: np.ndarray
    reference: np.ndarray
    hits: list[Hit]
    precision: float | None
    within: int
    kept: int
    before: int

    @property
    def flipped(self) -> int:
        """Bits that differ from the unturned query's."""
        return int(((self.code > 0.5) != (self.reference > 0.5)).sum())


class RetrievalState(QueryState):
    """What is asked of the index; parameters as :class:`QueryState`."""

    def __init__(self, model, index, dataset, database=None, seed=0):
        super().__init__(model, index, dataset, database, seed)
        self.k, self.radius, self.rank = 10, 4, "cosine"

    def set_k(self, k: int) -> None:
        """Show this many hits, 1..20."""
        if not 1 <= k <= MOST_HITS:
            raise InputError(f"k is the number of hits, from 1 to {MOST_HITS}, not {k}.")
        self.k = int(k)

    def set_radius(self, radius: int | None) -> None:
        """Search within this Hamming radius, or everywhere (None)."""
        if radius is not None and radius < 0:
            raise InputError(f"A Hamming radius is 0 or more, or None for no limit, not {radius}.")
        self.radius = radius

    def set_rank(self, rank: str) -> None:
        """Rank by one of ``retrieval.RANKS``."""
        if rank not in RANKS:
            raise InputError(f"Unknown ranking {rank!r}: choose one of {', '.join(RANKS)}.")
        self.rank = rank

    def use_hit(self, place: int) -> None:
        """Make the hit at ``place`` (from 0) of the present view the query."""
        hits = self.view().hits
        if not 0 <= place < len(hits):
            raise InputError(f"There are {len(hits)} hits: no number {place + 1}.")
        self.ask_database(hits[place].position)

    def ask_database(self, position: int) -> None:
        """Make image ``position`` of the database the query."""
        if not 0 <= position < len(self.database):
            raise InputError(f"The database has {len(self.database)} images: no {position}.")
        self.ask(query_from(self.database, position, "database"))

    def upload(self, content: bytes, name: str = "the file") -> None:
        """Make an image file the query: any format that ``data.open_image`` reads.

        Raises
        ------
        InputError
            If it is larger than ``MOST_BYTES`` or no image; the query stays as it was.
        """
        if len(content) > MOST_BYTES:
            raise InputError(
                f"{name} has {len(content) / 1e6:.1f} MB, more than the {MOST_BYTES // 10**6} MB "
                "that are taken: make it smaller first"
            )
        picture = square(open_image(io.BytesIO(content), name), self.queries.size)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        self.ask(Query(to_input(pixels), name))

    def view(self) -> RetrievalView:
        """Encode the query, search, and compare with the unturned query."""
        pair = self.pair()
        reference, code = encode(self.model, pair)
        hits = self.hits_of(code, self.k, self.radius, self.rank)
        before = self.hits_of(reference, self.k, self.radius, self.rank)
        kept = {hit.position for hit in hits} & {hit.position for hit in before}
        within = len(self.index)
        if self.radius is not None:
            within = int(self.index.within(code[None], self.radius)[0])
        rights = [hit.right for hit in hits]
        precision = None if self.query.label is None else sum(rights) / max(len(rights), 1)
        picture = picture_of(pair[1])
        return RetrievalView(
            self.query, picture, code, reference, hits, precision, within, len(kept), len(before)
        )


# --- heatmaps -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class HeatView:
    """What the heatmap explorer shows of the query and of its hit.

    hits: the ten nearest images of the whole database, for the query as it is turned;
    hit: the chosen one. picture, hit_picture: uint8 (S, S, 3); heat, hit_heat: (S, S) in
    [0, 1]; mask, hit_mask: (S, S) bool or None. low, high: what 0 and 1 stand for, where
    the map is a gate. energy: share of the heat on the lesion, beside area, which a flat map
    would get; points: whether the hottest point is on the lesion; all None without a mask.
    follows: correlation of the map with the unturned image's map, turned; None where the
    query is not turned, or a map is flat.
    """

    picture: np.ndarray
    heat: np.ndarray
    mask: np.ndarray | None
    hits: list[Hit]
    hit: Hit
    hit_picture: np.ndarray
    hit_heat: np.ndarray
    hit_mask: np.ndarray | None
    low: float | None = None
    high: float | None = None
    energy: float | None = None
    area: float | None = None
    points: bool | None = None
    follows: float | None = None


class HeatmapState(QueryState):
    """What the heatmap is of; parameters as :class:`QueryState`.

    Attributes
    ----------
    subjects : dict from a title to what is explained: ("gate", block), ("match", None),
        ("class", i) or ("bit", i)
    """

    def __init__(self, model, index, dataset, database=None, seed=0):
        super().__init__(model, index, dataset, database, seed)
        self.subjects: dict[str, tuple] = {"match with the hit": ("match", None)}
        self.subjects |= {f"gate {block}": ("gate", block) for block in self._blocks()}
        self.subjects |= {f"class {name}": ("class", i) for i, name in enumerate(self.classes)}
        self.subjects |= {f"bit {i}": ("bit", i) for i in range(self.model.bits)}
        self.subject, self.place, self.opacity = next(iter(self.subjects)), 0, 0.6

    def _blocks(self) -> list[str]:
        try:
            return list(gate_maps(self.model, self.query.image[None]))
        except InputError:  # a model without a spatial gate: there is Grad-CAM still
            return []

    def explain(self, subject: str) -> None:
        """Show the map of one of ``subjects``."""
        if subject not in self.subjects:
            raise InputError(f"There is no heatmap {subject!r}: choose one that is listed.")
        self.subject = subject

    def set_place(self, place: int) -> None:
        """Look at the hit at this place, from 0."""
        if not 0 <= place < min(10, len(self.index)):
            raise InputError(f"There is no hit number {place + 1}: choose one that is listed.")
        self.place = int(place)

    def set_opacity(self, opacity: float) -> None:
        """Opacity of the hottest point, 0..1."""
        if not 0 <= opacity <= 1:
            raise InputError(f"Opacity lies between 0 and 1, not {opacity}.")
        self.opacity = float(opacity)

    def view(self) -> HeatView:
        """The map of the query and of its hit, and how they score."""
        pair = self.pair() if self.is_turned else self.pair()[1:]
        code = encode(self.model, pair[-1:])[0]
        hits = self.hits_of(code, 10, None, "cosine")
        hit = hits[self.place]
        x_hit, _ = self.database.batch([hit.position])
        maps = self._maps(pair, self.index.codes[hit.position])
        [hit_heat] = self._maps(x_hit, code)
        disc = np.ones(maps.shape[1:], dtype=bool)
        if self.angle % 90:
            disc = disc_mask(len(disc)).numpy()
        heat, low, high = np.where(disc, maps[-1], 0), None, None
        scores = lesion_scores(heat, mask := self._mask(disc), disc)
        if self.subjects[self.subject][0] == "gate":
            low, high = float(heat[disc].min()), float(heat[disc].max())
            heat = np.where(disc, stretched(heat, low, high), 0)
            hit_heat = stretched(hit_heat, float(hit_heat.min()), float(hit_heat.max()))
        return HeatView(
            picture=picture_of(pair[-1]),
            heat=heat,
            mask=mask,
            hits=hits,
            hit=hit,
            hit_picture=self.database.picture(hit.position),
            hit_heat=hit_heat,
            hit_mask=self.database.mask(hit.position),
            low=low,
            high=high,
            follows=self._follows(maps, disc),
            **scores,
        )

    def _maps(self, x: Tensor, other: np.ndarray) -> np.ndarray:
        """The chosen map of images (B, 3, S, S) -> (B, S, S); other: the code of a match."""
        kind, which = self.subjects[self.subject]
        if kind == "gate":
            maps = gate_maps(self.model, x)[which]
            return np.stack([resize_map(gate, x.shape[-1]) for gate in maps])
        targets = {"class": ClassTarget, "bit": BitTarget}
        target = MatchTarget(other) if kind == "match" else targets[kind](which)
        return grad_cam(self.model, x, target)

    def _mask(self, disc: np.ndarray) -> np.ndarray | None:
        """The query's lesion mask, turned with it."""
        mask = self.queries.mask(self.query.position)
        if mask is None:
            return None
        turned = self.turned(torch.from_numpy(mask.astype(np.float32))[None, None])
        return (turned[0, 0].numpy() > 0.5) & disc

    def _follows(self, maps: np.ndarray, disc: np.ndarray) -> float | None:
        """Correlation of the turned image's map with the unturned image's map, turned."""
        if not self.is_turned:
            return None
        expected = self.turned(torch.from_numpy(maps[:1, None]))[0, 0].numpy()[disc]
        found = maps[1][disc]
        flat = expected.std() == 0 or found.std() == 0
        return None if flat else float(np.corrcoef(expected, found)[0, 1])


def stretched(heat: np.ndarray, low: float, high: float) -> np.ndarray:
    """A map from low to high as 0..1."""
    return np.clip((heat - low) / max(high - low, 1e-9), 0, 1)


def lesion_scores(heat: np.ndarray, mask: np.ndarray | None, disc: np.ndarray) -> dict:
    """How much of a map lies on the lesion, and what a flat map would get."""
    if mask is None:
        return {}
    area = float(mask[disc].mean())
    return {"energy": mask_energy(heat, mask), "area": area, "points": pointing_game(heat, mask)}


# --- the loss -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LossView:
    """What the loss explorer shows.

    distance: (4,) |u_k - ubar|, the odd bit first; curves: penalty -> (d, rho(d), rho'(d));
    points: penalty -> (rho, rho') at the four distances; loss: penalty -> sum of the four;
    pull: penalty -> gradient of the loss with respect to the odd bit, through the mean too.
    """

    distance: np.ndarray
    curves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    points: dict[str, tuple[np.ndarray, np.ndarray]]
    loss: dict[str, float]
    pull: dict[str, float]


@dataclass
class LossState:
    """One bit of the four turned copies: ``odd`` in one of them, ``others`` in the other three."""

    gamma: float = 0.5
    kinds: tuple[str, ...] = tuple(PENALTIES)
    odd: float = 0.9
    others: float = 0.2
    grid: np.ndarray = field(default_factory=lambda: np.linspace(0, 1, 101), repr=False)

    def set_gamma(self, gamma: float) -> None:
        """Scale of the penalties, greater than 0."""
        if not gamma > 0:
            raise InputError(f"gamma is a scale and must be greater than 0, not {gamma}.")
        self.gamma = float(gamma)

    def set_kinds(self, kinds: Sequence[str]) -> None:
        """The penalties to show, at least one."""
        if not kinds or set(kinds) - set(PENALTIES):
            raise InputError(f"Choose at least one of the penalties {', '.join(PENALTIES)}.")
        self.kinds = tuple(kind for kind in PENALTIES if kind in kinds)

    def set_odd(self, value: float) -> None:
        """Soft value of the bit that disagrees, 0..1."""
        self.odd = self._soft(value)

    def set_others(self, value: float) -> None:
        """Soft value of the bit in the three other copies, 0..1."""
        self.others = self._soft(value)

    @staticmethod
    def _soft(value: float) -> float:
        if not 0 <= value <= 1:
            raise InputError(f"A soft bit lies between 0 and 1, not {value}.")
        return float(value)

    def view(self) -> LossView:
        """Curves and orbit points of the chosen penalties."""
        u = np.array([self.odd, self.others, self.others, self.others])
        distance = np.abs(u - u.mean())
        at = {kind: partial(plots.penalty_curve, kind, self.gamma) for kind in self.kinds}
        curves = {kind: (self.grid, *curve(self.grid)) for kind, curve in at.items()}
        points = {kind: curve(distance) for kind, curve in at.items()}
        loss, pull = {}, {}
        for kind in self.kinds:
            codes = torch.tensor(u).view(4, 1, 1).requires_grad_()
            value = OrbitPenalty(kind, self.gamma)(codes)
            (gradient,) = torch.autograd.grad(value, codes)
            loss[kind], pull[kind] = float(value.detach()), float(gradient[0])
        return LossView(distance, curves, points, loss, pull)


# --- pictures and marks ---------------------------------------------------------------


def picture_of(x: Tensor) -> np.ndarray:
    """Network input (3, S, S) as a picture, uint8 (S, S, 3)."""
    return from_input(x).permute(1, 2, 0).numpy()


def jpeg(picture: np.ndarray) -> bytes:
    """A picture as JPEG, with its colours at full resolution."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


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
    """The pixels of a mask (S, S) bool that touch what is not in it."""
    padded = np.pad(mask, 1, mode="edge")
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~core


def code_strip(code: np.ndarray, reference: np.ndarray) -> str:
    """A code as HTML: shade and title are the soft value, a wedge marks what differs."""
    cells = []
    for i, (value, old) in enumerate(zip(code, reference, strict=True)):
        bit, changed = value > 0.5, (value > 0.5) != (old > 0.5)
        shade = round(255 * (1 - float(value)))
        ring = f"outline:3px solid {plots.WRONG};outline-offset:-3px;" if changed else ""
        style = (
            f"display:inline-block;width:1.35em;text-align:center;line-height:1.6;{ring}"
            f"border:1px solid #767676;background:rgb({shade},{shade},{shade});"
            f"color:{'#fff' if shade < 118 else '#000'}"
        )
        title = f"bit {i}: {value:.3f}" + (f", unturned {old:.3f}: flipped" if changed else "")
        wedge = "▾" if changed else "&nbsp;"
        cells.append(
            f'<span title="{title}" style="display:inline-block;text-align:center;line-height:1">'
            f'{wedge}<br><span style="{style}">{int(bit)}</span></span>'
        )
    bits = "".join(str(int(value > 0.5)) for value in code)
    return f'<div role="img" aria-label="code {bits}" style="max-width:27em">{"".join(cells)}</div>'


def svg_charts(view: LossView, gamma: float) -> str:
    """The loss and its gradient side by side, with the four orbit points, as SVG."""
    width, height = 900, 350
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="DejaVu Sans, Verdana, sans-serif" font-size="13" fill="{plots.INK}">',
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
        color = plots.PENALTY_COLORS[kind]
        (x0, y0), (x1, y1) = at(distance[0], y[0]), at(distance[1], y[1])
        parts.append(f'<circle cx="{x1:.1f}" cy="{y1:.1f}" r="5.5" fill="{color}"/>')
        diamond = f"M{x0:.1f} {y0 - 8:.1f}l8 8l-8 8l-8 -8z"
        parts.append(f'<path d="{diamond}" fill="{color}" stroke="white"/>')
    return parts


def _stroke(kind: str) -> str:
    dashes = {"-": "none", "--": "9 5", "-.": "9 4 2 4", ":": "2 4"}
    dash = dashes[plots.PENALTY_STYLES[kind]]
    return f'stroke="{plots.PENALTY_COLORS[kind]}" stroke-width="2.5" stroke-dasharray="{dash}"'


def _legend(kinds) -> list[str]:
    """Penalties by line, the orbit's members by mark."""
    parts = []
    for i, kind in enumerate(kinds):
        x = 60 + 125 * i
        parts.append(f'<path d="M{x} 306h36" {_stroke(kind)}/>')
        parts.append(f'<text x="{x + 44}" y="311">{plots.PENALTY_NAMES[kind]}</text>')
    marks = "◆ the bit that disagrees &#160;&#160; ● the three others (at one place)"
    return [*parts, f'<text x="60" y="335">{marks}</text>']


# --- views ----------------------------------------------------------------------------

ROW = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "4px 10px"}
NO_LIMIT = -1  # stands for None, which ipywidgets takes for "nothing chosen"
WIDE = {"description_width": "initial"}
OPEN: dict[str, list[tuple[str, "Explorer"]]] = {}  # cell -> (run of it, explorer)


class Explorer(widgets.VBox):
    """What the explorers have in common: one place for actions, errors and the end.

    A subclass has a ``state``, and ``draw()`` brings what is shown in line with it.
    """

    def __init__(self, state, controls: Sequence[widgets.Widget], body: Sequence[widgets.Widget]):
        self.state = state
        self._links: list[Callable[[], None]] = []
        self._busy = False
        self.message = widgets.HTML()
        super().__init__([*controls, self.message, *body])
        self.add_class("derm-hash-explorer")
        self._take_the_place_of_earlier_ones()

    def when(self, widget: widgets.Widget, action: Callable) -> None:
        """Call ``action(value)`` and draw when the widget's value changes."""

        def changed(change):
            self.act(action, change.new)

        widget.observe(changed, "value")
        self._links.append(partial(widget.unobserve, changed, "value"))

    def on_click(self, button: widgets.Button, action: Callable, *values) -> None:
        """Call ``action(*values)`` and draw when the button is pressed."""

        def clicked(_):
            self.act(action, *values)

        button.on_click(clicked)
        self._links.append(partial(button.on_click, clicked, remove=True))

    def act(self, action: Callable, *values) -> None:
        """Do it and draw; if it cannot be done, say why in a sentence."""
        if self._busy:  # a control that draw() has just set
            return
        self._busy, sentence = True, ""
        try:
            action(*values)
            self.draw()
        except (InputError, RuntimeError, MemoryError, OSError) as error:
            sentence = html.escape(" ".join(str(error).split()) or type(error).__name__)
            self.sync()
        finally:
            self._busy = False
        self.message.value = sentence and f'<div role="alert"><b>⚠ {sentence}</b></div>'

    def show(self) -> None:
        """Draw without listening to the controls that are set thereby."""
        self._busy = True
        self.draw()
        self._busy = False

    def draw(self) -> None:
        """Show the state."""
        raise NotImplementedError

    def sync(self) -> None:
        """Set the controls to what the state says."""
        raise NotImplementedError

    def figure(self) -> Figure:
        """The present view as a figure, for pages without a kernel."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs):
        data = super()._repr_mimebundle_(**kwargs)
        data["image/png"] = plots.figure_png(self.figure())
        data["text/plain"] = f"{type(self).__name__} (run the cell to use it)"
        return data

    def close(self) -> None:
        """Unlink the controls and close every part, so that nothing is kept alive."""
        for unlink in self._links:
            unlink()
        self._links.clear()
        for part in [*parts_of(self)][1:]:
            part.close()
        super().close()

    def _take_the_place_of_earlier_ones(self) -> None:
        """Close the explorers that an earlier run of the same cell has made."""
        shell = get_ipython()
        parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
        cell = parent.get("metadata", {}).get("cellId")
        if cell is None:
            return
        run, same = parent["header"]["msg_id"], []
        for earlier, explorer in OPEN.get(cell, []):
            if earlier == run:
                same.append((earlier, explorer))
            else:
                explorer.close()
        OPEN[cell] = [*same, (run, self)]


def parts_of(widget: widgets.Widget):
    """A widget and everything that it is made of."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from parts_of(child)
    for name in ("layout", "style"):
        if isinstance(part := getattr(widget, name, None), widgets.Widget):
            yield part


def picture_box(side: str = "224px") -> widgets.Image:
    """An empty place for a picture."""
    return widgets.Image(format="jpeg", layout={"width": side, "height": side, "margin": "2px"})


def button(text: str, tooltip: str) -> widgets.Button:
    """A button as wide as its text."""
    return widgets.Button(description=text, tooltip=tooltip, layout={"width": "auto"})


def about(query: Query) -> str:
    """A query in words, as HTML."""
    label = query.label or "class not known"
    origin = {"query": "", "database": " (from the database)", "upload": " (uploaded)"}
    name = _short(query.name) + origin[query.origin]
    return lines(f"<b>query: {html.escape(label)}</b>", name)


def lines(*texts: str) -> str:
    """Lines of HTML, close together."""
    return f'<div style="line-height:1.35">{"<br>".join(texts)}</div>'


def _short(name: str) -> str:
    """The id of an image: its file name without folder and ending."""
    return html.escape(name.rsplit("/", 1)[-1].rsplit(".", 1)[0])


class QueryExplorer(Explorer):
    """The controls that choose and turn the query."""

    def __init__(self, state: QueryState, controls, body):
        options = [("all classes", "")] + [
            (name, name) for name in state.classes if (state.queries.table["label"] == name).any()
        ]
        self.classes = widgets.Dropdown(options=options, description="queries", style=WIDE)
        self.classes.layout.width = "auto"
        self.previous = button("◀ previous", "the query before this one")
        self.next = button("next ▶", "the next query")
        self.any = button("random", "any query of the class")
        self.back = button("↩ back", "back to the query before")
        self.angle = widgets.FloatSlider(
            0, min=0, max=360, step=5, description="turned by (°)", readout_format=".0f", style=WIDE
        )
        self.mirrored = widgets.Checkbox(False, description="mirrored", indent=False)
        self.mirrored.layout.width = "auto"
        self.chooser = [self.classes, self.previous, self.next, self.any, self.back]
        super().__init__(state, controls, body)

    def connect(self) -> None:
        """Let the controls act on the state; the last thing that a subclass's __init__ does."""
        state = self.state
        self.when(self.classes, lambda name: state.show_class(name or None))
        self.on_click(self.previous, state.step, -1)
        self.on_click(self.next, state.step, 1)
        self.on_click(self.any, state.random)
        self.on_click(self.back, state.back)
        self.when(self.angle, state.turn)
        self.when(self.mirrored, state.mirror)
        self.show()

    def sync(self) -> None:
        """Set the controls to what the state says."""
        # 360 and 0 are one angle, but the slider stays at the end where the hand left it.
        if self.angle.value % 360 != self.state.angle:
            self.angle.value = self.state.angle
        self.mirrored.value = self.state.mirrored
        self.back.disabled = not self.state.can_go_back


class RetrievalExplorer(QueryExplorer):
    """Ask the index: choose or upload a query, turn it, and see its hits and its bits.

    ``RetrievalExplorer(run, index, dataset)`` as the last line of a cell.

    Parameters
    ----------
    model : DermHash or Run
    index : HashIndex
        Of the database images, in their order: ``build_index(model, dataset.split("database"))``.
    dataset : LesionDataset
        With the splits ``query`` and ``database``; or the queries alone, if ``database`` is given.
    database : LesionDataset, optional
        The images that the index was built from, if they are not a split of ``dataset``.

    Attributes
    ----------
    state : RetrievalState
    """

    def __init__(self, model, index, dataset, database=None):
        state = RetrievalState(model, index, dataset, database)
        self.k = widgets.IntSlider(
            state.k, min=1, max=MOST_HITS, description="hits (k)", style=WIDE
        )
        radii = [(str(r), r) for r in range(min(8, index.bits) + 1)] + [("no limit", NO_LIMIT)]
        self.radius = widgets.SelectionSlider(
            options=radii, value=state.radius, description="radius (bits)", style=WIDE
        )
        self.rank = widgets.Dropdown(options=RANKS, description="ranking", style=WIDE)
        self.rank.layout.width = "auto"
        self.file = widgets.FileUpload(description="upload an image", layout={"width": "auto"})
        self.thumbnail = lru_cache(512)(lambda i: jpeg(state.database.picture(i)))
        self.picture, self.caption = picture_box(), widgets.HTML()
        self.strip, self.summary = widgets.HTML(), widgets.HTML()
        self.cells = [HitCell() for _ in range(MOST_HITS)]
        grid = widgets.GridBox(self.cells)
        grid.layout.grid_template_columns = "repeat(auto-fill, minmax(128px, 1fr))"
        grid.layout.width = "100%"
        left = widgets.VBox([self.picture, self.caption, self.strip], layout={"flex": "0 0 auto"})
        right = widgets.VBox([self.summary, grid], layout={"flex": "1 1 420px"})
        body = widgets.HBox([left, right], layout={"flex_flow": "row wrap", "grid_gap": "4px 16px"})
        rows = [widgets.HBox(layout=ROW), widgets.HBox(layout=ROW)]
        super().__init__(state, rows, [body])
        rows[0].children = [*self.chooser, self.file]
        rows[1].children = [self.angle, self.mirrored, self.k, self.radius, self.rank]
        self.when(self.k, state.set_k)
        self.when(self.radius, lambda r: state.set_radius(None if r == NO_LIMIT else r))
        self.when(self.rank, state.set_rank)
        self.when(self.file, self._upload)
        for place, cell in enumerate(self.cells):
            self.on_click(cell.choose, self._use_hit, place)
        self.connect()

    def _upload(self, files) -> None:
        if files:
            self.file.value = ()  # so that the same file can be chosen again
            self.state.upload(bytes(files[0]["content"]), files[0]["name"])

    def _use_hit(self, place: int) -> None:
        # The hit that is on the page, even where the state has moved on.
        self.state.ask_database(self.view.hits[place].position)

    def draw(self) -> None:
        """Show the query, its code and its hits."""
        self.view = view = self.state.view()
        self.sync()
        self.picture.value = jpeg(view.picture)
        self.picture.alt = f"query {view.query.name}, turned by {self.state.angle:g} degrees"
        self.caption.value = about(view.query)
        self.strip.value = code_strip(view.code, view.reference)
        self.summary.value = in_words(view, self.state)
        for place, cell in enumerate(self.cells):
            hit = view.hits[place] if place < len(view.hits) else None
            cell.show(place, hit, hit and self.thumbnail(hit.position))

    def figure(self) -> Figure:
        """The present view as a figure."""
        view, database = self.view, self.state.database
        return plots.plot_hits(
            view.picture,
            [database.picture(hit.position) for hit in view.hits],
            [hit.label for hit in view.hits],
            view.query.label or "class not known",
            [hit.hamming for hit in view.hits],
            [hit.distance for hit in view.hits],
            view.code,
            self.state.index.codes[[hit.position for hit in view.hits]],
        )


def in_words(view: RetrievalView, state: RetrievalState) -> str:
    """The numbers of a view, as HTML."""
    n, right = len(view.hits), sum(bool(hit.right) for hit in view.hits)
    where = "in the database" if state.radius is None else f"within {plots.bits(state.radius)}"
    parts = [f"{view.within} images {where}"]
    if view.precision is not None:
        parts.insert(0, f"<b>precision@{state.k}: {view.precision:.2f}</b> ({right} of {n} hits)")
    if state.is_turned:
        parts.append(f"<b>{view.flipped} of {len(view.code)} bits flipped</b> by turning")
        parts.append(f"{view.kept} of the unturned query's {view.before} hits still here")
    if not n:
        parts.append("nothing to show: choose a larger radius")
    return " · ".join(parts)


class HitCell(widgets.VBox):
    """A hit: picture, what it is, and a button that makes it the query."""

    def __init__(self):
        self.picture, self.text = picture_box("116px"), widgets.HTML()
        self.choose = button("use as query", "")
        super().__init__([self.picture, self.text, self.choose])
        self.layout.margin = "0 0 8px 0"

    def show(self, place: int, hit: Hit | None, picture: bytes | None) -> None:
        """Show a hit, or nothing."""
        self.layout.display = None if hit else "none"
        if hit is None:
            return
        frame = {True: f"solid {plots.RIGHT}", False: f"dashed {plots.WRONG}", None: "solid grey"}
        self.picture.layout.border = f"3px {frame[hit.right]}"
        self.picture.value = picture
        self.picture.alt = f"hit {place + 1}: {hit.label}"
        texts = [
            f"<b>{place + 1}. {html.escape(hit.label)} {hit.mark}</b>",
            _short(hit.name),
            f"{plots.bits(hit.hamming)}, {hit.distance:.3f}",
        ]
        self.text.value = lines(*texts, *["<b>⚠ same lesion</b>"] * hit.same_lesion)
        self.choose.tooltip = f"make hit {place + 1} the query"


class HeatmapExplorer(QueryExplorer):
    """See where the network looks: gates and Grad-CAM of a query and of its hit.

    Parameters as :class:`RetrievalExplorer`.

    Attributes
    ----------
    state : HeatmapState
    """

    def __init__(self, model, index, dataset, database=None):
        state = HeatmapState(model, index, dataset, database)
        self.subject = widgets.Dropdown(options=[*state.subjects], description="map", style=WIDE)
        self.hit = widgets.Dropdown(options=[("1", 0)], description="hit", style=WIDE)
        self.opacity = widgets.FloatSlider(
            state.opacity, min=0, max=1, step=0.05, description="opacity", style=WIDE
        )
        for chooser in (self.subject, self.hit):
            chooser.layout.width = "auto"
        self.pictures = [picture_box("190px") for _ in range(4)]
        self.captions = [widgets.HTML() for _ in range(4)]
        self.summary = widgets.HTML()
        body = [widgets.VBox(pair) for pair in zip(self.pictures, self.captions, strict=True)]
        rows = [widgets.HBox(layout=ROW) for _ in range(3)]
        super().__init__(state, rows[:2], [rows[2], self.summary])
        rows[0].children = self.chooser
        rows[1].children = [self.subject, self.hit, self.opacity, self.angle, self.mirrored]
        rows[2].children = body
        self.when(self.subject, state.explain)
        self.when(self.hit, state.set_place)
        self.when(self.opacity, state.set_opacity)
        self.connect()

    def draw(self) -> None:
        """Show the query, its hit, and their maps."""
        state = self.state
        self.view = view = state.view()
        self.sync()
        self._list_hits(view.hits)
        outlined = partial(with_heat, opacity=state.opacity)
        shown = [
            enlarged(view.picture),
            outlined(view.picture, view.heat, view.mask),
            enlarged(view.hit_picture),
            outlined(view.hit_picture, view.hit_heat, view.hit_mask),
        ]
        hit = f"hit {state.place + 1}: {view.hit.label} {view.hit.mark}"
        texts = [
            about(state.query),
            lines("query", html.escape(state.subject)),
            lines(f"<b>{html.escape(hit)}</b>", _short(view.hit.name)),
            lines("hit", html.escape(state.subject)),
        ]
        alts = ["query", f"query with {state.subject}", hit, f"{hit} with {state.subject}"]
        for i in range(4):
            self.pictures[i].value, self.pictures[i].alt = jpeg(shown[i]), alts[i]
            self.captions[i].value = texts[i]
        self.summary.value = heat_in_words(view)

    def _list_hits(self, hits: list[Hit]) -> None:
        options = [
            (f"{i + 1}. {hit.label} {hit.mark} ({plots.bits(hit.hamming)})", i)
            for i, hit in enumerate(hits)
        ]
        if list(self.hit.options) != options:
            self.hit.options = options
        self.hit.value = self.state.place

    def figure(self) -> Figure:
        """The present view as a figure."""
        view, state = self.view, self.state
        query, hit = f"query: {state.query.label}", f"hit {state.place + 1}: {view.hit.label}"
        pictures = [
            view.picture,
            with_heat(view.picture, view.heat, view.mask, state.opacity),
            view.hit_picture,
            with_heat(view.hit_picture, view.hit_heat, view.hit_mask, state.opacity),
        ]
        titles = [
            query,
            f"query\n{state.subject}",
            f"{hit} {view.hit.mark}",
            f"hit\n{state.subject}",
        ]
        return plots.image_grid(pictures, titles, columns=4)


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
    return " · ".join(parts) or "no lesion mask for this image"


class LossExplorer(Explorer):
    """One bit of an image's four turned copies disagrees: what does each penalty do about it?

    Attributes
    ----------
    state : LossState
    """

    def __init__(self):
        state = LossState()
        slider = partial(widgets.FloatSlider, min=0, max=1, step=0.02, style=WIDE)
        self.odd = slider(state.odd, description="the bit that disagrees")
        self.others = slider(state.others, description="the three others")
        self.gamma = slider(state.gamma, min=0.05, max=2, step=0.05, description="γ")
        self.kinds = [
            widgets.Checkbox(True, description=plots.PENALTY_NAMES[kind], indent=False)
            for kind in PENALTIES
        ]
        for box in self.kinds:
            box.layout.width = "auto"
        self.chart = widgets.Image(format="svg+xml", layout={"width": "100%", "max_width": "900px"})
        self.table = widgets.HTML()
        rows = [
            widgets.HBox([self.odd, self.others, self.gamma], layout=ROW),
            widgets.HBox(self.kinds, layout=ROW),
        ]
        super().__init__(state, rows, [self.chart, self.table])
        self.when(self.odd, state.set_odd)
        self.when(self.others, state.set_others)
        self.when(self.gamma, state.set_gamma)
        for box in self.kinds:
            self.when(box, self._choose)
        self.show()

    def _choose(self, _) -> None:
        chosen = zip(PENALTIES, self.kinds, strict=True)
        self.state.set_kinds([kind for kind, box in chosen if box.value])

    def sync(self) -> None:
        """Set the controls to what the state says."""
        self.odd.value, self.others.value = self.state.odd, self.state.others
        self.gamma.value = self.state.gamma
        for kind, box in zip(PENALTIES, self.kinds, strict=True):
            box.value = kind in self.state.kinds

    def draw(self) -> None:
        """Show the curves, the orbit's points on them, and the numbers."""
        self.view = view = self.state.view()
        self.chart.value = svg_charts(view, self.state.gamma).encode()
        self.chart.alt = "loss and gradient against the distance of a bit from the orbit's mean"
        names = "".join(f"<th>{plots.PENALTY_NAMES[kind]}</th>" for kind in view.loss)
        losses = "".join(f"<td>{value:.3f}</td>" for value in view.loss.values())
        pulls = "".join(f"<td>{value:+.3f}</td>" for value in view.pull.values())
        self.table.value = (
            '<table style="border-spacing:16px 2px;text-align:right"><tr><td></td>'
            f"{names}</tr><tr><th>loss of the orbit</th>{losses}</tr>"
            f"<tr><th>gradient at the bit that disagrees</th>{pulls}</tr></table>"
        )

    def figure(self) -> Figure:
        """The curves as a figure."""
        return plots.plot_penalties(self.state.gamma, self.state.kinds)
