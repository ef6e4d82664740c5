"""What the tests of experiments share: a small atlas."""

import helpers  # noqa: F401  (it adds the network "pocket")
import pytest

from derm_hash.atlas.atlas import make_atlas
from derm_hash.data.dataset import LesionDataset


@pytest.fixture(scope="session")
def data():
    return LesionDataset.from_atlas(make_atlas(48, 32, progress=False), query=0.25, val=0.2)
