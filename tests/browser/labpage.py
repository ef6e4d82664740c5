"""JupyterLab or Notebook 7 in a real browser: open a notebook, run it, read what it shows."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import TimeoutError, sync_playwright

from derm_hash.doctor import find_browser

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# Chromium as root, in a container, and without its own conversations with the network.
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
CHROMIUM_FLAGS += ["--disable-background-networking", "--disable-component-update"]
CHROMIUM_FLAGS += ["--disable-sync"]
KERNELSPEC = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
# No questions about news; and every cell is in the page, not only those in sight.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},
}


@dataclass
class Server:
    """A running JupyterLab or Notebook 7 that serves `folder`; `tree`: where it has notebooks."""

    url: str
    token: str
    folder: Path
    tree: str = "lab/tree"

    def request(self, path, method="GET"):
        """The decoded answer of the server's REST interface."""
        request = urllib.request.Request(f"{self.url}/{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or "null")

    def shut_kernels_down(self):
        for session in self.request("api/sessions"):
            self.request(f"api/sessions/{session['id']}", method="DELETE")


@contextmanager
def jupyterlab(folder, home, app="jupyterlab"):
    """A JupyterLab of this Python that serves `folder`, with its settings and files in `home`.

    app: "jupyterlab", or "notebook" for Notebook 7.
    """
    write_settings(home / "settings")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}", os.urandom(16).hex(), folder)
    if app == "notebook":
        server.tree = "notebooks"
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": folder,
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "LabApp.expose_app_in_browser": True,
        "JupyterNotebookApp.expose_app_in_browser": True,
    }
    folders = {f"JUPYTER_{name}_DIR": name.lower() for name in ("CONFIG", "DATA", "RUNTIME")}
    folders |= {f"JUPYTERLAB_{name}_DIR": name.lower() for name in ("SETTINGS", "WORKSPACES")}
    environment = os.environ | {name: str(home / folder) for name, folder in folders.items()}
    environment |= {"JUPYTER_TOKEN": server.token, "JUPYTER_PREFER_ENV_PATH": "1"}
    environment.pop("MPLBACKEND", None)  # the kernels choose the notebook's own
    command = [sys.executable, "-m", app, *(f"--{k}={v}" for k, v in options.items())]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_until_it_answers(server, process, home / "server.log")
        yield server
        server.shut_kernels_down()
    finally:
        process.terminate()
        process.wait(timeout=30)


def write_settings(folder):
    for name, values in SETTINGS.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


def wait_until_it_answers(server, process, log, seconds=90):
    for _ in range(seconds * 5):
        try:
            return server.request("api/status")
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None:
                break
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")


def copy_course(notebooks, folder):
    """Copy a folder of notebooks without their saved outputs: what a test sees then is new."""
    shutil.copytree(notebooks, folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    for path in folder.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)


def change(path, old, new):
    """Give a notebook another value of a parameter: the same cells, with less to compute."""
    text = path.read_text("utf-8")
    assert text.count(old) == 1, f"{path.name} has no {old!r}"
    path.write_text(text.replace(old, new), "utf-8")


def write_notebook(server, name, *sources):
    """Save a notebook of these cells where the server finds it."""
    cells = [new_code_cell(source.strip()) for source in sources]
    nbformat.write(new_notebook(cells=cells, metadata=KERNELSPEC), server.folder / name)
    return name


