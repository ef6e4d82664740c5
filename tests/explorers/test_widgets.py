"""The explorers without a browser: what is on a page, and what a page without a kernel gets."""

import gc
import io
import os
import re
import sys
import threading
from base64 import b64decode
from datetime import UTC, datetime

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from helpers import flat_png
from PIL import Image

from derm_hash.errors import InputError
from derm_hash.explorers import states, widgets
from derm_hash.explorers.widgets import HeatmapExplorer, LossExplorer, RetrievalExplorer
from tests.explorers.common import few, points_of

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def shown(explorer):
    """What a reader sees: every picture and text."""
    return [part.value for part in widgets.parts_of(explorer) if isinstance(part, ipywidgets.HTML)]


def pictures(html):
    """The pictures in HTML, and their alternative texts."""
    found = re.findall(r'<img alt="([^"]*)" src="data:image/jpeg;base64,([^"]*)"', html)
    return {words: Image.open(io.BytesIO(b64decode(data))) for words, data in found}


@pytest.fixture
def explorer(model, index, dataset):
    explorer = RetrievalExplorer(model, index, dataset)
    yield explorer
    explorer.close()


@pytest.fixture
def heatmaps(model, index, dataset):
    explorer = HeatmapExplorer(model, index, dataset)
    yield explorer
    explorer.close()


def assert_each_changes_what_is_shown(explorer, *controls):
    for control, value in controls:
        before = shown(explorer)
        control.value = value
        assert shown(explorer) != before, control.description


def visible(explorer):
    return [cell for cell in explorer.panels[0].cells if cell.layout.display != "none"]


def test_controls_change_what_is_shown(explorer):
    explorer.radius.label = "no limit"
    assert len(visible(explorer)) == 10
    turned = (explorer.angle, 35), (explorer.mirrored, True)
    changes = *turned, (explorer.k, 3), (explorer.radius, 2), (explorer.classes, "BKL")
    assert_each_changes_what_is_shown(explorer, *changes)
    assert explorer.state.k == 3 and explorer.state.radius == 2
    explorer.rank.value = "manhattan"
    assert explorer.state.rank == "manhattan"


def test_the_page_shows_the_view(explorer):
    explorer.radius.label = "no limit"
    view = explorer.state.view()
    for place, (cell, hit) in enumerate(zip(visible(explorer), view.hits, strict=True)):
        assert f"{place + 1}. {hit.label} {hit.mark}" in cell.face.value
        assert ("same lesion" in cell.face.value) == hit.same_lesion
        assert ("dashed" in cell.face.value) == (not hit.right)
        [(words, picture)] = pictures(cell.face.value).items()
        assert words == f"hit {place + 1}: {hit.label}, {hit.name[7:-4]}"
        picture = np.asarray(picture, dtype=int)
        original = explorer.state.database.picture(hit.position).astype(int)
        assert np.abs(picture - original).mean() < 4  # JPEG
    bits = "".join(str(int(bit)) for bit in view.code > 0.5)
    assert f"code {bits}" in explorer.panels[0].strip.value
    assert f"precision@10: {view.precision:.2f}" in explorer.panels[0].summary.value


def test_every_picture_has_an_alternative_text(explorer):
    seen = [value for value in shown(explorer) if "<img" in value]
    assert len(seen) > 20 and all(words for value in seen for words in pictures(value))


def test_hits_can_be_clicked_and_left_again(explorer):
    explorer.radius.label = "no limit"
    first, target = explorer.state.query, explorer.view.hits[4]
    explorer.angle.value = 90
    target = explorer.view.hits[4]
    explorer.panels[0].cells[4].choose.click()
    assert explorer.state.query.name == target.name
    assert explorer.angle.value == 0 and not explorer.back.disabled
    explorer.back.click()
    assert explorer.state.query is first and explorer.back.disabled


def upload(explorer, content, name):
    file = {"name": name, "type": "", "size": len(content), "content": memoryview(content)}
    explorer.file.value = ({**file, "last_modified": datetime.now(UTC)},)


def test_a_picture_is_uploaded_and_another_file_is_refused(explorer):
    before = shown(explorer)
    upload(explorer, b"<script>no</script>", "<b>evil</b>.png")
    assert "not an image" in explorer.message.value and 'role="alert"' in explorer.message.value
    assert "<b>evil" not in explorer.message.value and "Traceback" not in explorer.message.value
    assert explorer.file.value == ()
    explorer.message.value = ""
    assert shown(explorer) == before
    upload(explorer, flat_png(), "<i>good</i>.png")
    assert explorer.message.value == "" and explorer.state.query.origin == "upload"
    assert "class not known" in explorer.caption.value and "<i>" not in explorer.caption.value


