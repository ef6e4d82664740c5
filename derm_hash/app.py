"""`make app`: the retrieval explorer as a page without code, for a lecture or a demonstration.

Voilà serves the notebook notebooks/app/retrieval.ipynb on 127.0.0.1. Each visitor has a kernel
of their own, to which a page can only send messages of widgets, so that visitors cannot run code.
The server and the kernels write to a temporary folder that is removed at the end; an uploaded
picture is never written at all.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from derm_hash.errors import InputError, exit_code, one_line

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "app" / "retrieval.ipynb"
PORT = 8866
FOLDERS = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
FOLDERS += ("IPYTHONDIR", "MPLCONFIGDIR")
IDLE = 1800  # seconds after which the kernel of a closed page is stopped


def main(argv: list[str] | None = None) -> int:
    """Prepare the page, then serve it until the process is stopped."""
    return exit_code("make app", lambda: run(argv), "stopped")


def run(argv: list[str] | None) -> int:
    """Prepare and serve the page as the options say; return 0 after Ctrl-C, the usual end."""
    parser = argparse.ArgumentParser(prog="python -m derm_hash.app", description=__doc__)
    parser.add_argument("--data", default="atlas", help="a folder with manifest.csv; or atlas")
    parser.add_argument("--run", metavar="DIR", help="folder of a run (default: the lesson's)")
    parser.add_argument("--port", type=int, default=PORT, help="port of 127.0.0.1 (%(default)s)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a page")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder is removed
    check_port(options.port)
    try:
        with tempfile.TemporaryDirectory(prefix="derm-hash-app-") as name:
            os.environ.update(own_folders(Path(name), (*FOLDERS, "TMPDIR")))
            os.environ.update(JUPYTER_PREFER_ENV_PATH="1", PYTHONDONTWRITEBYTECODE="1")
            prepare(Path(name) / "page", options.data, options.run)
            return serve(Path(name) / "page", options.port, not options.no_browser)
    except KeyboardInterrupt:
        return 0


def check_port(port: int) -> None:
    """Raise InputError if nothing can be served at a port of 127.0.0.1."""
    try:
        with socket.socket() as trial:
            if os.name == "posix":  # as servers do: a port is free as soon as its server ends
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        other = port + 1 if 1024 <= port < 65535 else PORT
        raise InputError(
            f"the port {port} cannot be used ({one_line(error)}): choose another, such as "
            f'`make app ARGS="--port {other}"`'
        ) from error


def own_folders(folder: Path, names: Iterable[str] = FOLDERS) -> dict[str, str]:
    """Make folders for what Jupyter, IPython and matplotlib write; return variable -> folder."""
    folders = {name: folder / name.lower() for name in names}
    for path in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    return {name: str(path) for name, path in folders.items()}


def prepare(page: Path, data: str, run: str | None) -> None:
    """Make the folder that is served, with the notebook, the model and its index."""
    # Imported now, after `own_folders` has said where some of them may write caches.
    from derm_hash.course import SIZE, course_data, course_pair
    from derm_hash.retrieval import build_index
    from derm_hash.runs import load_model, save_model

    if find_spec("voila") is None:
        raise InputError("Voilà is not installed: run `make setup`, or `pip install voila`")
    page.mkdir(exist_ok=True)
    if run is None:
        dataset = course_data(data)
        model, _ = course_pair(dataset)
    else:
        model = load_model(run)
        dataset = course_data(data, model.image_size or SIZE)
    save_model(model, page / "model.safetensors")
    build_index(model, dataset.split("database"), progress=True).save(page / "index.safetensors")
    source = data if data == "atlas" else str(Path(data).expanduser().resolve())
    (page / "served.json").write_text(json.dumps({"data": source, "size": dataset.size}))
    shutil.copy(NOTEBOOK, page)


def serve(page: Path, port: int, open_browser: bool) -> int:
    """Run Voilà on the notebook in ``page`` until it ends; return its exit status."""
    settings = {
        "Voila": {"ip": "127.0.0.1", "port": port, "port_retries": 0, "open_browser": open_browser},
        "VoilaConfiguration": {
            "file_allowlist": [],
            "allow_template_override": "NO",
            "allow_theme_override": "NO",
            "show_tracebacks": False,
        },
        "MappingKernelManager": {"cull_idle_timeout": IDLE, "cull_interval": 60},
    }
    Path(os.environ["JUPYTER_CONFIG_DIR"], "voila.json").write_text(json.dumps(settings))
    print(f"the retrieval explorer: http://127.0.0.1:{port} (stop with Ctrl+C)", flush=True)
    server = subprocess.Popen([sys.executable, "-m", "voila", str(page / NOTEBOOK.name)])
    try:
        return server.wait()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
