"""The orbit of an image: exact quarter turns, and other angles inside the inscribed disc."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from derm_hash.errors import InputError
from derm_hash.rotations import (
    disc_mask,
    inside_disc,
    rotate,
    rotate_quarters,
    rotate_view,
    rotation_orbit,
)


def numbered(size, batch=1, channels=1):
    """Images whose pixels all have another value."""
    return torch.arange(batch * channels * size * size).view(batch, channels, size, size)


def smooth_image(size=48):
    """A sum of slow waves without any symmetry, (size, size) float64."""
    y, x = np.mgrid[:size, :size] / size
    return np.sin(5 * x + 2 * y) + 0.5 * np.cos(7 * y - 3 * x) + 0.3 * x


def radius(size):
    """Distance of every pixel from the centre; 1 at the middle of a side."""
    centre = (np.arange(size) + 0.5) / size * 2 - 1
    return np.hypot(centre[:, None], centre[None, :])


@pytest.mark.parametrize("n", [1, 2, 4])
def test_member_k_is_what_numpy_turns(n):
    x = numbered(5, batch=2, channels=3)
    for k, member in enumerate(rotation_orbit(x, n)):
        expected = np.rot90(x.numpy(), k * 4 // n, axes=(-2, -1))
        assert np.array_equal(member.numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float16, torch.float64])
def test_exact_rotations_keep_any_type(dtype):
    x = torch.ones(1, 1, 4, 4, dtype=dtype)
    assert rotation_orbit(x).dtype == inside_disc(x).dtype == dtype


@pytest.mark.parametrize(
    ("shape", "kind", "n", "said"),
    [
        ((1, 3, 6, 8), torch.float32, 4, r"square.*\(1, 3, 6, 8\)"),
        ((3, 8, 8), torch.float32, 8, r"\(3, 8, 8\)"),
        ((4, 1, 3, 8, 8), torch.float32, 4, r"\(B, C, H, H\)"),
        ((1, 1, 4, 4), torch.float32, 0, "1 or more"),
        ((1, 1, 4, 4), torch.uint8, 8, "floating point"),  # it would be resampled
    ],
)
def test_an_orbit_that_cannot_be_made_is_refused(shape, kind, n, said):
    with pytest.raises(InputError, match=said):
        rotation_orbit(torch.zeros(shape, dtype=kind), n)


def test_mixed_precision_does_not_move_what_is_rotated():
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        rotated = rotate(x, 45.0)
    torch.testing.assert_close(rotated, rotate(x, 45.0), rtol=0, atol=0)


@pytest.mark.parametrize("n", [3, 8])
def test_other_orbits_agree_with_scipy_inside_the_disc(n):
    image = smooth_image()
    orbit = rotation_orbit(torch.from_numpy(image)[None, None], n)
    inside = radius(len(image)) < 0.95  # the two treat the border differently
    for k, member in enumerate(orbit):
        expected = ndimage.rotate(image, 360 * k / n, reshape=False, order=3, mode="nearest")
        difference = np.abs(member.squeeze().numpy() - expected)[inside]
        assert difference.max() < 0.01
    assert not orbit.numpy()[..., radius(len(image)) > 1].any()  # in every member, also the first
    # The comparison tells the direction: the opposite turn is far away.
    assert np.abs(orbit[1].squeeze().numpy() - orbit[-1].squeeze().numpy())[inside].max() > 0.5


@pytest.mark.parametrize("size", [5, 8, 33])
@pytest.mark.parametrize("k", range(-1, 5))
def test_a_resampled_quarter_turn_is_the_exact_one_inside_the_disc(size, k):
    x = torch.rand(
        2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    expected = inside_disc(torch.rot90(x, k, dims=(-2, -1)))
    torch.testing.assert_close(rotate(x, 90 * k), expected, rtol=0, atol=1e-12)


def test_each_image_can_have_its_own_angle():
    x = torch.from_numpy(smooth_image(16)).expand(3, 2, 16, 16)
    angles = torch.tensor([0.0, 17.0, -120.0], dtype=torch.float64)
    together = rotate(x, angles)
    for i, angle in enumerate(angles.tolist()):
        torch.testing.assert_close(together[i : i + 1], rotate(x[i : i + 1], angle))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_of_16_bits_are_rotated_in_32_and_stay_what_they_are(dtype):
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = rotate(x.float(), 30.0).to(dtype)
    torch.testing.assert_close(rotate(x, 30.0), expected, rtol=0, atol=0)


@settings(max_examples=15)
@given(angle=st.floats(-720, 720))
def test_the_corners_are_grey_at_every_angle(angle):
    rotated = rotate(torch.ones(1, 2, 12, 12), angle)
    expected = torch.from_numpy(radius(12) <= 1).float().expand_as(rotated)
    torch.testing.assert_close(rotated, expected)


@pytest.mark.parametrize("size", [*range(1, 30), 64, 224, 225])
def test_the_disc_is_what_lies_within_half_a_side_and_rotates_into_itself(size):
    mask = disc_mask(size)
    assert np.array_equal(mask.numpy(), radius(size) <= 1)
    for k in (1, 2, 3):
        assert torch.equal(torch.rot90(mask, k), mask)


@pytest.mark.parametrize(("degrees", "k"), [(0, 0), (90, 1), (180.0, 2), (-90, 3), (450, 1)])
def test_a_view_is_exact_for_quarter_turns_and_in_the_disc_at_other_angles(degrees, k):
    x = numbered(5, batch=2)
    assert np.array_equal(rotate_view(x, degrees).numpy(), np.rot90(x.numpy(), k, axes=(-2, -1)))
    assert torch.equal(rotate_view(x.float(), 45 + degrees), rotate(x.float(), 45 + degrees))


def test_rotated_images_stay_on_their_device(recwarn):
    x = torch.zeros(2, 3, 8, 8, device="meta")  # stands for any device but the default one
    assert {inside_disc(x).device, rotate(x, 30).device, rotate_view(x, 90).device} == {x.device}
    assert not recwarn.list


def test_each_image_takes_its_own_quarter_turns():
    x, quarters = numbered(5, batch=6, channels=3), torch.tensor([0, 1, 2, 3, 3, 0])
    rotated = rotate_quarters(x, quarters)
    for before, k, after in zip(x.numpy(), quarters.tolist(), rotated.numpy(), strict=True):
        assert (after == np.rot90(before, k, axes=(1, 2))).all()
    assert torch.equal(x, numbered(5, batch=6, channels=3))  # the images themselves stay
