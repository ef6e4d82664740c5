"""A reader that asks for absurdly much memory gets an error, not the whole machine."""

import resource

import psutil
import pytest

BYTES = 1024**3  # that reading may add to what the process and its libraries have claimed


@pytest.fixture
def little_memory():
    """Let this process take no more than :data:`BYTES` of further memory."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + BYTES, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)
