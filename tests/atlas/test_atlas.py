"""The atlas: same seeds, same pixels; masks that fit; only the criteria tell the classes apart."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage, stats
from sklearn.neighbors import NearestNeighbors

from derm_hash.atlas.atlas import draw_criterion, draw_lesion, make_atlas, make_atlases
from derm_hash.atlas.criteria import CRITERIA, LOOKALIKES, lesion_criteria
from derm_hash.atlas.lesion import ALL_CLASSES, CLASSES
from derm_hash.errors import InputError

RARE = ALL_CLASSES[len(CLASSES) :]


@pytest.fixture(scope="module")
def atlas():
    return make_atlas(400, size=32, seed=0, progress=False)


@pytest.fixture(scope="module")
def harder():
    return make_atlas(400, size=32, seed=0, progress=False, difficulty=0.5)


@pytest.fixture(scope="module")
def rare():
    return make_atlas(150, size=32, seed=0, balance=dict.fromkeys(RARE, 1), progress=False)


def axis_and_elongation(mask):
    """Angle of the mask's long axis in radians, and the ratio of its axes, from second moments."""
    x = np.argwhere(mask)[:, ::-1].astype(float)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    return np.arctan2(vectors[1, 1], vectors[0, 1]), np.sqrt(values[1] / values[0])


def class_mean_precision(features, atlas, k=10):
    """Share of hits of the query's class among its k nearest, with no lesion on both sides."""
    lesions = np.unique(atlas.lesion_ids)
    query = np.isin(atlas.lesion_ids, lesions[::3])
    search = NearestNeighbors(n_neighbors=k).fit(features[~query])
    hits = atlas.labels[~query][search.kneighbors(features[query], return_distance=False)]
    correct = (hits == atlas.labels[query][:, None]).mean(1)
    return np.mean([correct[atlas.labels[query] == label].mean() for label in set(atlas.labels)])


def test_atlas_is_deterministic_and_changes_with_its_seed():
    a, b, c = (make_atlas(12, size=32, seed=s, progress=False) for s in (3, 3, 4))
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.masks, b.masks)
    assert a.lesion_ids.tolist() == b.lesion_ids.tolist()
    assert np.abs(a.images.astype(int) - c.images).mean() > 3
    assert not set(a.lesion_ids) & set(c.lesion_ids)


def test_difficulty_0_is_the_atlas_that_the_shipped_networks_have_learnt():
    """As it was drawn for them, up to what another processor may round otherwise."""
    found = {}
    for label in ALL_CLASSES:
        image, mask = draw_lesion(label, 1, 6, 32)
        found[label] = [*image.mean((0, 1)), *image.std((0, 1)), mask.sum()]
    expected = {
        "MEL": [177.8, 126.2, 126.7, 47.5, 40.5, 41.9, 254],
        "NV": [174.7, 119.1, 117.5, 48.9, 47.7, 51.4, 268],
        "BCC": [188.9, 127.0, 125.4, 29.9, 38.0, 41.9, 279],
        "BKL": [194.3, 138.1, 136.2, 26.3, 25.4, 29.9, 265],
        "AKIEC": [192.8, 132.0, 130.4, 23.3, 29.4, 32.1, 268],
        "DF": [189.5, 131.9, 129.6, 27.1, 29.6, 33.2, 270],
        "VASC": [193.7, 126.7, 129.9, 25.1, 40.2, 37.0, 261],
    }
    for label in ALL_CLASSES:
        assert found[label] == pytest.approx(expected[label], abs=0.5)


def test_a_harder_atlas_has_the_same_lesions_and_is_deterministic(atlas, harder):
    a, b = (make_atlas(12, 32, 3, progress=False, difficulty=0.5) for _ in range(2))
    np.testing.assert_array_equal(a.images, b.images)
    assert harder.lesion_ids.tolist() == atlas.lesion_ids.tolist()
    assert (harder.images != atlas.images).any((1, 2, 3)).mean() > 0.9


def test_classes_overlap_in_a_harder_atlas(atlas, harder):
    """Nearest neighbours by the mean and the spread of the colours in the mask: 0.56 and 0.34, and
    chance has 0.25."""

    def score(one):
        pixels = [im[m] / 255 for im, m in zip(one.images, one.masks, strict=True)]
        return class_mean_precision(np.array([[*p.mean(0), *p.std(0)] for p in pixels]), one)

    assert score(atlas) > 0.5 and score(harder) < 0.4
    skin = [im[~m].mean(0) for im, m in zip(harder.images, harder.masks, strict=True)]
    assert class_mean_precision(np.array(skin), harder) < 0.35  # only the criteria tell them apart


@pytest.mark.parametrize("label", ALL_CLASSES)
def test_a_difficult_lesion_has_criteria_of_one_lookalike_and_keeps_one_of_its_own(label):
    for seed in range(40):
        easy = lesion_criteria(label, seed)
        kept = [set(lesion_criteria(label, seed, each / 8)) & set(easy) for each in range(9)]
        assert kept[0] == set(easy) and len(kept[8]) == 1
        assert all(after <= before for before, after in pairwise(kept))
        shown = lesion_criteria(label, seed, 0.7)
        assert len(shown) >= 2
        others = {CRITERIA[name].split(":")[0] for name in shown} - {label}
        assert len(others) <= 1 and others <= set(LOOKALIKES[label])


