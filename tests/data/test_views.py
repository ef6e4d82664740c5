"""Random views: what they change, and that they do not depend on the number of processes."""

import numpy as np
import torch

from derm_hash.data.views import augment, grey, strong_view, weak_view


def test_augmentation_mirrors_some_and_changes_the_light_a_little():
    x = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    changed = augment(x, torch.Generator().manual_seed(1))
    assert torch.equal(changed, augment(x, torch.Generator().manual_seed(1)))
    assert not torch.equal(changed, augment(x, torch.Generator().manual_seed(2)))
    mirrored = 0
    for before, after in zip(x, changed, strict=True):
        # One straight line of brightness for the image or for its mirror image.
        fits = [
            np.polyfit(candidate.flatten().numpy(), after.flatten().numpy(), 1, full=True)
            for candidate in (before, before.flip(-1))
        ]
        residuals = [fit[1][0] for fit in fits]
        mirrored += residuals[1] < residuals[0]
        slope, shift = fits[int(np.argmin(residuals))][0]
        assert min(residuals) < 1e-9
        assert abs(slope - 1) <= 0.1 + 1e-6
        assert abs(shift) <= 0.1 + 1e-6
    assert 20 < mirrored < 44
    assert augment(torch.ones(9, 3, 2, 2), torch.Generator().manual_seed(0)).max() <= 1


def test_an_image_changes_in_the_same_way_however_many_processes_share_the_batch():
    x = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = augment(x, torch.Generator().manual_seed(1))
    for world in (2, 4):
        for rank in range(world):
            rng = torch.Generator().manual_seed(1)
            assert torch.equal(
                augment(x[rank::world], rng, rank=rank, world=world), whole[rank::world]
            )


def key_views(x, rank=0, world=1):
    key = 0, 1, 2
    return weak_view(x, key, rank, world), strong_view(x, key, rank, world)


def test_ecls_views_stay_in_range_and_follow_from_the_key_alone():
    x = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for view, again in zip(key_views(x), key_views(x), strict=True):
        assert view.shape == x.shape and torch.equal(view, again)
        assert view.abs().max() <= 1 and not torch.equal(view, x)
    for rank in range(3):
        for part, whole in zip(key_views(x[rank::3], rank, 3), key_views(x), strict=True):
            torch.testing.assert_close(part, whole[rank::3])


def test_the_weak_view_keeps_a_fifth_of_the_colours_and_the_place_of_every_pixel():
    pattern = torch.rand(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x = (pattern * torch.tensor([0.5, 0.3, 0.2])[:, None, None]) - 0.3
    view = weak_view(x, (0, 0, 0))
    same = [
        any(torch.equal(v, each) for each in (o, o.flip(-1))) for v, o in zip(view, x, strict=True)
    ]
    assert 0.15 < np.mean(same) < 0.25


def test_a_turn_of_the_hue_keeps_grey_and_a_strong_view_of_a_flat_image_is_flat():
    flat = torch.zeros(40, 3, 9, 9)
    flat[20:] = torch.tensor([0.4, -0.2, 0.1])[:, None, None]
    view = strong_view(flat, (0, 0, 1))
    assert (view - view.mean(dim=(2, 3), keepdim=True)).abs().max() < 1e-5
    spread = view.amax(dim=1) - view.amin(dim=1)
    assert spread[:20].max() < 1e-5
    in_grey = (spread[20:].amax(dim=(1, 2)) < 1e-5).float().mean()
    assert 0 < in_grey < 0.5


def test_the_strong_view_turns_without_stretching():
    disc = torch.linspace(-1, 1, 33)
    inside = (disc[:, None] ** 2 + disc**2 < 0.16).float() * 2 - 1
    view = strong_view(inside.expand(60, 3, 33, 33).contiguous(), (0, 0, 2))
    shade = grey(view)
    middle = (shade.amax(dim=(2, 3), keepdim=True) + shade.amin(dim=(2, 3), keepdim=True)) / 2
    area = (shade > middle).float().mean(dim=(1, 2, 3)) / (inside > 0).float().mean()
    assert area.min() > 0.9 and area.max() < 1.4  # a crop of 80 % enlarges by 1 / 0.8
