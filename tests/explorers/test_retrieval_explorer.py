"""The kernel's side of the retrieval explorer: its answers to the page, and its still picture."""

import io
import os
import sys
import threading

import numpy as np
import pytest
from helpers import flat_png
from ipywidgets.widgets import widget
from PIL import Image
from traitlets import TraitError

from derm_hash.errors import InputError
from derm_hash.explorers import (
    Guess,
    HeatmapExplorer,
    LossExplorer,
    RetrievalExplorer,
    retrieval,
    still,
)
from derm_hash.explorers.asking import ORIENTATIONS, QUARTERS, orbit
from derm_hash.model import encode
from tests.explorers.common import ask, few

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def codes_of(buffers, bits=12):
    return [np.frombuffer(each, np.float32).reshape(-1, bits) for each in buffers]


def test_a_query_comes_unturned_then_with_its_quarter_turns_and_all_others(explorer, sent, model):
    ask(explorer, "ask", origin="query", position=3)
    content, (shown, seen, codes) = sent.pop()
    assert content["kind"] == "query" and content["known"] == QUARTERS[:1]
    assert content["rest"][:7] == QUARTERS[1:]
    assert content["about"]["position"] == 3 and explorer.query.position == 3
    assert Image.open(io.BytesIO(shown)).size == Image.open(io.BytesIO(seen)).size == (32, 32)
    found = {0: codes_of([codes])[0][0]}
    while content["rest"]:
        ask(explorer, "more", serial=content["serial"], rest=content["rest"])
        content, buffers = sent.pop()
        found |= dict(zip(content["known"], codes_of(buffers)[0], strict=True))
    expected = encode(model, orbit(explorer.query.image, ORIENTATIONS))
    np.testing.assert_allclose([found[o] for o in ORIENTATIONS], expected, atol=1e-5)


def test_what_belongs_to_an_older_query_is_not_computed(explorer, sent):
    ask(explorer, "ask", origin="start")
    first = sent.pop()[0]
    assert first["known"] == QUARTERS  # the page may begin with a lesion that is turned
    ask(explorer, "ask", origin="database", position=2)
    sent.clear()
    ask(explorer, "more", serial=first["serial"], rest=[1, 2])
    assert sent == []


def test_two_models_answer_together(model, index, dataset, sent):
    both = RetrievalExplorer(model, index, dataset, other=(model, index), names=("a", "<b>"))
    assert [each["name"] for each in both.about["models"]] == ["a", "<b>"]
    ask(both, "ask", origin="start")
    first, second = codes_of(sent.pop()[1][2:])
    np.testing.assert_array_equal(first, second)
    both.close()


def test_an_error_is_a_sentence_and_the_query_stays(explorer, sent, monkeypatch):
    before = explorer.query
    ask(explorer, "upload", [b"<script>no</script>"], name="<b>evil</b>.png")
    assert "<b>evil</b>.png is not an image" in sent.pop()[0]["text"]
    ask(explorer, "ask", origin="id", id="nobody")
    assert "no image 'nobody'" in sent.pop()[0]["text"]

    def broken(*args):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(retrieval, "encode", broken)
    ask(explorer, "ask", origin="query", position=1)
    assert sent.pop()[0] == {"kind": "error", "text": "out of memory"}
    assert explorer.query is before


def test_an_uploaded_picture_is_asked_about_and_never_written(explorer, sent, tmp_path):
    watching, written = [True], []

    def watch(event, arguments):  # a hook stays for good, so it is told when to look
        if watching and event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            written.append(arguments[0])

    sys.addaudithook(watch)
    (tmp_path / "seen").write_text("by the hook")
    ask(explorer, "upload", [flat_png()], name="good.png")
    watching.clear()
    assert sent.pop()[0]["about"]["origin"] == explorer.query.origin == "upload"
    assert written == [str(tmp_path / "seen")]


def test_small_pictures_come_when_they_are_asked_for(explorer, sent, dataset):
    ask(explorer, "thumbs", origin="database", positions=[4, 2])
    content, pictures = sent.pop()
    assert content["positions"] == [4, 2]
    picture = np.asarray(Image.open(io.BytesIO(pictures[1])), dtype=float)
    assert np.abs(picture - dataset.split("database").picture(2)).mean() < 8


def test_what_is_set_on_the_page_is_checked(model, index, dataset):
    for wrong in ({"k": 0}, {"k": 21}, {"radius": -1}, {"rank": "nearest"}):
        with pytest.raises(TraitError):
            RetrievalExplorer(model, index, dataset, **wrong)
    with pytest.raises(InputError):
        RetrievalExplorer(model, index, dataset, query="nobody")


def test_what_comes_in_from_another_thread_waits(explorer, sent):
    """JupyterLab hands messages from the page to several threads of the kernel."""
    with explorer._turn:
        other = threading.Thread(target=ask, args=(explorer, "ask"), kwargs={"origin": "start"})
        other.start()
        other.join(0.2)
        assert other.is_alive() and sent == []
    other.join(10)
    assert len(sent) == 1


def test_the_page_is_told_how_familiar_a_query_is(explorer, sent):
    ask(explorer, "familiar", serial=1)
    told = sent.pop()[0]["familiar"]
    assert told["distance"] > 0 and told["limit"] > 0


# --- without a page --------------------------------------------------------------------------


def test_a_page_without_a_kernel_gets_a_small_picture(model, index, dataset, heat):
    turned = RetrievalExplorer(model, index, dataset, angle=90, radius=None, k=3)
    assert turned.figures()[0].get_suptitle() == "turned by 90°"
    made = [turned, heat, LossExplorer(), Guess("How many?", high=16)]
    for each in made:
        data, metadata = each._repr_mimebundle_()
        assert set(data) == {WIDGET_VIEW, "image/png", "text/plain"}
        picture = Image.open(io.BytesIO(data["image/png"]))
        assert picture.format == "PNG" and picture.width > 300
        assert len(data["image/png"]) < 250_000
    assert metadata["image/png"]["alt"] == "Guess (run the cell to use it). How many?"  # the last
    turned.close()


def test_a_database_of_the_query_alone_has_no_hits(dataset, model):
    alone = RetrievalExplorer(*few(dataset, model, 1), radius=None)
    alone.query = alone.library.get("database", 0)
    assert alone.figures()[0].axes[1].texts[0].get_text() == "no hits"
    alone.close()


def test_closing_leaves_nothing_behind(model, index, dataset):
    before = len(widget._instances)
    for made in (RetrievalExplorer(model, index, dataset), HeatmapExplorer(model, index, dataset)):
        made.close()
        made.layout.close()
    assert len(widget._instances) == before


def test_running_a_cell_again_closes_what_it_made(monkeypatch):
    class Shell:
        cell, run = "a", 0

        def get_parent(self):
            return {"metadata": {"cellId": self.cell}, "header": {"msg_id": str(self.run)}}

    shell = Shell()
    monkeypatch.setattr(still, "get_ipython", lambda: shell)
    monkeypatch.setattr(still, "OPEN", {})
    LossExplorer()
    other = LossExplorer()  # in the same run of the same cell: both stay
    assert other.comm is not None
    for shell.run in range(1, 5):
        last = LossExplorer()
    assert other.comm is None and last.comm is not None
    shell.cell = "b"
    LossExplorer()
    assert last.comm is not None


def test_another_view_of_the_page_does_not_show_the_first_query_after_an_upload(explorer):
    assert [content["kind"] for content, _ in explorer.start] == ["thumbs", "thumbs", "query"]
    ask(explorer, "upload", [flat_png()], name="mine.png")
    assert explorer.query.origin == "upload" and explorer.start == []
