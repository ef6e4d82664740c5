"""A JupyterHub for the course; README.md beside this file says how to prepare and start it.

What a lecturer sets stands in the first lines: as an environment variable, or here.
"""

import contextlib
import os
import shutil
import sys
from pathlib import Path

c = get_config()  # noqa: F821 (JupyterHub defines it)

HERE = Path(__file__).resolve().parent
SHARED = HERE.parent  # the students' kit, with cache/ and hand-in/; `make hub` has written it
MEMORY = os.environ.get("HUB_MEMORY", "3G")  # of a student, and of each process
CORES = float(os.environ.get("HUB_CORES", "1"))  # of a student
IDLE = int(os.environ.get("HUB_IDLE", "1800"))  # seconds until idle kernels and servers are ended
LECTURERS = set(os.environ.get("HUB_LECTURERS", "").split())  # may see and stop all servers
ADDRESS = os.environ.get("HUB_ADDRESS", "http://:8000")
DATA = Path(os.environ.get("HUB_DATA", "/var/lib/jupyterhub"))  # the hub's own files
SYSTEMD = Path("/run/systemd/system").is_dir()

# Who may come: everybody with an account on this machine (PAM). For others, see README.md.
c.Authenticator.allow_all = True
c.Authenticator.admin_users = LECTURERS
c.JupyterHub.bind_url = ADDRESS
c.JupyterHub.db_url = f"sqlite:///{DATA / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(DATA / "cookie_secret")
c.ConfigurableHTTPProxy.pid_file = str(DATA / "proxy.pid")
c.ConfigurableHTTPProxy.command = [str(HERE / "node_modules/.bin/configurable-http-proxy")]

# What a student may take. systemd holds all processes of a student together, and start.py each
# one, so that a cell that asks for too much gets a MemoryError and its kernel lives.
c.JupyterHub.spawner_class = "systemdspawner.SystemdSpawner" if SYSTEMD else "local-process"
c.Spawner.mem_limit = MEMORY
c.Spawner.cpu_limit = CORES
c.Spawner.start_timeout = c.Spawner.http_timeout = 300
c.JupyterHub.concurrent_spawn_limit = 10  # a class comes all at once

# What a student gets: start.py hands the course out and starts Jupyter.
c.Spawner.cmd = [sys.executable, str(HERE / "start.py")]
c.Spawner.args = [f"--MappingKernelManager.cull_idle_timeout={IDLE}"]
c.Spawner.default_url = "/lab/tree/derm-hash/course/00_start_here.ipynb"
c.Spawner.environment = {
    "OMP_NUM_THREADS": str(max(1, int(CORES))),  # or PyTorch starts a thread for each core
}

# Idle servers are ended, and their memory is free again.
c.JupyterHub.services = [
    {
        "name": "idle-culler",
        "command": [sys.executable, "-m", "jupyterhub_idle_culler", f"--timeout={IDLE}"],
    }
]
scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
c.JupyterHub.load_roles = [
    {"name": "idle-culler", "scopes": scopes, "services": ["idle-culler"]},
]


def letter_box(spawner) -> None:
    """Make the student's folder in hand-in/, which no other student can open."""
    box = SHARED / "hand-in" / spawner.user.name
    box.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(LookupError):  # a user without an account, as in `make hub-test`
        shutil.chown(box, spawner.user.name)


c.Spawner.pre_spawn_hook = letter_box
