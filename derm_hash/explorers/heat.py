"""The heatmap explorer: where the network looks, and whether the map turns with the lesion."""

from functools import lru_cache

import numpy as np
import torch
import traitlets as t
from matplotlib.figure import Figure
from torch import Tensor

from derm_hash.data.images import to_input
from derm_hash.errors import InputError
from derm_hash.explorers.asking import Asked, Library, Query, network, turned
from derm_hash.heatmaps import BitTarget, ClassTarget, MatchTarget, gate_maps, grad_cam, resize_map
from derm_hash.metrics.overlap import mask_energy, pointing_game
from derm_hash.model import encode
from derm_hash.plots import image_grid
from derm_hash.plots.style import as_picture, heat_layer, jpeg, outline_layer, overlay
from derm_hash.rotations import rotate

HITS, KEPT = 10, 8  # hits to choose from, and maps that are remembered
MATCH = "match with the hit"


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
    subject = t.Unicode(MATCH).tag(sync=True)
    place = t.Int(0, min=0, max=HITS - 1).tag(sync=True)

    def __init__(self, model, index, dataset, database=None, larger=None, query=None, **view):
        library, self.index = Library(dataset, database, larger), index
        self.model = network(model, index, library)
        self._map = lru_cache(KEPT)(self._compute)  # a turn changes one map of three
        try:
            gates = gate_maps(self.model, to_input(library.queries.images[:1]))
        except InputError:  # a model without a spatial gate: there is Grad-CAM still
            gates = {}
        self.subjects = {MATCH: MatchTarget, **{f"gate {block}": block for block in gates}}
        self.subjects |= {f"class {name}": ClassTarget(i) for i, name in enumerate(dataset.classes)}
        self.subjects |= {f"bit {i}": BitTarget(i) for i in range(self.model.bits)}
        about = {"models": [], "query": library.rows["query"], "subjects": [*self.subjects]}
        super().__init__(library, query, about=about, **view)

    def _show(self, query: Query) -> None:
        if query.origin == "database" and len(self.index) == 1:
            raise InputError(
                "There are no hits for the only image of the database: ask about a query image"
            )
        super()._show(query)

    def answer_map(self, content: dict, _) -> None:
        """Send the maps of the query, as it is turned, and of its hit."""
        with self.hold_trait_notifications():
            for name in ("subject", "place", "angle", "mirrored"):
                setattr(self, name, content[name])
        view = self.view()
        heats = [heat_layer(view.pop(name)) for name in ("heat", "hit_heat")]
        masks = [view.pop(name) for name in ("mask", "hit_mask")]
        outlines = [b"" if mask is None else outline_layer(mask) for mask in masks]
        picture = self.library.shown["database"].picture(view["hits"][view["place"]]["position"])
        self.send(view | {"kind": "map", "asked": content}, [*heats, *outlines, jpeg(picture)])

    def view(self) -> dict:
        """What the page shows of the query and of its hit.

        heat, hit_heat: (S, S) in [0, 1]; mask, hit_mask: (S, S) bool or None. hits: the ten nearest
        images for the query as it is turned; place: the one that is looked at. low, high: the
        values of a gate that 0 and 1 stand for, else None. energy: share of the heat on the lesion;
        area: what a flat map would get; points: whether the hottest point is on the lesion; all
        None without a mask. follows: correlation of the map with the unturned image's map, turned;
        None where the query is not turned, or a map is flat.
        """
        own, turn = (self.query.origin, self.query.position), (self.angle, self.mirrored)
        code = encode(self.model, self._input(*own, *turn))[0]
        ids, *_ = self._hits(self.index, code, HITS)
        rows, label = self.library.rows["database"], self.query.label
        hits = [rows[i] | {"position": i, "right": rows[i]["label"] == label} for i in ids.tolist()]
        place = min(self.place, len(hits) - 1)  # a query of the database has one hit less
        hit = ("database", hits[place]["position"])
        theirs = ours = ()
        if self.subject == MATCH:
            theirs, ours = tuple(self.index.codes[hit[1]].tolist()), tuple(code.tolist())
        heat = self._map(self.subject, theirs, *own, *turn)
        hit_heat = self._map(self.subject, ours, *hit)
        disc = self._turned(np.ones_like(heat)) > 0  # where there is an image at this angle
        follows = low = high = None
        if self.angle or self.mirrored:
            upright = self._map(self.subject, theirs, *own, cut=self.angle % 90 != 0)
            follows = correlation(self._turned(upright)[disc], heat[disc])
        mask, hit_mask = (self.library.parts[part].mask(i) for part, i in (own, hit))
        mask = None if mask is None else self._turned(mask) > 0.5
        heat = np.where(disc, heat, 0)
        scores = lesion_scores(heat, mask, disc)
        if isinstance(self.subjects[self.subject], str):  # a gate
            low, high = float(heat[disc].min()), float(heat[disc].max())
            heat, hit_heat = stretched(heat, disc), stretched(hit_heat, np.ones_like(disc))
        maps = {"heat": heat, "hit_heat": hit_heat, "mask": mask, "hit_mask": hit_mask}
        told = {"hits": hits, "place": place, "follows": follows, "low": low, "high": high}
        return maps | told | scores

    def _input(self, origin, position, angle=0, mirrored=False, cut=False) -> Tensor:
        """An image as it is turned, or unturned and cut to the disc: (1, 3, S, S)."""
        x = to_input(self.library.parts[origin].images[position])[None]
        return rotate(x, 0) if cut else turned(x, angle, mirrored)

    def _compute(self, subject: str, other: tuple, *image, **cut) -> np.ndarray:
        """The map (S, S) of an image as in `_input`; other: the code (bits,) that it matches."""
        x, target = self._input(*image, **cut), self.subjects[subject]
        if isinstance(target, str):
            return resize_map(gate_maps(self.model, x)[target][0], x.shape[-1])
        if target is MatchTarget:
            target = MatchTarget(torch.tensor(other))
        return grad_cam(self.model, x, target)[0]

    def _turned(self, values: np.ndarray) -> np.ndarray:
        """A map (S, S), turned with the query; 0 where there is no image at this angle."""
        x = torch.from_numpy(values.astype(np.float32))[None, None]
        return turned(x, self.angle, self.mirrored)[0, 0].numpy()

    def figures(self) -> list[Figure]:
        view, own = self.view(), (self.query.origin, self.query.position)
        hit = view["hits"][view["place"]]
        query = as_picture(self._input(*own, self.angle, self.mirrored)[0])
        found = self.library.database.picture(hit["position"])
        shown = [query, overlay(query, view["heat"]), found, overlay(found, view["hit_heat"])]
        titles = [f"query: {self.query.label}", f"query\n{self.subject}"]
        titles += [f"hit {view['place'] + 1}: {hit['label']}", f"hit\n{self.subject}"]
        return [image_grid(shown, titles, columns=4)]


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's correlation of two maps; None where one is flat."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else None


def stretched(heat: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A map (S, S), from its lowest to its highest value in a mask as 0..1; 0 around it."""
    low, high = heat[where].min(), heat[where].max()
    return np.where(where, (heat - low) / max(high - low, 1e-9), 0)


def lesion_scores(heat: np.ndarray, mask: np.ndarray | None, disc: np.ndarray) -> dict:
    """How much of a map lies on the lesion, and what a flat map would get."""
    if mask is None:
        return {"energy": None, "area": None, "points": None}
    scores = {"energy": mask_energy(heat, mask), "points": pointing_game(heat, mask)}
    return scores | {"area": float(mask[disc].mean())}
