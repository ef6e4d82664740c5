"""A small data folder."""

import pandas as pd
import pytest
from helpers import noise

from derm_hash.data.manifest import write_manifest


@pytest.fixture
def folder(tmp_path):
    """Six images of three classes with masks for two of them, split by hand."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    labels = ["NV", "MEL", "NV", "BCC", "MEL", "NV"]
    splits = ["database", "database", "query", "database", "val", "database"]
    for i in range(6):
        noise(i, 12, 9).save(tmp_path / "images" / f"{i}.png")
    for i in (1, 4):
        noise(100 + i, 12, 9).convert("1").save(tmp_path / "masks" / f"{i}.png")
    write_manifest(
        pd.DataFrame(
            {
                "image": [f"images/{i}.png" for i in range(6)],
                "label": labels,
                "split": splits,
                "mask": [f"masks/{i}.png" if i in (1, 4) else "" for i in range(6)],
            }
        ),
        tmp_path,
    )
    return tmp_path