def test_the_difficulty_is_the_probability_that_a_criterion_gives_way():
    """But for the one that stays where all n would go, which has a probability of 0.5 ** n here."""
    pairs = [(lesion_criteria("BCC", s), lesion_criteria("BCC", s, 0.5)) for s in range(600)]
    gone = [len(set(easy) - set(hard)) for easy, hard in pairs]
    expected = [len(easy) * 0.5 - 0.5 ** len(easy) for easy, _ in pairs]
    assert np.mean(gone) == pytest.approx(np.mean(expected), abs=0.1)


@pytest.mark.parametrize("size", [32, 50, 97, 224, 512])
def test_shapes_and_types_at_any_size(size):
    for label in ALL_CLASSES:
        image, mask = draw_lesion(label, 1, 1, size=size)
        assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
        assert (mask.shape, mask.dtype) == ((size, size), bool)


def test_one_drawing_serves_several_sizes():
    for drawn, size in zip(make_atlases(6, (48, 96), seed=2), (48, 96), strict=True):
        alone = make_atlas(6, size, seed=2)
        assert np.array_equal(drawn.images, alone.images)
        assert np.array_equal(drawn.masks, alone.masks)


def test_a_lesion_is_the_same_at_every_size():
    for label in ALL_CLASSES:
        small, large = draw_lesion(label, 2, 2, 48), draw_lesion(label, 2, 2, 192)
        block = large[1].reshape(48, 4, 48, 4).mean((1, 3)) > 0.5
        overlap = (block & small[1]).sum() / (block | small[1]).sum()
        assert overlap > 0.93
        shrunk = large[0].reshape(48, 4, 48, 4, 3).mean((1, 3))
        assert np.corrcoef(shrunk.ravel(), small[0].ravel())[0, 1] > 0.93


def test_masks_are_one_piece_of_sensible_size(atlas, rare):
    masks = np.concatenate([atlas.masks, rare.masks])
    area = masks.mean((1, 2))
    assert area.min() > 0.10 and area.max() < 0.65
    eight_neighbours = np.ones((3, 3))
    assert all(ndimage.label(mask, eight_neighbours)[1] == 1 for mask in masks)


@pytest.mark.parametrize("label", ALL_CLASSES)
def test_masks_fit_the_lesions_to_the_pixel(atlas, rare, label):
    """Lesions absorb more green light than the skin around them. The step in green across the
    border of the mask is highest where the mask is, and falls when the mask moves one pixel."""
    atlas = atlas if label in CLASSES else rare
    here = np.flatnonzero(atlas.labels == label)

    def steps(shift):
        found = []
        for k in here:
            mask, green = np.roll(atlas.masks[k], shift, axis=(0, 1)), atlas.images[k, ..., 1]
            inner = mask & ~ndimage.binary_erosion(mask, iterations=2)
            outer = ndimage.binary_dilation(mask, iterations=2) & ~mask
            found.append(green[outer].mean() - green[inner].mean())
        return np.array(found)

    in_place = steps((0, 0))
    assert (in_place > 0).mean() > 0.9
    for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        assert in_place.mean() > steps(shift).mean() + 1


def test_a_lesion_has_one_class_and_one_to_three_distinct_images(atlas):
    assert Counter(atlas.labels) == dict.fromkeys(CLASSES, 100)
    assert set(Counter(atlas.lesion_ids).values()) == {1, 2, 3}
    for label, lesion in zip(atlas.labels, atlas.lesion_ids, strict=True):
        name, seed = lesion.split("-")  # what draws the lesion again
        assert name == label and len(lesion_criteria(label, int(seed))) >= 2
    assert len({image.tobytes() for image in atlas.images}) == len(atlas.images)


@pytest.mark.parametrize(
    ("images", "balance", "expected"),
    [
        (10, {"MEL": 1, "NV": 3}, {"MEL": 3, "NV": 7}),  # 2.5 and 7.5: on a tie, the first
        (7, {"MEL": 0.5, "NV": 0.25, "BCC": 0.25}, {"MEL": 3, "NV": 2, "BCC": 2}),
        (1, {"BKL": 2, "NV": 0}, {"BKL": 1}),
    ],
)
def test_classes_are_drawn_in_the_balance_that_is_asked_for(images, balance, expected):
    assert Counter(make_atlas(images, 32, balance=balance, progress=False).labels) == expected


def test_views_share_the_lesion_and_differ_in_pixels():
    """The outline's elongation varies more between lesions than between views of one."""
    shape = np.array(
        [
            [axis_and_elongation(draw_lesion("NV", lesion, view, 32)[1])[1] for view in range(6)]
            for lesion in range(12)
        ]
    )
    assert np.median(shape, 1).std() > 3 * np.median(shape.std(1))
    views = [draw_lesion("NV", 0, view, 32)[0].astype(int) for view in range(4)]
    assert all(np.abs(a - b).mean() > 3 for i, a in enumerate(views) for b in views[:i])


