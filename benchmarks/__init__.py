"""Benchmarks: ratios against a named alternative, both timed in the same run."""

import statistics
import time
from collections.abc import Callable


def seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """Median time of a call, after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
