"""Drawing one photograph, one criterion, or a whole atlas."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from tqdm.auto import tqdm

from derm_hash.atlas.criteria import _DRAW, CRITERIA, _draw, lesion_criteria
from derm_hash.atlas.lesion import CLASSES, EXTENT, check_arguments
from derm_hash.atlas.photograph import (
    _largest_part,
    _photograph,
    _placement,
    _shrink,
    _skin_tone,
    _spoil,
    _to_bytes,
)
from derm_hash.errors import InputError


@dataclass(frozen=True)
class Atlas:
    """Drawn images with their truth: `images` (N, S, S, 3) uint8 RGB, `masks` (N, S, S) bool,
    `labels` (N,) str, `lesion_ids` (N,) str (images with the same id show the same lesion)."""

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    lesion_ids: np.ndarray
    seed: int


def draw_lesion(label, lesion_seed, view_seed=0, size=96):
    """Draw one photograph of one lesion.

    Args:
        label: one of `CLASSES`.
        lesion_seed: the lesion and the skin around it, a whole number from 0.
        view_seed: the photograph of it, a whole number from 0. The same view seed with another
            lesion gives another lesion in the same position, light and blur.
        size: width and height in pixels, from 32.

    Returns:
        image (size, size, 3) uint8 RGB; mask (size, size) bool, True on the lesion, in one piece.

    Raises:
        InputError: unknown label, negative seed, size below 32.
    """
    check_arguments(label, lesion_seed, view_seed, size=size)
    skin_rng = np.random.default_rng([lesion_seed, 3])
    view_rng = np.random.default_rng([view_seed, 4])
    work = max(size, 96)  # small pictures are drawn larger and shrunk
    matrix = _placement(view_rng, work)
    frame = int(2.2 * EXTENT * np.hypot(matrix[0, 0], matrix[1, 0]))
    names = lesion_criteria(label, lesion_seed)
    lesion = _draw(label, names, lesion_seed, frame, _skin_tone(skin_rng))
    image, inside = _photograph(lesion, skin_rng, matrix, work)
    image = _shrink(_spoil(view_rng, image), size)
    grain = view_rng.uniform(0.002, 0.015)
    image += grain * view_rng.standard_normal((size, size, 1), np.float32)
    return _to_bytes(image), _largest_part(_shrink(inside, size) > 0.5)


def draw_criterion(name, size=160, seed=0):
    """Draw a lesion that shows one criterion of `CRITERIA`, upright, sharp and in plain light.

    Returns:
        image (size, size, 3) uint8 RGB.

    Raises:
        InputError: unknown name, negative seed, size below 32.
    """
    if name not in CRITERIA:
        raise InputError(f"There is no criterion {name!r}: use one of {', '.join(CRITERIA)}.")
    label = CRITERIA[name].split(":")[0]
    check_arguments(label, seed, size=size)
    base = next(iter(_DRAW[label]))
    work, skin = max(size, 96), np.array([0.88, 0.72, 0.71], np.float32)
    lesion = _draw(label, dict.fromkeys([base, name]), seed, work, skin)
    middle = (work - 1) / 2
    matrix = np.array([[0.33 * work, 0, middle], [0, 0.33 * work, middle], [0, 0, 1]])
    image, _ = _photograph(lesion, np.random.default_rng([seed, 3]), matrix, work)
    image = cv2.GaussianBlur(cv2.merge(list(image)), (0, 0), 0.4 * work / 96)
    return _to_bytes(_shrink(image, size))


def _counts(images, balance):
    """Images per class, rounded by the largest remainders so that they add up."""
    exact = images * np.array(list(balance.values())) / sum(balance.values())
    counts = exact.astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: images - counts.sum()]] += 1
    return dict(zip(balance, counts.tolist(), strict=True))


def make_atlas(images=800, size=96, seed=0, balance=None, progress=True):
    """Draw an atlas in which each lesion is photographed one to three times.

    Args:
        images: how many images, from 1.
        size: their width and height in pixels, from 32.
        seed: whole number from 0; the same seed gives the same atlas.
        balance: share of the images per class, such as {"MEL": 1, "NV": 3}; equal by default.
        progress: show a progress bar.

    Returns:
        `Atlas`, in random order. A lesion_id is the class and the lesion seed of `draw_lesion`.

    Raises:
        InputError: fewer than 1 image, unknown class or unusable share, size below 32.
    """
    balance = dict.fromkeys(CLASSES, 1) if balance is None else dict(balance)
    if not isinstance(images, int | np.integer) or images < 1:
        raise InputError(f"An atlas has a whole number of images from 1, not {images!r}.")
    if not balance or min(balance.values()) < 0 or sum(balance.values()) <= 0:
        raise InputError(f"The balance {balance} needs shares from 0, one of them above 0.")
    for label in balance:
        check_arguments(label, seed, size=size)
    rng, plan = np.random.default_rng([seed, 5]), []
    for label, count in _counts(images, balance).items():
        while count > 0:
            views, lesion = min(count, int(rng.integers(1, 4))), int(rng.integers(2**31))
            plan += [(label, lesion, int(rng.integers(2**31))) for _ in range(views)]
            count -= views
    plan = [plan[k] for k in rng.permutation(len(plan))]
    pictures = np.empty((images, size, size, 3), np.uint8)
    masks = np.empty((images, size, size), bool)
    for k, job in enumerate(tqdm(plan, "Drawing", disable=not progress, unit="image")):
        pictures[k], masks[k] = draw_lesion(*job, size)
    labels, ids = [job[0] for job in plan], [f"{job[0]}-{job[1]}" for job in plan]
    return Atlas(pictures, masks, np.array(labels), np.array(ids), seed)
