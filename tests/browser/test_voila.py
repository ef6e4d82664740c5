"""``make app``: a real Voilà serves the retrieval explorer, and visitors can run no code."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from explorerpage import ExplorerPage
from helpers import flat_png, free_port
from labpage import ROOT, SCREENSHOTS
from PIL import Image
from playwright.sync_api import expect

from derm_hash import DermHash, LesionDataset, make_atlas, save_model
from derm_hash.data.manifest import write_manifest

pytest.importorskip("voila", reason="Voilà is not installed: `make setup` installs it")
pytestmark = [pytest.mark.slow, pytest.mark.browser]

# In the page: ask its kernel to run code, then to describe itself, and wait for the second answer.
RUN_CODE = """code => new Promise((done, failed) => {
    const config = JSON.parse(document.getElementById('jupyter-config-data').textContent);
    const socket = new WebSocket(
        `ws://${location.host}/api/kernels/${config.kernelId}/channels?session_id=visitor`);
    const send = (msg_type, content) => socket.send(JSON.stringify({
        channel: 'shell', content, metadata: {}, parent_header: {}, buffers: [],
        header: {msg_id: msg_type, msg_type, session: 'visitor', username: '', version: '5.3'},
    }));
    socket.onopen = () => {
        send('execute_request', {code, silent: false});
        send('kernel_info_request', {});
    };
    socket.onmessage = event => {
        const message = JSON.parse(event.data);
        if (message.msg_type === 'kernel_info_reply') done(true);
    };
    socket.onerror = failed;
})"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A small data folder and a run with a model that has not been trained."""
    folder = tmp_path_factory.mktemp("served")
    dataset = LesionDataset.from_atlas(make_atlas(60, 48, progress=False))
    (folder / "data" / "images").mkdir(parents=True)
    for i, name in enumerate(dataset.table["image"]):
        Image.fromarray(dataset.picture(i)).save(folder / "data" / name)
    write_manifest(dataset.table.assign(mask=""), folder / "data")
    torch.manual_seed(0)
    model = DermHash("resnet8")
    model.class_names, model.image_size = dataset.classes, 48
    (folder / "run").mkdir()
    save_model(model, folder / "run" / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def app(browser, served):
    """The address of a running app, whose home and folder for temporary files are its own."""
    port = free_port()
    for name in ("home", "temporary"):
        (served / name).mkdir()
    environment = os.environ | {
        "HOME": str(served / "home"),
        "TMPDIR": str(served / "temporary"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "derm_hash.app", "--no-browser", "--port", str(port)]
    command += ["--data", str(served / "data"), "--run", str(served / "run")]
    with (served / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=served)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def visit(browser, app, served):
    """A visitor's page."""
    address, process = app
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(120_000)
    page = context.new_page()
    for _ in range(240):
        try:
            page.goto(address)
            break
        except Exception:  # noqa: BLE001 - not listening yet
            assert process.poll() is None, (served / "log").read_text()
            page.wait_for_timeout(500)
    expect(ExplorerPage(page).hits).not_to_have_count(0, timeout=120_000)
    yield page
    context.close()


def test_a_visitor_asks_turns_and_uploads(visit):
    explorer = ExplorerPage(visit)
    explorer.root.locator(".dh-thumbs button").nth(2).click()
    explorer.drag(0, 45)
    expect(explorer.degrees).to_have_text("45°")
    explorer.upload("notes.txt", b"no image")
    expect(explorer.alert).to_contain_text("notes.txt is not an image")
    explorer.upload("big.png", b"x" * 10_000_001)
    expect(explorer.alert).to_contain_text("big.png has more than the 10 MB")
    explorer.upload("largest.png", b"x" * 10_000_000)
    expect(explorer.alert).to_contain_text("largest.png is not an image")
    explorer.upload("mine.png", flat_png())
    expect(explorer.query).to_contain_text("mine, uploaded")
    assert explorer.save("save the hits as a table")[0].startswith(b"model,query,")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    visit.screenshot(path=SCREENSHOTS / "app.png")
    assert explorer.faults() == []


def test_a_visitor_cannot_run_code(visit, served):
    # Voilà reads binary messages to a socket of the older protocol, such as RUN_CODE's, in a loop
    # without end: wait until the kernel has sent the codes of all angles.
    explorer, known = ExplorerPage(visit), "root => root.explorer.query.known.every(Boolean)"
    for _ in range(240):
        if explorer.root.evaluate(known):
            break
        visit.wait_for_timeout(500)
    assert explorer.root.evaluate(known)
    mark = served / "mark"
    assert visit.evaluate(RUN_CODE, f"open({str(mark)!r}, 'w')")
    assert not mark.exists()
    assert "load_model" not in visit.content()  # nor see any


@pytest.mark.parametrize("path", ["model.safetensors", "served.json", "retrieval.ipynb"])
def test_files_are_not_served(app, visit, path):
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{app[0]}/voila/files/{path}", timeout=60)


def test_nothing_is_left_behind(app, visit, served):
    """The last test: it ends the app."""
    visit.close()
    app[1].terminate()
    app[1].wait(timeout=60)
    assert [*(served / "home").iterdir()] == []
    assert [*(served / "temporary").iterdir()] == []
    assert {p.name for p in served.iterdir()} == {"data", "run", "home", "temporary", "log"}
    assert {p.suffix for p in (served / "data").rglob("*") if Path(p).is_file()} == {".png", ".csv"}
