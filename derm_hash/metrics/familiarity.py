"""How familiar a picture is: does it look like anything in the database?

A hash code cannot answer this: every picture, even of stripes, gets a code that fits some class.
So pictures are compared by how they look, by colour, contrast and edges, without the network.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from derm_hash.data.dataset import LesionDataset

SIDE = 48  # pixels, to which larger pictures are shrunk
MOST = 2000  # images of a part that pictures are compared with
USUAL = 0.99  # share of the images of `val` that are familiar


def looks(images: Tensor) -> np.ndarray:
    """Describe pictures, uint8 (N, 3, S, S) -> (N, 38): mean colours in 3 x 3 fields, and for each
    channel the contrast, the mean edge, and the strongest twentieth of the edges."""
    x = images.float() / 255
    x = F.adaptive_avg_pool2d(x, SIDE) if x.shape[-1] > SIDE else x
    across, down = (x[..., 1:] - x[..., :-1]).abs(), (x[..., 1:, :] - x[..., :-1, :]).abs()
    parts = [F.adaptive_avg_pool2d(x, 3).flatten(1), x.std((2, 3))]
    for edges in (across, down):
        parts += [edges.mean((2, 3)), edges.flatten(1).quantile(0.95, dim=1)[:, None]]
    return torch.cat(parts, dim=1).numpy()


class Familiarity:
    """Measures the distance of pictures from a database, and the limit of usual distances.

    The limit is the distance below which 99 % of the images of ``others`` (``val``) lie.
    """

    def __init__(self, database: LesionDataset, others: LesionDataset):
        found = looks(_some(database))
        self._mean, self._scale = found.mean(axis=0), found.std(axis=0) + 1e-6
        self._known = (found - self._mean) / self._scale
        self.limit = float(np.quantile(self.distance(_some(others)), USUAL))

    def distance(self, images: Tensor) -> np.ndarray:
        """Distance from the nearest image of the database: uint8 (N, 3, S, S) -> (N,)."""
        found = torch.from_numpy((looks(images) - self._mean) / self._scale)
        return torch.cdist(found, torch.from_numpy(self._known)).amin(dim=1).numpy()

    def about(self, images: Tensor) -> list[dict]:
        """A dictionary for each image (N, 3, S, S), with its distance and the limit."""
        return [{"distance": d, "limit": self.limit} for d in self.distance(images).tolist()]


def _some(dataset: LesionDataset) -> Tensor:
    """At most ``MOST`` images, evenly spaced."""
    return dataset.images[:: -(-len(dataset) // MOST)]
