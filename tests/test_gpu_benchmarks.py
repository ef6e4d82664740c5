"""The benchmarks for a GPU run on a CPU in a tiny form, which claims no measurement.

Two processes that train together are tested in test_distributed.py.
"""

import pytest
import torch

from benchmarks import gpu

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU does the full work, for minutes"),
]


@pytest.mark.parametrize("name", ["gpu", "gpu-encoding", "gpu-grid"])
def test_without_a_gpu_a_benchmark_does_its_work_and_measures_nothing(name):
    rows = gpu.ROWS[name]()
    for row in rows if isinstance(rows, list) else [rows]:
        assert row.measured is None
        assert "no GPU here" in row.note
        (found,) = row.details.values() if len(row.details) == 1 else [row.details]
        assert found
