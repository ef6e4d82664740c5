"""``make app``: the retrieval explorer as a page without code, for a lecture or a demonstration.

Voilà serves the notebook ``notebooks/app/retrieval.ipynb`` on 127.0.0.1, each visitor with a
kernel of their own. A page can send messages of widgets and nothing else, so that visitors cannot
run code. What the server and the kernels write goes to a temporary folder that is removed in the
end; an uploaded picture is never written at all.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from derm_hash.course import SIZE, course_data, course_run
from derm_hash.data import LesionDataset
from derm_hash.errors import InputError
from derm_hash.model import DermHash, load_model, save_model
from derm_hash.retrieval import build_index

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "app" / "retrieval.ipynb"
MOST_MESSAGE = 16_000_000  # bytes from a page at once: more ends its connection
IDLE = 1800  # seconds after which the kernel of a page that has gone is ended


def main(argv: list[str] | None = None) -> int:
    """Prepare what is served, then serve it until the process is stopped."""
    parser = argparse.ArgumentParser(prog="python -m derm_hash.app", description=__doc__)
    parser.add_argument("--data", default="atlas", help="a folder with manifest.csv; or atlas")
    parser.add_argument("--run", metavar="DIR", help="a trained run; by default the lesson's")
    parser.add_argument("--port", type=int, default=8866)
    parser.add_argument("--no-browser", action="store_true", help="do not open a page")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder is removed
    try:
        with tempfile.TemporaryDirectory(prefix="derm-hash-app-") as name:
            prepare(Path(name), options.data, options.run)
            return serve(Path(name), options.port, not options.no_browser)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


def prepare(folder: Path, data: str, run: str | None) -> None:
    """Put the notebook, the model and its index into ``folder / "page"``."""
    if find_spec("voila") is None:
        raise InputError("Voilà is not installed: run `make setup`, or `pip install voila`.")
    page = folder / "page"
    page.mkdir()
    model, dataset = _model_and_data(data, run)
    save_model(model, page / "model.safetensors")
    build_index(model, dataset.split("database"), progress=True).save(page / "index.safetensors")
    source = data if data == "atlas" else str(Path(data).expanduser().resolve())
    (page / "served.json").write_text(json.dumps({"data": source, "size": dataset.size}))
    shutil.copy(NOTEBOOK, page)


def _model_and_data(data: str, run: str | None) -> tuple[DermHash, LesionDataset]:
    """The model of a run with the data at its size, or the lesson's model for the data."""
    if run is None:
        dataset = course_data(data)
        return course_run(dataset).model, dataset
    model = load_model(run)
    return model, course_data(data, model.image_size or SIZE)


def serve(folder: Path, port: int, open_browser: bool) -> int:
    """Run Voilà on ``folder / "page"``; returns its exit status."""
    options = {
        "Voila.ip": "127.0.0.1",
        "Voila.port": port,
        "Voila.port_retries": 0,
        "Voila.open_browser": open_browser,
        "Voila.tornado_settings": json.dumps({"websocket_max_message_size": MOST_MESSAGE}),
        "VoilaConfiguration.file_allowlist": "[]",
        "VoilaConfiguration.allow_template_override": "NO",
        "VoilaConfiguration.allow_theme_override": "NO",
        "VoilaConfiguration.show_tracebacks": False,
        "VoilaConfiguration.extension_allowlist": '["@jupyter-widgets/jupyterlab-manager"]',
        "MappingKernelManager.cull_idle_timeout": IDLE,
        "MappingKernelManager.cull_interval": 60,
    }
    command = [sys.executable, "-m", "voila", str(folder / "page" / NOTEBOOK.name)]
    command += [f"--{name}={value}" for name, value in options.items()]
    print(f"the retrieval explorer: http://127.0.0.1:{port} (stop with Ctrl+C)", flush=True)
    server = subprocess.Popen(command, env=_environment(folder))
    try:
        return server.wait()
    finally:
        server.terminate()
        server.wait()


def _environment(folder: Path) -> dict[str, str]:
    """Where server and kernels write: inside ``folder`` alone."""
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    folders = {name: folder / name.lower() for name in (*names, "MPLCONFIGDIR", "TMPDIR")}
    for path in folders.values():
        path.mkdir()
    own = {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment = os.environ | {name: str(path) for name, path in folders.items()} | own
    environment.pop("MPLBACKEND", None)
    return environment


if __name__ == "__main__":
    sys.exit(main())
