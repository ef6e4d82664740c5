"""Runs in several processes, on this machine or on a Dask cluster, one of which is killed."""

import os
import signal
import sys
import threading
import time

import joblib
import pandas as pd
import psutil
import pytest
from distributed import KilledWorker, LocalCluster

from derm_hash.cli import main
from derm_hash.errors import InputError
from derm_hash.experiments.cluster import on_cluster
from derm_hash.experiments.results import read_results
from derm_hash.files import read_json

pytestmark = pytest.mark.usefixtures("one_thread")
EXPERIMENT = """
[data]
source = "atlas"
size = 32
images = 60
[grid]
seed = [0, 1, 2]
[train]
backbone = "resnet10"
attention = "none"
invariance = "none"
classify = "upright"
bits = 8
epochs = 4
batch_size = 16
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "grid.toml"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope="module")
def serial(file, tmp_path_factory):
    """The table of the same runs, one after the other in this process."""
    out = tmp_path_factory.mktemp("serial")
    assert main(["reproduce", str(file), "--out", str(out)]) == 0
    return read_results(out)


@pytest.fixture
def options(request):
    """The options for two worker processes, on this machine or in a cluster."""
    if request.param == "--jobs":
        yield ["--jobs", "2"]
        return
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield ["--scheduler", cluster.scheduler_address]


def kill_a_worker(out, seen):
    """Kill a process in the middle of a training, once there are a checkpoint and a result.

    ``seen`` gets the killed run's folder, and the finished files with the time of their writing.
    """
    while not seen:
        time.sleep(0.02)
        finished = {path: path.stat().st_mtime_ns for path in out.glob("*/result-*.json")}
        for checkpoint in out.glob("*/checkpoint.safetensors"):
            run = checkpoint.parent
            if not finished or (run / "trained.json").exists():
                continue
            for process in psutil.Process().children(recursive=True):
                if any(path == str(run / ".lock") for path, *_ in process.open_files()):
                    os.kill(process.pid, signal.SIGKILL)
                    seen.update(run=run, finished=finished)
                    return


@pytest.mark.slow
@pytest.mark.parametrize("options", ["--jobs", "--scheduler"], indirect=True)
def test_a_killed_worker_costs_no_finished_run(options, file, serial, tmp_path, capsys):
    seen, command = {}, ["reproduce", str(file), "--out", str(tmp_path), *options]
    killer = threading.Thread(target=kill_a_worker, args=(tmp_path, seen), daemon=True)
    killer.start()
    code = main(command)
    killer.join(10)
    said = capsys.readouterr()
    assert code == 0 and "runs: 100%" in said.err
    assert ("A worker process was killed" in said.out) == ("--jobs" in options)
    for path, stamp in seen["finished"].items():
        assert path.stat().st_mtime_ns == stamp, f"{path} was written again"
    assert read_json(seen["run"] / "trained.json", "")["seconds"] is None  # it was resumed
    ours, alone = (
        each.drop(columns=["seconds", "commit"]) for each in (read_results(tmp_path), serial)
    )
    pd.testing.assert_frame_equal(ours, alone)
    assert not list(tmp_path.glob(".images*"))


def test_processes_share_the_cores(tmp_path):
    """Each of two processes gets half of the cores, unless OMP_NUM_THREADS says otherwise."""
    threads = joblib.Parallel(2)(joblib.delayed(os.environ.get)("OMP_NUM_THREADS") for _ in "ab")
    half = max(1, joblib.cpu_count() // 2)
    assert threads == [os.environ.get("OMP_NUM_THREADS", str(half))] * 2


def test_what_a_cluster_cannot_do_gets_one_sentence(monkeypatch, capsys):
    with LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster:
        killed = KilledWorker("task", None, allowed_failures=3)
        sentence = "One run has ended 4 workers"
        with pytest.raises(InputError, match=sentence), on_cluster(cluster.scheduler_address):
            raise killed
        assert "no worker yet" in capsys.readouterr().out
    monkeypatch.setattr("derm_hash.experiments.cluster.SECONDS_TO_CONNECT", 0.2)
    sentence = "No Dask scheduler answers at tcp://127.0.0.1:9"
    with pytest.raises(InputError, match=sentence), on_cluster("tcp://127.0.0.1:9"):
        pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="Dask is not installed"), on_cluster("tcp://127.0.0.1:9"):
        pass