@contextmanager
def page_of(cells, width, height):
    """A browser page with a notebook of these cells, opened and run in a JupyterLab of its own."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        home = Path(name)
        (home / "notebooks").mkdir()
        with jupyterlab(home / "notebooks", home) as server:
            browser = playwright.chromium.launch(
                executable_path=find_browser(),
                args=CHROMIUM_FLAGS,
                ignore_default_args=["--hide-scrollbars"],
            )
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(120_000)
            open_and_run(page, server, write_notebook(server, "page.ipynb", *cells))
            yield page
            browser.close()


# In the page: the cells as the notebook's model holds them, and whether the run is over.
CELLS = """() => {
    const panel = window.jupyterapp.shell.currentWidget;
    return panel.content.model.toJSON().cells.filter(
        cell => cell.cell_type === 'code' && [cell.source].flat().join('').trim());
}"""
OPENED = """name => {
    const panel = window.jupyterapp?.shell.currentWidget;
    return panel?.context?.path === name && panel.context.isReady && panel.sessionContext.isReady
        && panel.sessionContext.session?.kernel?.status === 'idle';
}"""
FINISHED = """() => {
    const panel = window.jupyterapp.shell.currentWidget;
    if (panel.sessionContext.session.kernel.status !== 'idle') return false;
    const cells = panel.content.model.toJSON().cells.filter(
        cell => cell.cell_type === 'code' && [cell.source].flat().join('').trim());
    const stopped = cells.some(cell => cell.outputs.some(o => o.output_type === 'error'));
    return stopped || cells.every(cell => cell.execution_count !== null);
}"""


def open_and_run(page, server, name, seconds=1200):
    """Open a notebook, choose Run All Cells, wait for the end, and take a screenshot.

    Returns its non-empty code cells as nbformat dictionaries, with the outputs of this run.
    """
    start_run(page, server, name)
    try:
        page.wait_for_function(FINISHED, timeout=seconds * 1000, polling=200)
    except TimeoutError:
        screenshot(page, name)
        current = next(c for c in page.evaluate(CELLS) if c["execution_count"] is None)
        source = "".join(current["source"])
        raise AssertionError(f"{name}: after {seconds} s still in the cell\n{source}") from None
    wait_for_widgets(page)
    screenshot(page, name)
    return page.evaluate(CELLS)


def start_run(page, server, name):
    """Open a notebook and choose Run All Cells."""
    page.goto(f"{server.url}/{server.tree}/{name}?token={server.token}&reset")
    page.wait_for_function(OPENED, arg=name)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def wait_for_widgets(page, seconds=60):
    """Wait until the page has drawn its widgets and the kernel has answered all of them."""
    page.get_by_text("Loading widget...").first.wait_for(state="detached", timeout=seconds * 1000)
    page.wait_for_timeout(500)  # a message to the kernel is on its way for a moment
    page.wait_for_function(FINISHED, timeout=seconds * 1000)


def screenshot(page, name):
    """Save a picture of the whole notebook in build/screenshots/."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    size = page.viewport_size
    height = page.evaluate(
        "() => document.querySelector('.jp-NotebookPanel .jp-WindowedPanel-outer').scrollHeight"
    )
    page.set_viewport_size({"width": size["width"], "height": min(height + 200, 10_000)})
    page.wait_for_timeout(300)
    page.screenshot(path=SCREENSHOTS / f"{Path(name).stem}.png", timeout=120_000)
    page.set_viewport_size(size)


def errors_shown(page, cells):
    """What went wrong, in words: errors of cells, in output widgets, and broken widgets."""
    found = [
        f"{output['ename']}: {output['evalue']} in the cell\n{''.join(cell['source'])}"
        for cell in cells
        for output in cell["outputs"]
        if output["output_type"] == "error"
    ]
    inside = page.locator(".jupyter-widgets [data-mime-type='application/vnd.jupyter.error']")
    found += [f"in a widget: {text}" for text in inside.all_inner_texts()]
    for text in ("Error displaying widget", "Error creating widget", "Loading widget..."):
        found += [text] * page.get_by_text(text).count()
    return found


def widget_outputs(cells):
    """The outputs that are widgets, without progress bars: those may go away at their end."""
    outputs = [output for cell in cells for output in cell["outputs"]]
    views = [output["data"] for output in outputs if WIDGET_VIEW in output.get("data", {})]
    return [data for data in views if "%|" not in "".join(data.get("text/plain", ""))]


def widgets_drawn(page):
    """How many outputs of cells show a widget in the page, again without progress bars."""
    output = ".jp-Cell-outputArea > .jp-OutputArea-child > .jp-OutputArea-output"
    ordinary = f"{output} > .jupyter-widgets:not(:has(> .widget-hprogress))"
    return page.locator(f"{ordinary}, {output} .dh").count()
