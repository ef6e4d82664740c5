"""The heatmap explorer: where the network looks, and whether the map turns with the lesion."""

from functools import lru_cache

import matplotlib as mpl
import numpy as np
import torch
import traitlets as t
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor

from derm_hash.data.images import from_input, to_input
from derm_hash.errors import InputError
from derm_hash.explorers.asking import Library, Query, as_file, jpeg, network, turned
from derm_hash.explorers.still import Asked, arrival
from derm_hash.heatmaps import BitTarget, ClassTarget, MatchTarget, gate_maps, grad_cam, resize_map
from derm_hash.metrics.overlap import mask_energy, pointing_game
from derm_hash.model import encode
from derm_hash.plots import image_grid
from derm_hash.plots.style import overlay
from derm_hash.rotations import disc_mask, rotate

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
        self._map = lru_cache(KEPT)(self._compute)  # a turn changes one of three
        try:
            gates = gate_maps(self.model, to_input(library.queries.images[:1]))
        except InputError:  # a model without a spatial gate: there is Grad-CAM still
            gates = {}
        self.subjects = {MATCH: MatchTarget, **{f"gate {block}": block for block in gates}}
        self.subjects |= {f"class {name}": ClassTarget(i) for i, name in enumerate(library.classes)}
        self.subjects |= {f"bit {i}": BitTarget(i) for i in range(self.model.bits)}
        content = {"models": [], "query": library.rows["query"], "subjects": [*self.subjects]}
        super().__init__(library, query, about=content, **view)

    def _show(self, query: Query) -> None:
        if query.origin == "database" and len(self.index) == 1:
            raise InputError(
                "There are no hits for the only image of the database: ask about a query image"
            )
        self.query = query
        self.send(*arrival(query))

    def answer_map(self, content: dict, _) -> None:
        """Send the maps of the query, as it is turned, and of its hit."""
        with self.hold_trait_notifications():
            for name in ("subject", "place", "angle", "mirrored"):
                setattr(self, name, content[name])
        view = self.view()
        heats = [heat_picture(view.pop(name)) for name in ("heat", "hit_heat")]
        outlines = [outline(view.pop(name)) for name in ("mask", "hit_mask")]
        picture = self.library.shown["database"].picture(view["hits"][view["place"]]["position"])
        self.send(view | {"kind": "map", "asked": content}, [*heats, *outlines, jpeg(picture)])

    def view(self) -> dict:
        """What the page shows of the query and of its hit.

        heat, hit_heat: (S, S) in [0, 1]; mask, hit_mask: (S, S) bool or None. hits: the ten nearest
        images for the query as it is turned; place: the one that is looked at. low, high: what 0
        and 1 stand for, where the map is a gate. energy: share of the heat on the lesion; area:
        what a flat map would get; points: whether the hottest point is on the lesion; all None
        without a mask. follows: correlation of the map with the unturned image's map, turned; None
        where the query is not turned, or a map is flat.
        """
        own, turn = (self.query.origin, self.query.position), (self.angle, self.mirrored)
        code = encode(self.model, self._input(*own, *turn))[0]
        hits = self._described(code)
        place = min(self.place, len(hits) - 1)  # a query of the database has one hit less
        hit, disc, theirs, ours = ("database", hits[place]["position"]), self._disc(), b"", b""
        if self.subject == MATCH:
            theirs, ours = self.index.codes[hit[1]].tobytes(), code.tobytes()
        heat = self._map(self.subject, theirs, *own, *turn, False)
        hit_heat = self._map(self.subject, ours, *hit, 0, False, False)
        follows = None
        if self.angle or self.mirrored:
            upright = self._map(self.subject, theirs, *own, 0, False, self.angle % 90 != 0)
            follows = correlation(self._turned(upright)[disc], heat[disc])
        mask, hit_mask = (self.library.parts[part].mask(i) for part, i in (own, hit))
        mask = None if mask is None else (self._turned(mask) > 0.5) & disc
        heat = np.where(disc, heat, 0)
        result = {"hits": hits, "place": place, "follows": follows, "low": None, "high": None}
        result |= {"mask": mask, "hit_mask": hit_mask} | lesion_scores(heat, mask, disc)
        if isinstance(self.subjects[self.subject], str):  # a gate
            low, high = float(heat[disc].min()), float(heat[disc].max())
            heat = np.where(disc, stretched(heat, low, high), 0)
            hit_heat = stretched(hit_heat, hit_heat.min(), hit_heat.max())
            result |= {"low": low, "high": high}
        return result | {"heat": heat, "hit_heat": hit_heat}

    def _input(self, origin, position, angle, mirrored, cut=False) -> Tensor:
        """An image as it is turned, or unturned and cut to the disc: (1, 3, S, S)."""
        x = to_input(self.library.parts[origin].images[position])[None]
        return rotate(x, 0) if cut else turned(x, angle, mirrored)

    def _compute(self, subject: str, other: bytes, *image) -> np.ndarray:
        """The map (S, S) of an image as in `_input`; other: the code of a match, float32."""
        x, target = self._input(*image), self.subjects[subject]
        if isinstance(target, str):
            return resize_map(gate_maps(self.model, x)[target][0], x.shape[-1])
        if target is MatchTarget:
            target = MatchTarget(np.frombuffer(bytearray(other), np.float32))
        return grad_cam(self.model, x, target)[0]

    def _turned(self, values: np.ndarray) -> np.ndarray:
        """A map (S, S), turned with the query."""
        x = torch.from_numpy(values.astype(np.float32))[None, None]
        return turned(x, self.angle, self.mirrored)[0, 0].numpy()

    def _disc(self) -> np.ndarray:
        """Where there is an image at this angle: (S, S) bool."""
        disc = disc_mask(self.library.queries.size).numpy()
        return disc if self.angle % 90 else np.ones_like(disc)

    def _described(self, code: np.ndarray) -> list[dict]:
        """The hits of a code (bits,), and what the page is told of each."""
        rows, label = self.library.rows["database"], self.query.label
        return [
            {"position": i, "right": rows[i]["label"] == label} | rows[i]
            for i, *_ in self._hits(self.index, code, HITS)
        ]

    def figures(self) -> list[Figure]:
        view, own = self.view(), (self.query.origin, self.query.position)
        hit = view["hits"][view["place"]]
        query = from_input(self._input(*own, self.angle, self.mirrored)[0]).movedim(0, -1).numpy()
        found = self.library.database.picture(hit["position"])
        shown = [query, overlay(query, view["heat"]), found, overlay(found, view["hit_heat"])]
        titles = [f"query: {self.query.label}", f"query\n{self.subject}"]
        titles += [f"hit {view['place'] + 1}: {hit['label']}", f"hit\n{self.subject}"]
        return [image_grid(shown, titles, columns=4)]


def heat_picture(heat: np.ndarray) -> bytes:
    """A map (S, S) in [0, 1] as PNG, as opaque as it is hot, to be laid over a picture."""
    return as_file(Image.fromarray(mpl.colormaps["inferno"](heat, heat, bytes=True)), "PNG")


def outline(mask: np.ndarray | None) -> bytes:
    """The edge of a mask (S, S) as PNG, white and around it black, to be laid over a picture."""
    if mask is None:
        return b""
    lesion = Image.fromarray(mask).convert("L").resize((256, 256), Image.Resampling.NEAREST)
    blurred = [lesion.filter(ImageFilter.BoxBlur(pixels)) for pixels in (2, 3)]
    wider = [each.point(lambda value: 255 * (value > 0)) for each in blurred]
    white, black = (ImageChops.difference(each, lesion) for each in wider)
    return as_file(Image.merge("LA", (white, black)), "PNG")


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
