"""The explorers' states: what is asked, and what there is to see, in plain Python.

Methods of a state set what is asked (the query, the angle, k, ...), and ``view()`` computes what
there is to see, without a browser; `derm_hash.explorers.widgets` puts it on a page.
"""

import io
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import from_input, open_image, square, to_input
from derm_hash.errors import InputError
from derm_hash.heatmaps import BitTarget, ClassTarget, MatchTarget, gate_maps, grad_cam, resize_map
from derm_hash.losses import PENALTIES, OrbitPenalty, penalty_curve
from derm_hash.metrics.overlap import mask_energy, pointing_game
from derm_hash.model import DermHash, encode
from derm_hash.retrieval import METRICS, HashIndex
from derm_hash.rotations import disc_mask, rotate, rotate_view
from derm_hash.runs import Run

MOST_SHOWN = 20  # hits
MOST_BYTES = 10_000_000
"""Of an uploaded file."""
UNDO = 100  # queries that the way back remembers
PAGE = 10  # queries whose pictures are shown at once
CSV_COLUMNS = (
    *("model", "query", "query_label", "angle", "mirrored", "rank"),
    *("image", "label", "hamming", "distance", "right", "same_lesion"),
)
MAPS_KEPT = 4
TURNS = range(0, 360, 30)  # degrees at which a heatmap is compared with the unturned one


# --- what is asked --------------------------------------------------------------------


def picture_of(x: Tensor) -> np.ndarray:
    """Network input (3, S, S) as a picture, uint8 (S, S, 3)."""
    return from_input(x).permute(1, 2, 0).numpy()


def image_id(name: str) -> str:
    """The id of an image: its file name without folder and ending."""
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


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
    image = dataset.batch([position])[0][0]
    return Query(image, row["image"], row["label"], row["lesion_id"], origin, position)


