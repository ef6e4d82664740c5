"""Two processes on the CPU (gloo, 127.0.0.1) against one, for the same global batches.

Tolerance: with SGD the numbers of the histories agree to 1e-5 and the weights to 1e-5 after 12
steps, which is rounding: sums over a batch are taken in another order. AdamW divides gradients
by their size and so makes rounding larger: 1e-3.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import distributed_worker as worker
import numpy as np
import pytest
import torch
from helpers import RUN_FILES, checkpoint_of, free_port, train_quietly

from derm_hash.longtail import make_contrast
from derm_hash.model import DermHash
from derm_hash.runs import Run
from derm_hash.training import step_losses

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder of the runs that two processes have trained."""
    out = tmp_path_factory.mktemp("two")
    port = ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *port]
    single = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*launcher, worker.__file__, str(out)],
        env=os.environ | single | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same runs, trained by one process."""
    out = tmp_path_factory.mktemp("one")
    for config in worker.CONFIGS:
        train_quietly(config, worker.DATA, out)
    return out


def seen_by(out, rank):
    return json.loads((out / f"rank-{rank}.json").read_text())


SAME = [config.name for config in worker.CONFIGS if config.name != "batch-norm"]


@pytest.mark.parametrize("name", SAME)
def test_two_processes_give_the_result_of_one(together, alone, name):
    rounding = 1e-3 if name == "adamw" else 1e-5
    ours, expected = Run.load(together / name), Run.load(alone / name)
    assert list(ours.history) == list(expected.history)
    np.testing.assert_allclose(ours.history, expected.history, rtol=rounding)
    finals = [checkpoint_of(run.path)["model"] for run in (ours, expected)]
    for key, value in finals[1].items():
        torch.testing.assert_close(finals[0][key], value, rtol=rounding, atol=rounding)
    # It did learn, so there is something to agree on.
    assert expected.history["loss"].nunique() == 3


def test_the_mean_of_two_shares_would_be_another_loss():
    # What the test above would catch: weighted means, and pairs, do not average over shares.
    data = worker.DATA.split("database")
    x, y = data.batch(torch.randperm(40, generator=torch.Generator().manual_seed(0))[:10])
    parts = (slice(None), slice(0, None, 2), slice(1, None, 2))
    weights = torch.tensor([2.0, 0.5, 3.0])
    torch.manual_seed(0)
    model = DermHash("stateless", 8, 3, None)
    for config in worker.CONFIGS[:-1]:
        given = config, weights, 1.0, None, None, make_contrast(config, data.labels, 3)
        with torch.no_grad():
            whole, *shares = (
                step_losses(model, x[part], y[part], *given)["loss"] for part in parts
            )
        assert abs(sum(shares) / 2 - whole) > 2e-5 * whole, config.name


def test_the_processes_share_the_batches_and_agree(together):
    first, second = seen_by(together, 0), seen_by(together, 1)
    assert first["world"] == second["world"] == 2
    assert {count for count, _ in first["shares"] + second["shares"]} == {5}
    pixels = [[total for _, total in seen["shares"]] for seen in (first, second)]
    assert not set(pixels[0]) & set(pixels[1])  # nobody sees the other's images
    assert first["histories"] == second["histories"]


def test_a_run_of_two_processes_with_batch_norm_is_whole_and_resumes_to_the_bit(together):
    whole, resumed = Run.load(together / "batch-norm"), Run.load(together / "resumed/batch-norm")
    assert whole.history.equals(resumed.history)
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value)
    for run in (whole, resumed):
        assert {path.name for path in run.path.iterdir()} == RUN_FILES
