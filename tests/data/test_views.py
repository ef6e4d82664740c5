"""Random views: what they change, and that they do not depend on the number of processes."""

import numpy as np
import torch

from derm_hash.data.views import augment


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