def test_an_uploaded_picture_is_never_written(explorer, tmp_path):
    watching, written = [True], []

    def watch(event, arguments):  # a hook stays for good, so it is told when to look
        if watching and event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            written.append(arguments[0])

    sys.addaudithook(watch)
    (tmp_path / "seen").write_text("by the hook")
    upload(explorer, flat_png(), "good.png")
    explorer.angle.value = 30
    watching.clear()
    assert explorer.state.query.origin == "upload"
    assert written == [str(tmp_path / "seen")]


def test_a_thumbnail_or_an_id_chooses_the_query(explorer):
    explorer.thumbnails.cells[6].choose.click()
    assert explorer.state.query.position == 6 and explorer.name.value == short_of(explorer)
    [words] = pictures(explorer.thumbnails.cells[6].face.value)
    assert words.startswith("query 6: ") and explorer.thumbnails.cells[6].choose.tooltip == words
    explorer.name.value = "blob0"
    assert explorer.state.query.name == "images/blob0.png" and explorer.message.value == ""
    explorer.name.value = "nobody"
    assert "no image &#x27;nobody&#x27;" in explorer.message.value
    assert explorer.name.value == "blob0"
    assert all(cell.layout.display != "none" for cell in explorer.thumbnails.cells)
    explorer.classes.value = "NV"
    shown_cells = [c for c in explorer.thumbnails.cells if c.layout.display != "none"]
    assert len(shown_cells) == (explorer.state.queries.table["label"] == "NV").sum()


@pytest.mark.parametrize("kind", [RetrievalExplorer, HeatmapExplorer])
def test_where_an_id_is_not_enough_the_path_is_offered(kind, model, index, foldered):
    explorer = kind(model, index, foldered)
    assert {"images/MEL/002.png", "alone"} <= set(explorer.name.options)
    assert "002" not in explorer.name.options
    for name in ("images/MEL/002.png", "alone", "images/NV/002.png"):
        explorer.name.value = name
        assert explorer.name.value == name == explorer.state.id_of(explorer.state.query.name)
        assert any(name in text for text in shown(explorer)) and explorer.message.value == ""
    hit = explorer.view.hits[0]
    assert any(explorer.state.id_of(hit.name) in text for text in shown(explorer))
    explorer.name.value = "002"
    assert "4 images have the id" in explorer.message.value
    assert explorer.name.value == "images/NV/002.png"
    explorer.close()


def short_of(explorer):
    return states.image_id(explorer.state.query.name)


def saved(html, kind):
    """Name and content of the file that a link in HTML saves."""
    name, data = re.search(
        rf'<a download="([^"]*)" href="data:{kind};base64,([^"]*)"', html
    ).groups()
    return name, b64decode(data)


def test_export_of_one_and_of_two_models(explorer, model, index, dataset):
    explorer.angle.value = 30
    explorer.export.click()
    name, content = saved(explorer.links.value, "image/png")
    one = Image.open(io.BytesIO(content))
    assert name == f"{short_of(explorer)}-30.png" and one.width > 300
    name, content = saved(explorer.links.value, "text/csv")
    table = pd.read_csv(io.BytesIO(content))
    assert table["image"].tolist() == [hit.name for hit in explorer.view.hits]
    explorer.k.value = 3
    assert explorer.links.value == ""  # an older view cannot be taken for this one
    both = RetrievalExplorer(model, index, dataset, other=(model, index), names=("a", "<b>"))
    both.export.click()
    assert Image.open(io.BytesIO(saved(both.links.value, "image/png")[1])).height > one.height * 1.5
    assert "&lt;b&gt;" in both.panels[1].children[0].value
    first, second = (panel.cells[0].face.value for panel in both.panels)
    assert first == second  # one model twice
    both.panels[1].cells[0].choose.click()
    assert both.state.query.origin == "database"
    both.close()


def test_the_picture_of_an_upload_calls_no_hit_right_or_wrong(explorer):
    explorer.radius.label = "no limit"
    upload(explorer, flat_png(), "good.png")
    query, *hits = explorer.figure().axes
    assert query.get_title() == "query: class not known" and len(hits) == 10
    assert not any(mark in ax.get_title() for ax in hits for mark in "✓✗")


def test_an_explorer_that_cannot_be_made_goes_quietly(model, index, dataset, recwarn):
    with pytest.raises(InputError):
        RetrievalExplorer(model, index, dataset, dataset.split("query"))
    gc.collect()
    assert not [w for w in recwarn if "unraisable" in str(w.category).lower()]


def test_what_comes_in_from_another_thread_is_not_lost(explorer):
    """JupyterLab hands messages from the page to several threads of the kernel."""
    begun, go_on, done = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        assert go_on.wait(10)
        done.append("slow")

    first = threading.Thread(target=explorer.act, args=(slow,))
    second = threading.Thread(target=explorer.act, args=(done.append, "quick"))
    first.start()
    assert begun.wait(10)
    second.start()
    second.join(0.2)
    assert done == [] and second.is_alive()
    go_on.set()
    first.join(10)
    second.join(10)
    assert done == ["slow", "quick"]


