"""A JupyterHub from docs/teaching/hub, and students who use it over HTTP as a browser would."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import requests
import websocket

# What the test changes: accounts, and that all servers run as one user, so that no right but the
# sandbox keeps them from writing to the shared folder.
CONFIG = """
load_subconfig("{shared}/hub/jupyterhub_config.py")
c.JupyterHub.authenticator_class, c.JupyterHub.spawner_class = "dummy", "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{homes}/{{username}}"
c.Spawner.cmd = [*{read_only}, *c.Spawner.cmd]
c.Spawner.args += ["--allow-root"]
c.Spawner.environment["JUPYTERHUB_ACTIVITY_INTERVAL"] = "10"
c.JupyterHub.last_activity_interval = 10
c.JupyterHub.hub_port = {hub_port}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
"""


@contextlib.contextmanager
def hub(shared: Path, folder: Path, **settings):
    """Start a hub on the shared folder, and stop it with all that it has started."""
    port, hub_port, proxy_port = free_ports(3)
    read_only = [
        "bwrap",
        "--die-with-parent",
        "--dev-bind",
        "/",
        "/",
        "--ro-bind",
        shared,
        shared,
        "--bind",
    ]
    read_only = [*map(str, read_only), *[str(shared / "hand-in")] * 2]
    config = folder / "config.py"
    config.write_text(
        CONFIG.format(
            shared=shared, homes=folder / "homes", hub_port=hub_port, proxy_port=proxy_port,
            read_only=read_only if shutil.which("bwrap") else [],
        )
    )  # fmt: skip
    env = os.environ | {f"HUB_{name}": str(value) for name, value in settings.items()}
    env |= {"HUB_ADDRESS": f"http://127.0.0.1:{port}", "HUB_DATA": str(folder)}
    env = {name: value for name, value in env.items() if name != "DERM_HASH_HOME"}
    command = [sys.executable, "-m", "jupyterhub", "--config", str(config)]
    with (folder / "hub.log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: responds(f"{url}/hub/health"), 120, folder / "hub.log", process)
        yield url
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()


def free_ports(n: int) -> list[int]:
    """Ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def responds(url: str) -> bool:
    """Whether a page is there."""
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def wait_for(done, seconds: float, log: Path | None = None, process=None) -> None:
    """Ask again and again; an error after so many seconds, or when the process has ended."""
    end = time.monotonic() + seconds
    while not done():
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > end:
            raise AssertionError(log.read_text()[-3000:] if log else "it took too long")
        time.sleep(0.5)


class Student:
    """Somebody with a browser: pages, the contents of a home, and kernels."""

    def __init__(self, url: str, name: str):
        self.url, self.name = url, name
        self.session, self.channels = requests.Session(), []

    def log_in(self, seconds: float = 300) -> None:
        """Fill in the form, wait for one's server, and open JupyterLab."""
        page = f"{self.url}/hub/login"
        self.session.get(page).raise_for_status()
        form = {"username": self.name, "password": "secret", "_xsrf": self.xsrf()}
        self.session.post(page, data=form).raise_for_status()
        about = f"{self.url}/hub/api/users/{self.name}"
        headers = {"X-XSRFToken": self.xsrf(), "Referer": f"{self.url}/hub/home"}
        token = self.session.post(f"{about}/tokens", headers=headers, json={"note": "test"})
        token.raise_for_status()
        self.headers = {"Authorization": f"token {token.json()['token']}"}
        wait_for(lambda: self.servers(), seconds)
        page = self.session.get(f"{self.url}/user/{self.name}/lab/tree/derm-hash/course")
        assert page.ok and "JupyterLab" in page.text, page.status_code

    def xsrf(self) -> str:
        """The token that forms have to send back: the one for the hub's pages."""
        found = [cookie for cookie in self.session.cookies if cookie.name == "_xsrf"]
        return max(found, key=lambda cookie: len(cookie.path)).value

    def servers(self) -> bool:
        """Whether the hub says that this student's server is ready."""
        about = requests.get(f"{self.url}/hub/api/users/{self.name}", headers=self.headers).json()
        return about["servers"].get("", {}).get("ready", False)

    def api(self, method: str, path: str, content: dict | None = None):
        """Call the student's server."""
        url = f"{self.url}/user/{self.name}/api/{path}"
        reply = requests.request(method, url, headers=self.headers, json=content)
        assert reply.ok, (method, path, reply.status_code, reply.text[:500])
        return reply.json() if reply.content else None

    def open(self, path: str):
        """Open a notebook: its code cells, and a function that runs one and returns its outputs."""
        cells = self.api("GET", f"contents/{path}")["content"]["cells"]
        about = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
        kernel = self.api("POST", "sessions", about)["kernel"]["id"]
        address = f"{self.url}/user/{self.name}/api/kernels/{kernel}/channels"
        headers = [f"{name}: {value}" for name, value in self.headers.items()]
        channel = websocket.create_connection(
            address.replace("http", "ws", 1), header=headers, timeout=900
        )
        self.channels.append(channel)
        sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        return sources, lambda source: list(execute(channel, source))

    def leave(self) -> None:
        """Close the browser; until then a notebook that is open counts as used."""
        for channel in self.channels:
            channel.close()


def execute(channel, source: str):
    """Run a cell: the messages of its outputs, until the kernel is idle again."""
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": "test"}
    header |= {"username": "test", "version": "5.3"}
    content = {"code": source, "silent": False, "store_history": True, "allow_stdin": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
    channel.send(json.dumps(message | {"channel": "shell", "buffers": []}))
    while True:
        received = channel.recv()
        if isinstance(received, bytes):  # the pictures of a widget
            continue
        reply = json.loads(received)
        if reply["parent_header"].get("msg_id") != header["msg_id"]:
            continue
        if reply["msg_type"] == "status" and reply["content"]["execution_state"] == "idle":
            return
        if reply["channel"] == "iopub":
            yield reply


def shows_picture(outputs) -> bool:
    """Whether a cell has drawn something."""
    return any("image/png" in m["content"].get("data", {}) for m in outputs)


def errors(outputs) -> list[str]:
    """What a cell has raised."""
    return [m["content"]["evalue"] for m in outputs if m["msg_type"] == "error"]


def use_of(name: str) -> dict[str, float]:
    """MB of a student's server and kernels, and seconds of CPU time.

    Memory that processes share is divided between them.
    """
    found = {"server MB": 0.0, "kernels MB": 0.0, "CPU s": 0.0}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("JUPYTERHUB_USER") == name:
                kernel = "ipykernel_launcher" in process.cmdline()
                pss = process.memory_full_info().pss
                found["kernels MB" if kernel else "server MB"] += pss / 2**20
                found["CPU s"] += sum(process.cpu_times()[:2])
    return found
