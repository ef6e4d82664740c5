"""The hash centres of CSQ. The rivals' losses are tested with the other objectives."""

import itertools

import pytest
import torch

from derm_hash.errors import InputError
from derm_hash.rivals import hash_centres


@pytest.mark.parametrize(("bits", "classes"), [(16, 4), (16, 8), (32, 7), (8, 8)])
def test_hadamard_centres_differ_in_half_of_the_bits(bits, classes):
    centres = hash_centres(bits, classes)
    assert centres.shape == (classes, bits)
    assert set(centres.unique().tolist()) <= {0, 1}
    for a, b in itertools.combinations(centres, 2):
        assert (a != b).sum() == bits // 2


def test_more_classes_than_bits_take_the_negative_rows_too():
    distances = [(a != b).sum().item() for a, b in itertools.combinations(hash_centres(4, 8), 2)]
    assert set(distances) == {2, 4}


@pytest.mark.parametrize(("bits", "classes"), [(12, 4), (24, 8), (48, 4), (5, 3), (4, 10)])
def test_other_centres_are_apart_and_always_the_same(bits, classes):
    centres = hash_centres(bits, classes)
    hash_centres.cache_clear()
    assert torch.equal(hash_centres(bits, classes), centres)
    assert centres.shape == (classes, bits)
    distances = [(a != b).sum().item() for a, b in itertools.combinations(centres, 2)]
    assert min(distances) >= max(1, bits // 2 - 4)


@pytest.mark.parametrize("bits", [1, 6, 16])
def test_one_class_has_a_centre(bits):
    assert hash_centres(bits, 1).shape == (1, bits)


@pytest.mark.parametrize(("bits", "classes"), [(1, 3), (3, 9)])
def test_too_few_bits_for_the_classes_are_refused(bits, classes):
    with pytest.raises(InputError, match=f"{bits} bits are too few for {classes} "):
        hash_centres(bits, classes)
