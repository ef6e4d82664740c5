"""`make lab` starts a server that only this machine can reach, and only with its token."""

import os
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from helpers import free_port

ROOT = Path(__file__).resolve().parents[1]


def listening(process):
    """The addresses at which a process and its children wait for connections."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    return {
        connection.laddr.ip
        for each in family
        for connection in each.net_connections(kind="inet")
        if connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
    }


@pytest.fixture
def lab(tmp_path):
    """The address of the server that `make lab` starts, its process, and its token."""
    port = free_port()
    options = f"LAB_ARGS=--no-browser --port {port}"
    shown = subprocess.check_output(["make", "-n", "lab", options], cwd=ROOT, text=True)
    (command,) = [line for line in shown.splitlines() if "-m derm_hash.lab" in line]
    command = command.replace(".venv/bin/python", shlex.quote(sys.executable), 1)
    own = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    own |= {"JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"), "HOME": str(tmp_path)}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER_")}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"], cwd=ROOT, env=inherited | own, stdout=log, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{port}", process, tmp_path / "log"
    finally:
        process.terminate()
        process.wait(timeout=60)


def answer(address, method="GET"):
    """The status of a server's answer; None before it listens."""
    try:
        request = urllib.request.Request(address, method=method)
        return urllib.request.urlopen(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code
    except (urllib.error.URLError, ConnectionError):
        return None


@pytest.mark.slow
def test_only_this_machine_gets_in_with_the_token(lab):
    address, process, log = lab
    until = time.monotonic() + 90
    while answer(f"{address}/api/kernels") is None:
        assert process.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.2)
    token = log.read_text().partition("token=")[2].split()[0]
    assert len(token) >= 32
    # Without the token, no list of the kernels, and no new one.
    assert answer(f"{address}/api/kernels") == 403
    assert answer(f"{address}/api/kernels", "POST") == 403
    assert answer(f"{address}/api/kernels?token={token}") == 200
    # A kernel waits for connections, too.
    assert answer(f"{address}/api/kernels?token={token}", "POST") == 201
    until = time.monotonic() + 60
    while len(psutil.Process(process.pid).children()) == 0 and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(2)  # for its ports
    assert listening(process) <= {"127.0.0.1", "::1"}
    assert listening(process)
