"""The heatmap explorer: where the network looks, and whether the map turns with the lesion."""

import numpy as np
import torch
import traitlets as t
from matplotlib.figure import Figure
from torch import Tensor

from derm_hash.data.images import from_input, to_input
from derm_hash.errors import InputError
from derm_hash.explorers.asking import Library, Query, jpeg, network, turned
from derm_hash.explorers.still import Asked, told
from derm_hash.heatmaps import BitTarget, ClassTarget, MatchTarget, gate_maps, grad_cam, resize_map
from derm_hash.metrics.overlap import mask_energy, pointing_game
from derm_hash.model import encode
from derm_hash.plots import image_grid
from derm_hash.plots.style import class_color, overlay
from derm_hash.rotations import disc_mask, rotate

HITS, KEPT = 10, 8  # hits to choose from, and maps that are remembered
SHARED = ("subject", "place", "angle", "mirrored")


class HeatmapExplorer(Asked):
    """See where the network looks: gates and Grad-CAM of a query and of its hit.

    Parameters
    ----------
    model, index, dataset, database, larger, query : as of :class:`RetrievalExplorer`
    **view
        Any of the attributes below but ``query`` and ``subjects``.

    Attributes
    ----------
    query : Query that is asked about
    subjects : dict of title -> what is explained: the match with the hit, the gate of a block, the
        evidence for a class or for the value of a bit
    subject, place, angle, mirrored
        What is set on the page: one of the titles, the hit from 0, degrees, and bool.
    """

    kind = t.Unicode("heat").tag(sync=True)
    about = t.Dict().tag(sync=True)
    codes = t.List(t.Bytes()).tag(sync=True)
    subject = t.Unicode().tag(sync=True)
    place = t.Int(0, min=0, max=HITS - 1).tag(sync=True)
    angle = t.Float(0).tag(sync=True)
    mirrored = t.Bool(False).tag(sync=True)

    def __init__(self, model, index, dataset, database=None, larger=None, query=None, **view):
        self.library, self.index = Library(dataset, database, larger), index
        self.model = network(model, index, self.library)
        self.query = self.library.find(query) if query else self.library.get("query", 0)
        self._rows, self._kept = self.library.rows("database"), {}
        classes = self.library.classes
        self.subjects: dict[str, tuple] = {"match with the hit": ("match", None)}
        self.subjects |= {f"gate {block}": ("gate", block) for block in self._blocks()}
        self.subjects |= {f"class {name}": ("class", i) for i, name in enumerate(classes)}
        self.subjects |= {f"bit {i}": ("bit", i) for i in range(self.model.bits)}
        content = {
            "classes": [{"name": c, "color": class_color(c)} for c in classes],
            "models": [],
            "query": self.library.rows("query"),
            "subjects": list(self.subjects),
        }
        view.setdefault("subject", next(iter(self.subjects)))
        super().__init__(about=content, **view)

    def answers(self) -> dict:
        return super().answers() | {"map": self._map}

    def _blocks(self) -> list[str]:
        try:
            return list(gate_maps(self.model, to_input(self.query.image)[None]))
        except InputError:  # a model without a spatial gate: there is Grad-CAM still
            return []

    def _show(self, query: Query) -> None:
        if query.origin == "database" and len(self.index) == 1:
            raise InputError(
                "There are no hits for the only image of the database: ask about a query image"
            )
        self.query = query
        message = {"kind": "query", "about": told(self.library, query), "known": [], "rest": []}
        seen = query.image.permute(1, 2, 0).numpy()
        self.send(message, [jpeg(query.shown), jpeg(seen)])

    def _map(self, content: dict, _) -> None:
        """Send the maps of the query, as it is turned, and of its hit."""
        with self.hold_trait_notifications():
            for name in SHARED:
                setattr(self, name, content[name])
        view = self.view()
        hit, origin = view["hits"][view["place"]], "database"
        arrays = [view.pop(name) for name in ("heat", "hit_heat", "mask", "hit_mask")]
        levels = [b"" if a is None else (a * 255).astype(np.uint8).tobytes() for a in arrays]
        picture = jpeg(self.library.picture(origin, hit["position"]))
        view |= {"kind": "map", "size": self.library.queries.size, "asked": content}
        self.send(view, [*levels, picture])

    def view(self) -> dict:
        """What the page shows of the query and of its hit.

        heat, hit_heat: (S, S) in [0, 1]; mask, hit_mask: (S, S) bool or None. hits: the ten nearest
        images for the query as it is turned; place: the one that is looked at. low, high: what 0
        and 1 stand for, where the map is a gate. energy: share of the heat on the lesion; area:
        what a flat map would get; points: whether the hottest point is on the lesion; all None
        without a mask. follows: correlation of the map with the unturned image's map, turned; None
        where the query is not turned, or a map is flat.
        """
        x, upright = self._views()
        code = encode(self.model, x)[0]
        hits = self._hits(code)
        place = min(self.place, len(hits) - 1)  # a query of the database has one hit less
        position, kind = hits[place]["position"], self.subjects[self.subject][0]
        disc = self._disc()
        about = (id(self.query), self.subject, position if kind == "match" else None)
        other = self.index.codes[position]
        heat = self._keep((*about, self.angle, self.mirrored), x, other)
        hit_image = to_input(self.library.database.images[position])[None]
        match = code.tobytes() if kind == "match" else None
        hit_heat = self._keep(("hit", self.subject, position, match), hit_image, code)
        follows = None
        if self.angle or self.mirrored:
            before = self._keep((*about, "upright", self.angle % 90 == 0), upright, other)
            follows = correlation(self._turned(before)[disc], heat[disc])
        heat, mask = np.where(disc, heat, 0), self._mask(disc)
        low = high = None
        result = lesion_scores(heat, mask, disc)
        if kind == "gate":
            low, high = float(heat[disc].min()), float(heat[disc].max())
            heat = np.where(disc, stretched(heat, low, high), 0)
            hit_heat = stretched(hit_heat, float(hit_heat.min()), float(hit_heat.max()))
        result |= {"heat": heat, "hit_heat": hit_heat, "mask": mask, "follows": follows}
        result |= {"hit_mask": self.library.database.mask(position), "low": low, "high": high}
        return result | {"hits": hits, "place": place}

    def _views(self) -> tuple[Tensor, Tensor]:
        """The query as it is turned, and unturned, cut to the disc alike: (1, 3, S, S) each."""
        x = to_input(self.query.image)[None]
        return turned(x, self.angle, self.mirrored), rotate(x, 0) if self.angle % 90 else x

    def _turned(self, values: np.ndarray) -> np.ndarray:
        """A map (S, S), turned with the query."""
        x = torch.from_numpy(values.astype(np.float32))[None, None]
        return turned(x, self.angle, self.mirrored)[0, 0].numpy()

    def _disc(self) -> np.ndarray:
        """Where there is an image at this angle: (S, S) bool."""
        size = self.library.queries.size
        return disc_mask(size).numpy() if self.angle % 90 else np.ones((size, size), dtype=bool)

    def _hits(self, code: np.ndarray) -> list[dict]:
        itself = self.query.position if self.query.origin == "database" else -1
        found, label = self.index.search(code[None], HITS + 1, None), self.query.label
        rows = [
            (i, h) for i, h in zip(found.ids[0].tolist(), found.hamming[0].tolist(), strict=True)
        ]
        hits = [
            {"position": i, "hamming": h, **self._rows[i]} for i, h in rows if i not in (-1, itself)
        ]
        return [hit | {"right": hit["label"] == label} for hit in hits[:HITS]]

    def _keep(self, key: tuple, x: Tensor, other: np.ndarray) -> np.ndarray:
        """The chosen map (S, S) of an image; kept, since a turn changes one of three."""
        kept = self._kept.pop(key, None)
        self._kept[key] = self._compute(x, other) if kept is None else kept
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]  # the one that has not been asked for longest
        return self._kept[key]

    def _compute(self, x: Tensor, other: np.ndarray) -> np.ndarray:
        """The chosen map (S, S) of an image (1, 3, S, S); other: the code of a match."""
        kind, which = self.subjects[self.subject]
        if kind == "gate":
            return resize_map(gate_maps(self.model, x)[which][0], x.shape[-1])
        targets = {"class": ClassTarget, "bit": BitTarget}
        return grad_cam(
            self.model, x, MatchTarget(other) if kind == "match" else targets[kind](which)
        )[0]

    def _mask(self, disc: np.ndarray) -> np.ndarray | None:
        """The query's lesion mask, turned with it."""
        mask = self.library.parts[self.query.origin].mask(self.query.position)
        return None if mask is None else (self._turned(mask) > 0.5) & disc

    def figures(self) -> list[Figure]:
        view, (x, _) = self.view(), self._views()
        hit = view["hits"][view["place"]]
        pictures = [from_input(x[0]).permute(1, 2, 0).numpy()]
        pictures.append(self.library.database.picture(hit["position"]))
        shown = [pictures[0], overlay(pictures[0], view["heat"])]
        shown += [pictures[1], overlay(pictures[1], view["hit_heat"])]
        name = f"hit {view['place'] + 1}: {hit['label']}"
        titles = [
            f"query: {self.query.label}",
            f"query\n{self.subject}",
            name,
            f"hit\n{self.subject}",
        ]
        return [image_grid(shown, titles, columns=4)]


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's correlation of two maps; None where one is flat."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else None


def stretched(heat: np.ndarray, low: float, high: float) -> np.ndarray:
    """A map from low to high as 0..1."""
    return np.clip((heat - low) / max(high - low, 1e-9), 0, 1)


def lesion_scores(heat: np.ndarray, mask: np.ndarray | None, disc: np.ndarray) -> dict:
    """How much of a map lies on the lesion, and what a flat map would get."""
    if mask is None:
        return {"energy": None, "area": None, "points": None}
    scores = {"energy": mask_energy(heat, mask), "points": pointing_game(heat, mask)}
    return scores | {"area": float(mask[disc].mean())}