def test_a_failing_model_is_a_sentence(explorer, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(states, "encode", broken)
    explorer.angle.value = 45
    assert "out of memory" in explorer.message.value
    monkeypatch.undo()
    explorer.angle.value = 50
    assert explorer.message.value == ""


def test_heatmap_controls_change_what_is_shown(heatmaps):
    heatmaps.subject.value = "gate layer2.0"
    moved = (heatmaps.hit, 3), (heatmaps.opacity, 0.2), (heatmaps.angle, 90)
    asked = (heatmaps.classes, "NV"), (heatmaps.subject, "gate layer1.0")
    assert_each_changes_what_is_shown(heatmaps, *moved, *asked)
    assert heatmaps.hit.value == 3 and heatmaps.angle.value == 0
    assert "of the heat is on the lesion" in heatmaps.summary.value
    assert heatmaps.message.value == ""


def test_the_chosen_hit_stays_on_a_short_list(dataset, model):
    explorer = HeatmapExplorer(*few(dataset, model, 5))
    explorer.hit.value = 4
    explorer.name.value = states.image_id(explorer.state.database.table["image"][0])
    assert explorer.message.value == "" and explorer.state.query.origin == "database"
    assert len(explorer.hit.options) == 4 and explorer.hit.value == 3
    assert "hit 4: " in explorer.pictures[2].value
    assert explorer.figure().axes[2].get_title().startswith("hit 4: ")
    explorer.close()


def test_a_database_of_the_query_alone_is_said_to_have_no_hits(dataset, model):
    alone = few(dataset, model, 1)
    retrieval, heat = RetrievalExplorer(*alone), HeatmapExplorer(*alone)
    retrieval.radius.label = "no limit"
    before = [picture.value for picture in heat.pictures]
    for explorer in (retrieval, heat):
        explorer.name.value = states.image_id(explorer.state.database.table["image"][0])
    assert "no hits: the query is the only image" in retrieval.panels[0].summary.value
    assert retrieval.figure().axes[1].texts[0].get_text() == "no hits"
    assert "There are no hits" in heat.message.value
    assert [picture.value for picture in heat.pictures] == before
    assert heat.name.value == short_of(heat)
    retrieval.close()
    heat.close()


def test_loss_controls_change_what_is_shown():
    explorer = LossExplorer()
    moved = (explorer.gamma, 0.3), (explorer.odd, 0.5), (explorer.others, 0.7)
    assert_each_changes_what_is_shown(explorer, *moved, (explorer.kinds[0], False))
    chart = explorer.chart.value
    assert "Cauchy" not in chart and "Gaussian" in chart
    for box in explorer.kinds[1:]:
        box.value = False
    assert "at least one" in explorer.message.value and explorer.kinds[3].value
    explorer.close()


def test_the_chart_of_turns_knows_that_the_query_is_mirrored(heatmaps):
    heatmaps.mirrored.value = True
    followed = heatmaps.view.followed[0]
    assert points_of(heatmaps.chart.value) == {0: followed, 360: followed} and followed < 0.9
    heatmaps.mirrored.value = False
    assert points_of(heatmaps.chart.value) == {0: 1, 360: 1}


def test_a_page_without_a_kernel_gets_a_small_picture(explorer, heatmaps):
    explorer.k.value = 2
    loss = LossExplorer()
    for made in (explorer, heatmaps, loss):
        bundle = made._repr_mimebundle_()
        assert set(bundle) == {WIDGET_VIEW, "image/png", "text/plain"}
        picture = Image.open(io.BytesIO(bundle["image/png"]))
        assert picture.format == "PNG" and picture.width > 300
        assert len(bundle["image/png"]) < 250_000
    loss.close()


def open_widgets():
    return len(ipywidgets.widgets.widget._instances)


def test_closing_leaves_nothing_behind(model, index, dataset):
    before = open_widgets()
    made = [RetrievalExplorer(model, index, dataset), HeatmapExplorer(model, index, dataset)]
    made.append(LossExplorer())
    assert open_widgets() > before + 100
    angle, state = made[0].angle, made[0].state
    for explorer in made:
        explorer.close()
    assert open_widgets() == before
    angle.value = 90  # unlinked: nobody listens
    assert state.angle == 0


def test_running_a_cell_again_closes_what_it_made(monkeypatch):
    class Shell:
        cell, run = "a", 0

        def get_parent(self):
            return {"metadata": {"cellId": self.cell}, "header": {"msg_id": str(self.run)}}

    monkeypatch.setattr(widgets, "get_ipython", lambda: shell)
    monkeypatch.setattr(widgets, "OPEN", {})
    shell = Shell()
    LossExplorer()
    other = LossExplorer()  # in the same run of the same cell: both stay
    assert other.comm is not None
    once = open_widgets()
    for shell.run in range(1, 51):
        last = LossExplorer()
        assert open_widgets() < once
    assert other.comm is None and last.comm is not None
    shell.cell = "b"
    LossExplorer()
    assert last.comm is not None
    ipywidgets.Widget.close_all()
