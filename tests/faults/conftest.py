"""A reader that asks for absurdly much memory gets an error, not the whole machine."""

import resource

import psutil
import pytest

BYTES = 4 * 1024**3  # beyond what the process has, whose libraries claim some already


@pytest.fixture
def little_memory():
    """Keep this process from taking all of the machine's memory."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + BYTES, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)
