"""Hand the runs of a grid to a Dask cluster: see docs/cluster.md."""

from collections.abc import Iterator
from contextlib import contextmanager

from joblib import parallel_config

from derm_hash.errors import InputError

SECONDS_TO_CONNECT = 10
SECONDS_WITHOUT_WORKER = 7 * 24 * 3600  # workers may wait in a cluster's queue for days


@contextmanager
def on_cluster(scheduler: str) -> Iterator[None]:
    """Let the workers of a Dask cluster do what joblib hands out inside the ``with`` block.

    ``scheduler`` is an address such as "tcp://head:8786". InputError if Dask is not installed, no
    scheduler answers, or one run has ended several workers.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise InputError(
            "Dask is not installed: run pip install 'derm-hash[cluster]', or use --jobs"
        ) from error
    try:
        client = Client(scheduler, timeout=SECONDS_TO_CONNECT)
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Dask scheduler answers at {scheduler}: start one as docs/cluster.md shows"
        ) from error
    with client, parallel_config("dask", wait_for_workers_timeout=SECONDS_WITHOUT_WORKER):
        if not client.ncores():
            print("The cluster has no worker yet: the runs start with the first one.")
        try:
            yield
        except KilledWorker as error:
            raise InputError(
                f"One run has ended {error.allowed_failures + 1} workers, perhaps because memory "
                "ran out or their time was up: run the same command to continue from its checkpoint"
            ) from error