class QueryState:
    """Which image is asked about, and how it is turned.

    The index is of the database images, in their order. ``dataset`` has the splits ``query`` and
    ``database``, or the queries alone if ``database`` is given. ``seed`` is for random choices.
    InputError if the index does not belong to the database or to the model.
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
                f"{len(self.database)}: make it with build_index(model, dataset.split('database'))"
            )
        if index.bits != self.model.bits:
            raise InputError(
                f"The index holds codes of {index.bits} bits and the model makes "
                f"{self.model.bits}: make the index with this model"
            )
        self.classes = self.queries.classes
        self._parts: dict[str | None, tuple[HashIndex, np.ndarray]] = {}
        self._upright: tuple[tuple, np.ndarray] | None = None
        self._rng = np.random.default_rng(seed)
        self._past: deque[Query] = deque(maxlen=UNDO)
        self.among, self.page = np.arange(len(self.queries)), 0
        self.only_class: str | None = None
        self.hits_from: str | None = None
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
            raise InputError(f"There are {len(self.queries)} queries, from 0 on: no {position}")
        self.ask(query_from(self.queries, position, "query"))
        place = np.flatnonzero(self.among == position)
        if len(place):
            self.page = int(place[0]) // PAGE

    def choose_id(self, name: str) -> None:
        """Ask about the image with this id (or path), of the queries or of the database."""
        name = name.strip()
        paths = [name] if name in self._positions else self._paths.get(name, [])
        if not paths:
            raise InputError(
                f"There is no image {name!r} among the {len(self.queries)} queries and "
                f"{len(self.database)} database images: write an id as it stands with a picture"
            )
        if len(paths) > 1:
            raise InputError(
                f"{len(paths)} images have the id {name!r}: write the path of one, such as "
                f"{paths[0]} or {paths[1]}"
            )
        origin, position = self._positions[paths[0]]
        (self.choose if origin == "query" else self.ask_database)(position)

    def id_of(self, path: str) -> str:
        """The id that `choose_id` knows an image by: the path where others have the short one."""
        return path if len(self._paths.get(image_id(path), [])) > 1 else image_id(path)

    @cached_property
    def _positions(self) -> dict[str, tuple[str, int]]:
        """Path -> origin and position; an image that is in both parts is a query."""
        parts = (("database", self.database), ("query", self.queries))
        return {
            path: (origin, position)
            for origin, part in parts
            for position, path in enumerate(part.table["image"])
        }

    @cached_property
    def _paths(self) -> dict[str, list[str]]:
        """Short id -> the paths of all images that have it, such as MEL/001 and NV/001."""
        result: dict[str, list[str]] = {}
        for path in self._positions:
            result.setdefault(image_id(path), []).append(path)
        return result

    def ask_database(self, position: int) -> None:
        """Make image ``position`` of the database the query."""
        if not 0 <= position < len(self.database):
            raise InputError(f"The database has {len(self.database)} images: no {position}")
        self.ask(query_from(self.database, position, "database"))

    def show_class(self, name: str | None) -> None:
        """Go through the queries of one class, or all (None), from its first one on."""
        among = np.flatnonzero([name in (None, label) for label in self.queries.table["label"]])
        if not len(among):
            raise InputError(f"There is no query of the class {name}: choose another")
        self.among, self.only_class = among, name
        self.choose(int(among[0]))

    def leaf(self, by: int) -> None:
        """Show the pictures of the queries ``by`` pages further, round and round."""
        self.page = (self.page + by) % -(-len(self.among) // PAGE)

    def on_page(self) -> list[int]:
        """The queries whose pictures are on the page: their positions, at most ``PAGE``."""
        return self.among[self.page * PAGE : (self.page + 1) * PAGE].tolist()

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
        return rotate_view(x.flip(-1) if self.mirrored else x, self.angle)

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

    def codes(self) -> tuple[np.ndarray, np.ndarray]:
        """Soft codes (bits,) of the query as it is (kept during a drag), and as turned."""
        pair, key = self.pair(), (self.query, self.angle % 90 == 0)
        if self._upright is None or self._upright[0] != key:
            both = encode(self.model, pair)
            self._upright = key, both[0]
            return both[0], both[1]
        return self._upright[1], encode(self.model, pair[1:])[0]

    def search_in(self, name: str | None) -> None:
        """Search in the database images of one class, or in all (None)."""
        if name is not None and not (self.database.table["label"] == name).any():
            raise InputError(f"The database has no image of the class {name}: choose another")
        self.hits_from = name

    def searched(self) -> tuple[HashIndex, np.ndarray]:
        """The part of the index that is searched, and its places in the database."""
        if self.hits_from not in self._parts:
            places = np.arange(len(self.index))
            if self.hits_from is not None:
                places = np.flatnonzero(self.database.table["label"] == self.hits_from)
            self._parts[self.hits_from] = _part(self.index, places), places
        return self._parts[self.hits_from]

    def hits_of(self, code: np.ndarray, k: int, radius: int | None, rank: str) -> list["Hit"]:
        """The k best hits for one soft code (bits,), without the query itself."""
        itself = self.query.position if self.query.origin == "database" else -1
        index, places = self.searched()
        found = index.search(code[None], k + (itself >= 0), radius, rank)
        ids = np.where(found.ids[0] < 0, -1, places[found.ids[0]]).tolist()
        rows = zip(ids, found.hamming[0].tolist(), found.distance[0].tolist(), strict=True)
        return [self._hit(*row) for row in rows if row[0] >= 0 and row[0] != itself][:k]

    def _hit(self, position: int, hamming: int, distance: float) -> "Hit":
        table, query = self.database.table, self.query
        name, label = table["image"].iat[position], table["label"].iat[position]
        right = None if query.label is None else bool(label == query.label)
        same = bool(query.lesion_id) and table["lesion_id"].iat[position] == query.lesion_id
        return Hit(position, name, label, hamming, distance, right, same)


def _part(index: HashIndex, places: np.ndarray) -> HashIndex:
    """The index of some of its images."""
    if len(places) == len(index):
        return index
    part = index.codes[places], index.labels[places], index.items.iloc[places]
    return HashIndex.build(*part, index.classes)


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
        self.k, self.radius, self.rank = 10, 4, METRICS[0]

    def set_k(self, k: int) -> None:
        """Show this many hits, 1..20."""
        if not 1 <= k <= MOST_SHOWN:
            raise InputError(f"k is the number of hits, from 1 to {MOST_SHOWN}, not {k}")
        self.k = int(k)

    def set_radius(self, radius: int | None) -> None:
        """Search within this Hamming radius, or everywhere (None)."""
        if radius is not None and radius < 0:
            raise InputError(f"A Hamming radius is 0 or more, or None for no limit, not {radius}")
        self.radius = radius

    def set_rank(self, rank: str) -> None:
        """Rank by one of ``retrieval.METRICS``."""
        if rank not in METRICS:
            raise InputError(f"Unknown ranking {rank!r}: choose one of {', '.join(METRICS)}")
        self.rank = rank

    def upload(self, content: bytes, name: str = "the file") -> None:
        """Make an image file the query; InputError if it is no image, or above ``MOST_BYTES``."""
        if len(content) > MOST_BYTES:
            raise InputError(
                f"{name} has {len(content) / 1e6:.1f} MB, more than the {MOST_BYTES // 10**6} MB "
                "that are taken: make it smaller first"
            )
        picture = square(open_image(io.BytesIO(content), name), self.queries.size)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        self.ask(Query(to_input(pixels), name))

    def follow(self, other: "RetrievalState") -> None:
        """Ask what ``other`` asks, of this model and index."""
        self.query, self.angle, self.mirrored = other.query, other.angle, other.mirrored
        self.k, self.radius, self.rank = other.k, other.radius, other.rank
        self.hits_from = other.hits_from

    def view(self) -> RetrievalView:
        """Encode the query, search, and compare with the unturned query."""
        reference, code = self.codes()
        hits = self.hits_of(code, self.k, self.radius, self.rank)
        before = self.hits_of(reference, self.k, self.radius, self.rank)
        kept = {hit.position for hit in hits} & {hit.position for hit in before}
        index, _ = self.searched()
        within = len(index)
        if self.radius is not None:
            within = int(index.within(code[None], self.radius)[0])
        rights = [hit.right for hit in hits]
        precision = None if self.query.label is None else sum(rights) / max(len(rights), 1)
        picture = picture_of(self.pair()[1])
        return RetrievalView(
            self.query, picture, code, reference, hits, precision, within, len(kept), len(before)
        )


def hits_csv(views: dict[str, RetrievalView], angle: float, mirrored: bool) -> str:
    """The hits of models (name -> view) as CSV, one row for each, best first."""
    rows = [
        {
            "model": name,
            "query": view.query.name,
            "query_label": view.query.label,
            "angle": angle,
            "mirrored": mirrored,
            "rank": place,
            "image": hit.name,
            "label": hit.label,
            "hamming": hit.hamming,
            "distance": f"{hit.distance:.6g}",
            "right": hit.right,
            "same_lesion": hit.same_lesion,
        }
        for name, view in views.items()
        for place, hit in enumerate(view.hits, start=1)
    ]
    return pd.DataFrame(rows, columns=CSV_COLUMNS).to_csv(index=False, lineterminator="\n")


# --- heatmaps -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class HeatView:
    """What the heatmap explorer shows of the query and of its hit.

    hits: the ten nearest images of the database for the query as turned; hit: the one at ``place``,
    or the last. pictures: uint8 (S, S, 3); heat, hit_heat: (S, S) in [0, 1]; masks: (S, S) bool or
    None. low, high: what 0 and 1 stand for, where the map is a gate. energy: share of the heat on
    the lesion; area: what a flat map would get; points: whether the hottest point is on the lesion;
    all None without a mask. follows: correlation of the map with the unturned image's map, turned;
    None where the query is not turned, or a map is flat. followed: the same for every angle that
    has been looked at since query, map and hit are these.
    """

    picture: np.ndarray
    heat: np.ndarray
    mask: np.ndarray | None
    hits: list[Hit]
    place: int
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
    followed: dict[float, float] = field(default_factory=dict)


class HeatmapState(QueryState):
    """What the heatmap is of; parameters as :class:`QueryState`.

    ``subjects``: title -> what is explained, ("gate", block), ("match", None), ("class", i) or
    ("bit", i).
    """

    def __init__(self, model, index, dataset, database=None, seed=0):
        super().__init__(model, index, dataset, database, seed)
        self.subjects: dict[str, tuple] = {"match with the hit": ("match", None)}
        self.subjects |= {f"gate {block}": ("gate", block) for block in self._blocks()}
        self.subjects |= {f"class {name}": ("class", i) for i, name in enumerate(self.classes)}
        self.subjects |= {f"bit {i}": ("bit", i) for i in range(self.model.bits)}
        self.subject, self.place, self.opacity = next(iter(self.subjects)), 0, 0.6
        self._kept: dict[tuple, np.ndarray] = {}
        self._followed: tuple[tuple, dict[float, float]] = ((), {})

    def _blocks(self) -> list[str]:
        try:
            return list(gate_maps(self.model, self.query.image[None]))
        except InputError:  # a model without a spatial gate: there is Grad-CAM still
            return []

    def explain(self, subject: str) -> None:
        """Show the map of one of ``subjects``."""
        if subject not in self.subjects:
            raise InputError(f"There is no heatmap {subject!r}: choose one that is listed")
        self.subject = subject

    def ask_database(self, position: int) -> None:
        """Make image ``position`` of the database the query, if that leaves it any hits."""
        if position == 0 and len(self.database) == 1:
            raise InputError(
                "There are no hits for the only image of the database: ask about a query image"
            )
        super().ask_database(position)

    def set_place(self, place: int) -> None:
        """Look at the hit at this place, from 0."""
        if not 0 <= place < min(10, len(self.index) - (self.query.origin == "database")):
            raise InputError(f"There is no hit number {place + 1}: choose one that is listed")
        self.place = int(place)

    def set_opacity(self, opacity: float) -> None:
        """Opacity of the hottest point, 0..1."""
        if not 0 <= opacity <= 1:
            raise InputError(f"Opacity lies between 0 and 1, not {opacity}")
        self.opacity = float(opacity)

    def view(self) -> HeatView:
        """The map of the query and of its hit, and how they score."""
        x = self.pair()[1:]
        _, code = self.codes()
        hits = self.hits_of(code, 10, None, "cosine")
        # A query that is in the database has one hit less than the others.
        place = min(self.place, len(hits) - 1)
        hit = hits[place]
        found, hit_heat = self._map_of_query(hit), self._map_of_hit(hit, code)
        disc = self._disc()
        heat, low, high = np.where(disc, found, 0), None, None
        scores = lesion_scores(heat, mask := self._mask(disc), disc)
        if self._kind == "gate":
            low, high = float(heat[disc].min()), float(heat[disc].max())
            heat = np.where(disc, stretched(heat, low, high), 0)
            hit_heat = stretched(hit_heat, float(hit_heat.min()), float(hit_heat.max()))
        return HeatView(
            picture=picture_of(x[0]),
            heat=heat,
            mask=mask,
            hits=hits,
            place=place,
            hit=hit,
            hit_picture=self.database.picture(hit.position),
            hit_heat=hit_heat,
            hit_mask=self.database.mask(hit.position),
            low=low,
            high=high,
            follows=self._follows(hit, found) if self.is_turned else None,
            followed=dict(self._followed_by(hit)),
            **scores,
        )

    @property
    def _kind(self) -> str:
        """Of the map: "gate", "match", "class" or "bit"."""
        return self.subjects[self.subject][0]

    def _disc(self) -> np.ndarray:
        """Where there is an image at this angle: (S, S) bool."""
        size = self.queries.size
        return disc_mask(size).numpy() if self.angle % 90 else np.ones((size, size), dtype=bool)

    def _map_of_query(self, hit: "Hit", upright: bool = False) -> np.ndarray:
        """The chosen map (S, S) of the query as it is turned, or as it is."""
        x = self.pair()[:1] if upright else self.pair()[1:]
        turned = None if upright else (self.angle, self.mirrored)
        key = ("query", self.query, turned, self.angle % 90 == 0, self._about(hit))
        return self._keep(key, x, self.index.codes[hit.position])

    def _map_of_hit(self, hit: "Hit", code: np.ndarray) -> np.ndarray:
        """The chosen map (S, S) of the hit; of a match, the one with the query's code."""
        x, _ = self.database.batch([hit.position])
        match = code.tobytes() if self._kind == "match" else None
        return self._keep(("hit", self.subject, hit.position, match), x, code)

    def _about(self, hit: "Hit") -> tuple:
        """What the query's map is about: the hit matters to a match alone."""
        return self.subject, hit.position if self._kind == "match" else None

    def _keep(self, key: tuple, x: Tensor, other: np.ndarray) -> np.ndarray:
        """Compute a map, or take it from the last few: a drag changes one of three."""
        kept = self._kept.pop(key, None)
        self._kept[key] = self._maps(x, other)[0] if kept is None else kept
        if len(self._kept) > MAPS_KEPT:
            del self._kept[next(iter(self._kept))]  # the one that has not been asked for longest
        return self._kept[key]

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
        images = self.queries if self.query.origin == "query" else self.database
        mask = images.mask(self.query.position)
        if mask is None:
            return None
        turned = self.turned(torch.from_numpy(mask.astype(np.float32))[None, None])
        return (turned[0, 0].numpy() > 0.5) & disc

    def _follows(self, hit: "Hit", found: np.ndarray) -> float | None:
        """Correlation of the turned image's map with the unturned image's map, turned."""
        upright = torch.from_numpy(self._map_of_query(hit, upright=True)[None, None])
        disc = self._disc()
        expected, found = self.turned(upright)[0, 0].numpy()[disc], found[disc]
        if expected.std() == 0 or found.std() == 0:
            return None
        result = float(np.corrcoef(expected, found)[0, 1])
        self._followed_by(hit)[round(self.angle)] = result
        return result

    def _followed_by(self, hit: "Hit") -> dict[float, float]:
        """Angle -> correlation, of this query, map and hit; others are forgotten."""
        key = (self.query, self.mirrored, *self._about(hit))
        if self._followed[0] != key:
            self._followed = key, {}
        return self._followed[1]

    def follow_round(self, hit: "Hit") -> Iterator[dict[float, float]]:
        """Turn the query once around; yields after each of ``TURNS`` and ends where it began."""
        began = self.angle
        try:
            for angle in TURNS:
                self.turn(angle)
                if self.is_turned and angle not in self._followed_by(hit):
                    self._follows(hit, self._map_of_query(hit))
                    yield dict(self._followed_by(hit))
        finally:
            self.turn(began)


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
            raise InputError(f"gamma is a scale and must be greater than 0, not {gamma}")
        self.gamma = float(gamma)

    def set_kinds(self, kinds: Sequence[str]) -> None:
        """The penalties to show, at least one."""
        if not kinds or set(kinds) - set(PENALTIES):
            raise InputError(f"Choose at least one of the penalties {', '.join(PENALTIES)}")
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
            raise InputError(f"A soft bit lies between 0 and 1, not {value}")
        return float(value)

    def view(self) -> LossView:
        """Curves and orbit points of the chosen penalties."""
        u = np.array([self.odd, self.others, self.others, self.others])
        distance = np.abs(u - u.mean())
        at = {kind: partial(penalty_curve, kind, self.gamma) for kind in self.kinds}
        curves = {kind: (self.grid, *curve(self.grid)) for kind, curve in at.items()}
        points = {kind: curve(distance) for kind, curve in at.items()}
        loss, pull = {}, {}
        for kind in self.kinds:
            codes = torch.tensor(u).view(4, 1, 1).requires_grad_()
            value = OrbitPenalty(kind, self.gamma)(codes)
            (gradient,) = torch.autograd.grad(value, codes)
            loss[kind], pull[kind] = float(value.detach()), float(gradient[0])
        return LossView(distance, curves, points, loss, pull)
