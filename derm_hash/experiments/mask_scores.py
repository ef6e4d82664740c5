"""Do a model's heatmaps point at the lesions? Scores against the masks of a data set."""

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import to_input
from derm_hash.errors import InputError
from derm_hash.heatmaps import BitTarget, MatchTarget, gate_maps, grad_cam, resize_map
from derm_hash.metrics.intervals import bootstrap_interval
from derm_hash.metrics.overlap import iou_at_mask_area, mask_energy, pointing_game
from derm_hash.model import DermHash, encode
from derm_hash.retrieval import HashIndex

TARGETS = ("class", "match", "bit", "gate")
SCORES = {"mask_energy": mask_energy, "pointing_game": pointing_game, "iou": iou_at_mask_area}
FLAT, BLOB = "flat map", "centred blob"
HITS = 50  # hits of a search; the first one that shows another lesion is explained


def score_heatmaps(
    model: DermHash,
    data: LesionDataset,
    target: str = "class",
    n: int | None = None,
    index: HashIndex | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Score a map of each image against its lesion mask, beside two maps that ignore the image.

    ``target`` is what Grad-CAM explains: the predicted "class", the "match" with the nearest hit of
    another lesion in ``index``, or all bits ("bit"); or the map is the "gate" of every block. ``n``
    is the number of images with a mask to score, chosen with seed 0. An empty map scores 0. "flat
    map" has equal values, with ties broken at random; "centred blob" is a Gaussian in the middle.
    Returns a row for each image and map, with the scores of :mod:`derm_hash.metrics.overlap`.
    InputError if no image has a mask, ``n`` is less than 1, or the model has no gate.
    """
    if n is not None and n < 1:
        raise InputError(f"n is the number of images to score: 1 or more, not {n}")
    chosen = np.flatnonzero(data.table["mask"] != "")
    if n is not None:
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:n])
    codes = {}
    if target == "match":
        codes = dict(zip(chosen, hit_codes(model, data.select(chosen), index), strict=True))
    blob, rows = centred_blob(data.size), []
    for i in tqdm(chosen, "heatmaps", disable=not progress):
        mask = data.mask(i)
        if mask is None or not mask.any():
            continue
        maps = explain(model, to_input(data.images[i : i + 1]), target, codes.get(i))
        maps[BLOB] = blob
        scores = {name: scores_of(heatmap, mask) for name, heatmap in maps.items()}
        scores[FLAT] = scores_of_flat(mask)
        who = data.table.iloc[i][["image", "lesion_id"]].to_dict()
        rows += [who | {"map": name} | each for name, each in scores.items()]
    if not rows:
        raise InputError("No image has a lesion mask to score heatmaps against: add masks first")
    return pd.DataFrame(rows)


def hit_codes(model: DermHash, data: LesionDataset, index: HashIndex) -> list[np.ndarray]:
    """The soft code (bits,) of each image's nearest hit that shows another lesion."""
    ids = index.search(encode(model, data), k=min(HITS, len(index)), radius=None).ids
    items, codes = index.items, []
    for image, lesion, hits in zip(data.table["image"], data.table["lesion_id"], ids, strict=True):
        same = items["image"].to_numpy()[hits] == image
        if lesion:
            same |= items["lesion_id"].to_numpy()[hits] == lesion
        codes.append(index.codes[hits[same.argmin()]])
    return codes


def explain(model: DermHash, x: Tensor, target: str, code=None) -> dict[str, np.ndarray]:
    """Named maps (S, S) of one image (1, 3, S, S) in [-1, 1]; ``code`` is that of the hit."""
    x = x.to(next(model.parameters()).device)
    if target == "gate":
        gates = gate_maps(model, x)
        return {f"gate {block}": resize_map(gate[0], x.shape[-1]) for block, gate in gates.items()}
    explained = {
        "class": lambda output: output.logits.max(),
        "match": MatchTarget(code),
        "bit": lambda output: sum(BitTarget(bit)(output) for bit in range(model.bits)),
    }
    return {f"Grad-CAM, {target}": grad_cam(model, x, explained[target])[0]}


def centred_blob(size: int) -> np.ndarray:
    """A Gaussian (size, size) in the middle; its standard deviation is a fifth of the side."""
    axis = np.linspace(-1, 1, size)
    return np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * 0.4**2))


def scores_of(heatmap: np.ndarray, mask: np.ndarray) -> dict[str, float | bool]:
    """The scores of a map (S, S) >= 0; all are 0 if it is empty."""
    empty = not heatmap.any()
    scores = {name: 0.0 if empty else float(of(heatmap, mask)) for name, of in SCORES.items()}
    return scores | {"empty": empty}


def scores_of_flat(mask: np.ndarray) -> dict[str, float | bool]:
    """What a flat map gets for a mask (S, S), if ties are broken at random."""
    share = float(mask.mean())
    scores = {"mask_energy": share, "pointing_game": share, "iou": share / (2 - share)}
    return scores | {"empty": False}


def mask_score_table(table: pd.DataFrame) -> pd.DataFrame:
    """Means of :func:`score_heatmaps`, with 95 % intervals that are resampled by lesion.

    A row for each map and score, and for the difference to the centred blob on the same images.
    """
    rows = {name: rows.reset_index(drop=True) for name, rows in table.groupby("map", sort=False)}
    lesions = rows[BLOB]["lesion_id"]
    summary = []
    for name, each in rows.items():
        for score in SCORES:
            values, empty = each[score].to_numpy(), int(each["empty"].sum())
            compared = {name: values}
            if name not in (FLAT, BLOB):
                compared[f"{name} minus {BLOB}"] = values - rows[BLOB][score].to_numpy()
            for label, v in compared.items():
                interval = bootstrap_interval(v, lesions)._asdict()
                summary.append({"map": label, "score": score, **interval, "empty_maps": empty})
    return pd.DataFrame(summary)


def summary_in_words(summary: pd.DataFrame) -> pd.DataFrame:
    """Make :func:`mask_score_table` printable: a row for each map, with "mean [low, high]"."""
    cells = summary.assign(
        text=[f"{row.mean:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in summary.itertuples()]
    )
    table = cells.pivot(index="map", columns="score", values="text")
    table = table.loc[cells["map"].unique(), cells["score"].unique()]
    table.insert(0, "empty maps", cells.groupby("map")["empty_maps"].first())
    return table.rename_axis(None, axis=0).rename_axis(None, axis=1)
