"""A training run that is killed at any moment goes on to the same weights, to the bit.

``make test`` kills four times, ``make test-full`` thirty times.
"""

import itertools
import multiprocessing
import os
import random
import signal
import sys
import time
from multiprocessing import forkserver

import pandas as pd
import pytest
import victim
from helpers import RUN_FILES, assert_equal_states, checkpoint_of

from derm_hash.runs import load_model, read_config
from derm_hash.tensors import load_state

KINDS = ("operation", "writing", "time", "operation")


@pytest.fixture(scope="module")
def start():
    """A function that starts the run in a process that has its imports behind it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["victim"])
    with pytest.MonkeyPatch.context() as patch:
        # Without it, the server of Python 3.11 finds no victim, and each process imports all anew.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()

    def start(root, die_at=None):
        process = context.Process(target=victim.train_once, args=(str(root), die_at))
        process.start()
        return process

    return start


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """The folder of a run that nobody killed, and the seconds that it took."""
    root = tmp_path_factory.mktemp("undisturbed")
    start(root, 1).join()  # the imports
    seconds = time.monotonic()
    process = start(root / "run")
    process.join()
    assert process.exitcode == 0
    return root / "run" / "victim", time.monotonic() - seconds


def kill(kind, start, root, rng, seconds):
    """Start the run and kill it; what it was doing, or None if it ended before."""
    if kind == "operation":
        process = start(root, rng.randint(1, 16))
        process.join()
        found = "between two operations"
    else:
        process = start(root)
        if kind == "time":
            process.join(rng.uniform(0.02, 1) * seconds)
            found = "at a random time"
        else:
            found = wait_for_half_a_file(process, root, rng)
        process.kill()
        process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return found if process.exitcode else None


def wait_for_half_a_file(process, root, rng):
    """Wait until one of the next files has been written in part."""
    skip, seen = rng.randint(0, 4), set()
    while process.is_alive():
        for part in (root / "victim").glob(".*.part"):
            try:
                size = part.stat().st_size
            except FileNotFoundError:
                continue
            if size and part not in seen:
                seen.add(part)
                if len(seen) > skip or rng.random() < 0.3:
                    return "while a file was written"
        seen = {part for part in seen if part.exists()}
    return None


def assert_readable(folder):
    """Whatever has its final name is whole."""
    if (folder / "config.json").exists():
        read_config(folder)
    if (folder / "metrics.csv").exists():
        pd.read_csv(folder / "metrics.csv")
    if (folder / "model.safetensors").exists():
        load_model(folder)
    if (folder / "checkpoint.safetensors").exists():
        load_state(folder / "checkpoint.safetensors")


def assert_same_bits(folder, expected):
    assert {path.name for path in folder.iterdir()} == RUN_FILES
    assert (folder / "metrics.csv").read_bytes() == (expected / "metrics.csv").read_bytes()
    assert_equal_states(*(load_model(path).state_dict() for path in (folder, expected)))
    assert_equal_states(checkpoint_of(folder), checkpoint_of(expected))


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_bits(
    start, undisturbed, tmp_path, full
):
    expected, seconds = undisturbed
    moments, rng, kinds = 30 if full else 4, random.Random(0), itertools.cycle(KINDS)
    killed, finished = [], 0
    while len(killed) < moments:
        root = tmp_path / f"run {finished}"
        while len(killed) < moments and (found := kill(next(kinds), start, root, rng, seconds)):
            killed.append(found)
            assert_readable(root / "victim")
        process = start(root)
        process.join()
        assert process.exitcode == 0
        assert_same_bits(root / "victim", expected)
        finished += 1
    print(f"killed {len(killed)} times: {dict.fromkeys(killed)}")
    assert len(set(killed)) == 3 or not full
