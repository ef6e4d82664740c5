"""Drawing one photograph, one criterion, or a whole atlas."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm.auto import tqdm

from derm_hash.atlas import rare  # noqa: F401 (registers its criteria)
from derm_hash.atlas.criteria import CRITERIA, DRAW, draw_criteria, lesion_criteria
from derm_hash.atlas.lesion import CLASSES, EXTENT, check_arguments
from derm_hash.atlas.photograph import place_on_skin, placement, shrink, skin_tone, spoil, to_bytes
from derm_hash.errors import InputError

WORK = 96  # pixels; smaller pictures are drawn at this size and shrunk


@dataclass(frozen=True)
class Atlas:
    """Drawn images and their truth."""

    images: np.ndarray  # (N, S, S, 3) uint8 RGB
    masks: np.ndarray  # (N, S, S) bool, True on the lesion
    labels: np.ndarray  # (N,) str
    lesion_ids: np.ndarray  # (N,) str
    seed: int
    difficulty: float = 0.0


def draw_lesion(label, lesion_seed, view_seed=0, size=96, difficulty=0.0):
    """Draw one photograph of one lesion; `InputError` for arguments of another kind.

    Parameters
    ----------
    label : str in `ALL_CLASSES`
    lesion_seed : int >= 0
        Fixes the lesion and the skin around it.
    view_seed : int >= 0
        Fixes the photograph: lesions with the same view seed share position, light and blur.
    size : int >= 32, in pixels
    difficulty : float from 0 to 1
        How much the classes overlap. Each criterion of the lesion, except one, is replaced with
        this probability by one of a similar class (`LOOKALIKES`), and the photograph gets worse.
        At 0, lesions show only criteria of their own class.

    Returns
    -------
    image : (size, size, 3) uint8 RGB
    mask : (size, size) bool, True on the lesion, in one piece
    """
    check_arguments(label, lesion_seed, view_seed, size=size, difficulty=difficulty)
    return _photographs(label, lesion_seed, view_seed, [size], difficulty)[0]


def _photographs(label, lesion_seed, view_seed, sizes, difficulty):
    """The image and mask of `draw_lesion` at each size; several sizes are at most `WORK` each."""
    skin_rng = np.random.default_rng([lesion_seed, 3])
    view_rng = np.random.default_rng([view_seed, 4])
    work = max(WORK, *sizes)
    matrix = placement(view_rng, work)
    frame = int(2.2 * EXTENT * np.hypot(matrix[0, 0], matrix[1, 0]))
    names = lesion_criteria(label, lesion_seed, difficulty)
    lesion = draw_criteria(label, names, lesion_seed, frame, skin_tone(skin_rng))
    image, inside = place_on_skin(lesion, skin_rng, matrix, work)
    image = spoil(view_rng, image, difficulty)
    return [_print(image, inside, size, deepcopy(view_rng)) for size in sizes]


def _print(image, inside, size, rng):
    """The photograph at its final size, with grain, and the mask."""
    image, grain = shrink(image, size), rng.uniform(0.002, 0.015)
    image = image + grain * rng.standard_normal((size, size, 1), np.float32)
    mask = (shrink(inside, size) > 0.5).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask)
    return to_bytes(image), parts == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])  # the largest part


def draw_criterion(name, size=160, seed=0):
    """Draw a lesion that shows one criterion, upright, sharp and in plain light.

    Parameters
    ----------
    name : str in `CRITERIA`, else `InputError`
    size, seed : int, as in `draw_lesion`

    Returns
    -------
    (size, size, 3) uint8 RGB
    """
    if name not in CRITERIA:
        raise InputError(f"There is no criterion {name!r}: use one of {', '.join(CRITERIA)}")
    label = CRITERIA[name].split(":")[0]
    check_arguments(label, seed, size=size)
    base = next(iter(DRAW[label]))
    work, skin = max(size, WORK), np.array([0.88, 0.72, 0.71], np.float32)
    lesion = draw_criteria(label, dict.fromkeys([base, name]), seed, work, skin)
    middle = (work - 1) / 2
    matrix = np.array([[0.33 * work, 0, middle], [0, 0.33 * work, middle], [0, 0, 1]])
    image, _ = place_on_skin(lesion, np.random.default_rng([seed, 3]), matrix, work)
    image = cv2.GaussianBlur(cv2.merge(list(image)), (0, 0), 0.4 * work / 96)
    return to_bytes(shrink(image, size))


def make_atlas(images=800, size=96, seed=0, balance=None, progress=True, difficulty=0.0):
    """Draw an atlas in which each lesion is photographed one to three times.

    Parameters
    ----------
    images : int >= 1, else `InputError`
    size, seed : int, as in `draw_lesion`
    balance : dict, optional
        Share of the images per class, such as {"MEL": 1, "NV": 3}, of `ALL_CLASSES`; by default
        the four `CLASSES` equally.
    progress : bool
    difficulty : float, as in `draw_lesion`
        The lesions, their classes and the order do not depend on it.

    Returns
    -------
    Atlas
        In random order. A lesion's id is its class and the lesion seed of `draw_lesion`.
    """
    return make_atlases(images, [size], seed, balance, progress, difficulty)[0]


def make_atlases(images, sizes, seed=0, balance=None, progress=True, difficulty=0.0):
    """Draw one atlas at several sizes of at most `WORK` pixels, but each lesion only once.

    Returns a list with the atlas that `make_atlas` would draw at each of the sizes.
    """
    balance = dict.fromkeys(CLASSES, 1) if balance is None else dict(balance)
    if not isinstance(images, int | np.integer) or images < 1:
        raise InputError(f"images must be a whole number, 1 or more, not {images!r}")
    if not balance or min(balance.values()) < 0 or sum(balance.values()) <= 0:
        raise InputError(f"The shares of balance must be 0 or more, one above 0, not {balance}")
    for label in balance:
        for size in sizes:
            check_arguments(label, seed, size=size, difficulty=difficulty)
    plan = _plan(_counts(images, balance), np.random.default_rng([seed, 5]))
    pictures = [np.empty((images, size, size, 3), np.uint8) for size in sizes]
    masks = [np.empty((images, size, size), bool) for size in sizes]
    for k, job in enumerate(tqdm(plan, "Drawing", disable=not progress, unit="image")):
        for i, photograph in enumerate(_photographs(*job, sizes, difficulty)):
            pictures[i][k], masks[i][k] = photograph
    labels = np.array([job[0] for job in plan])
    ids = np.array([f"{job[0]}-{job[1]}" for job in plan])
    pairs = zip(pictures, masks, strict=True)
    return [Atlas(*pair, labels, ids, seed, difficulty) for pair in pairs]


def _counts(images, balance):
    """Images per class, rounded by the largest remainders so that they add up."""
    exact = images * np.array(list(balance.values())) / sum(balance.values())
    counts = exact.astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: images - counts.sum()]] += 1
    return dict(zip(balance, counts.tolist(), strict=True))


def _plan(counts, rng):
    """(label, lesion seed, view seed) of every image, one to three images a lesion, shuffled."""
    plan = []
    for label, count in counts.items():
        while count > 0:
            views, lesion = min(count, int(rng.integers(1, 4))), int(rng.integers(2**31))
            plan += [(label, lesion, int(rng.integers(2**31))) for _ in range(views)]
            count -= views
    return [plan[k] for k in rng.permutation(len(plan))]