def test_skin_and_photograph_do_not_depend_on_the_class():
    """With the same seeds the pictures of all classes are equal where no lesion is near."""
    for seed in range(8):
        drawn = [draw_lesion(label, seed, seed, 64) for label in ALL_CLASSES]
        lesions = np.any([mask for _, mask in drawn], axis=0)
        far = ~ndimage.binary_dilation(lesions, iterations=14)
        assert far.sum() > 100
        for image, _ in drawn[1:]:
            same = np.abs(image[far].astype(int) - drawn[0][0][far]) <= 1
            assert same.mean() > 0.97


def test_the_rarer_classes_are_drawn_on_request_and_leave_the_four_as_they_are(rare):
    assert Counter(rare.labels) == dict.fromkeys(RARE, 50)
    assert ALL_CLASSES[:4] == CLASSES  # a class's place is part of the seed of its drawings
    # Neither the skin nor the size tells them apart.
    skin = [im[~m].mean(0) for im, m in zip(rare.images, rare.masks, strict=True)]
    assert class_mean_precision(np.array(skin), rare) < 0.45
    assert class_mean_precision(rare.masks.mean((1, 2))[:, None], rare) < 0.45


def test_skin_size_and_mean_colour_do_not_tell_the_class(atlas):
    skin = [im[~m].mean(0) for im, m in zip(atlas.images, atlas.masks, strict=True)]
    assert class_mean_precision(np.array(skin), atlas) < 0.35
    assert class_mean_precision(atlas.masks.mean((1, 2))[:, None], atlas) < 0.35
    assert class_mean_precision(atlas.images.mean((1, 2)), atlas) <= 0.60


def test_orientation_is_uniform():
    """Angles of the long axis over many photographs of one elongated lesion: no direction is
    preferred (Rayleigh test on the doubled angle; Kolmogorov-Smirnov against uniform)."""
    masks = [draw_lesion("NV", 3, view, 32)[1] for view in range(100)]
    assert np.median([axis_and_elongation(m)[1] for m in masks]) > 1.15
    doubled = 2 * np.array([axis_and_elongation(m)[0] for m in masks])
    rayleigh = np.exp(-len(doubled) * np.abs(np.exp(1j * doubled).mean()) ** 2)
    assert rayleigh > 0.05
    uniform = stats.kstest(doubled % (2 * np.pi) / (2 * np.pi), "uniform")
    assert uniform.pvalue > 0.05


@pytest.mark.parametrize("label", ALL_CLASSES)
def test_every_lesion_shows_two_criteria_of_its_class(label):
    shown = [lesion_criteria(label, seed) for seed in range(40)]
    assert min(len(names) for names in shown) >= 2
    assert {name for names in shown for name in names} == {
        name for name, text in CRITERIA.items() if text.startswith(f"{label}: ")
    }


@pytest.mark.parametrize("name", CRITERIA)
def test_each_criterion_can_be_drawn_alone(name):
    assert CRITERIA[name].endswith(".")
    image = draw_criterion(name, size=96, seed=1)
    assert (image.shape, image.dtype) == ((96, 96, 3), np.uint8)
    label = CRITERIA[name].split(":")[0]
    base = next(n for n, text in CRITERIA.items() if text.startswith(f"{label}: "))
    plain = draw_criterion(base, size=96, seed=1)
    changed = np.abs(image.astype(int) - plain).max(2) > 20
    assert name == base or 0.005 < changed.mean() < 0.5


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: draw_lesion("SCC", 0), "'SCC'.*MEL, NV, BCC, BKL"),
        (lambda: draw_lesion("MEL", -1), "-1"),
        (lambda: draw_lesion("MEL", 0, 1.5), "1.5"),
        (lambda: draw_lesion("MEL", 0, size=31), "32.*31"),
        (lambda: draw_lesion("MEL", 0, difficulty=1.2), "from 0 to 1, not 1.2"),
        (lambda: lesion_criteria("MEL", 0, -0.1), "from 0 to 1, not -0.1"),
        (lambda: make_atlas(4, difficulty=float("nan")), "from 0 to 1, not nan"),
        (lambda: make_atlas(4, difficulty="high"), "from 0 to 1, not 'high'"),
        (lambda: draw_criterion("rainbow"), "'rainbow'.*streaks"),
        (lambda: lesion_criteria("AK", 0), "'AK'"),
        (lambda: make_atlas(0), "images .* 1 or more, not 0"),
        (lambda: make_atlas(4, size=16), "32.*16"),
        (lambda: make_atlas(4, seed=-2), "-2"),
        (lambda: make_atlas(4, balance={"SCC": 1}), "'SCC'"),
        (lambda: make_atlas(4, balance={"MEL": 0}), "above 0"),
        (lambda: make_atlas(4, balance={"MEL": -1, "NV": 3}), "must be 0 or more"),
        (lambda: make_atlas(4, balance={}), "above 0"),
    ],
)
def test_bad_input_gets_one_clear_sentence(call, says):
    with pytest.raises(InputError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value) and not str(caught.value).endswith(".")
