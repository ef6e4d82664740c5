"""The baselines of the benchmarks do the same work as the kit; the table says what was measured."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import benchmarks
from benchmarks import Row, released
from benchmarks import __main__ as bench
from benchmarks.searching import trained_codes
from derm_hash.data.dataset import LesionDataset
from derm_hash.metrics.scores import paper_scores
from derm_hash.model import DermHash
from derm_hash.retrieval import HashIndex
from derm_hash.settings import TrainConfig
from derm_hash.training import step_losses


def test_the_released_step_has_the_loss_and_the_gradients_of_ours_and_changes_the_weights():
    torch.manual_seed(0)
    # With fixed statistics: in training, five passes and one differ in batch norm alone.
    model = DermHash("resnet10").eval()
    x, y = torch.randn(3, 3, 48, 48), torch.tensor([0, 2, 2])
    theirs = released.step_loss(model, x, y)
    theirs.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    ours = step_losses(model, x, y, TrainConfig.preset("released"))["loss"]
    ours.backward()
    torch.testing.assert_close(ours, theirs)
    for p, expected in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-3, atol=1e-5)
    before = model.hash_layer.weight.clone()
    released.step(model, torch.optim.SGD(model.parameters(), 0.1), x, y)
    assert not torch.equal(before, model.hash_layer.weight)


def gradient(losses, model):
    """All gradients of a step, in one vector."""
    model.zero_grad()
    losses["loss"].backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_a_step_in_bfloat16_has_the_losses_and_the_gradient_of_a_plain_one():
    torch.manual_seed(0)
    model, config = DermHash("resnet10"), TrainConfig.preset("released")
    x, y = torch.randn(8, 3, 48, 48), torch.arange(8) % 4
    losses = step_losses(model, x, y, config)
    plain = gradient(losses, model)
    partial = gradient(step_losses(model, x, y, replace(config, invariance=None)), model)
    with torch.autocast("cpu", torch.bfloat16):
        fast_losses = step_losses(model.to(memory_format=torch.channels_last), x, y, config)
    fast = gradient(fast_losses, model)
    for name, value in losses.items():
        torch.testing.assert_close(fast_losses[name], value, rtol=0.02, atol=0.005)
    # Eight binary digits at each layer leave a cosine of 0.98 (three seeds: 0.977 to 0.981).
    assert torch.cosine_similarity(fast, plain, dim=0) > 0.97
    assert fast.norm() / plain.norm() == pytest.approx(1, abs=0.03)
    assert torch.cosine_similarity(partial, plain, dim=0) < 0.9  # a missing loss shows


@pytest.mark.parametrize("codes", ["spread out", "trained"])
def test_the_released_loops_find_what_the_index_finds(codes):
    if codes == "trained":
        database, labels = trained_codes((60, 90, 50), 0)
        queries, asked = trained_codes((10, 20, 10), 1)
    else:
        rng = np.random.default_rng(0)
        database, queries = rng.random((200, 16), np.float32), rng.random((40, 16), np.float32)
        labels, asked = np.arange(200) % 3, np.arange(40) % 3
    table = released.hash_table(database)
    assert sorted(i for images in table.values() for i in images) == list(range(200))
    index = HashIndex.build(database, labels, range(200))
    hits, scores = index.search(queries), paper_scores(index, queries, asked)
    for q, query in enumerate(queries):
        found = released.search(table, database.astype(float), query.astype(float))
        expected = hits.ids[q][hits.ids[q] >= 0]
        distance = [released.cosine_distance(query.astype(float), database[i]) for i in found]
        np.testing.assert_allclose(distance, hits.distance[q][: len(found)], atol=1e-6)
        if len(set(np.round(distance, 7))) == len(found):  # no ties: the same order, too
            assert found == expected.tolist()
        precision, rank = released.paper_scores(
            table, database.astype(float), labels, query.astype(float), asked[q]
        )
        assert precision == pytest.approx(scores["paper_precision"][q])
        assert rank == pytest.approx(scores["paper_reciprocal_rank"][q])


def test_released_loading_gives_the_pixels_of_the_dataset(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "manifest.csv").write_text("image,label\na.png,NV\n")
    expected = LesionDataset.from_folder(tmp_path, 32, progress=False).images[0].numpy()
    np.testing.assert_array_equal(released.load(tmp_path / "a.png", 32), expected)


# --- the table -----------------------------------------------------------------------------


def rows():
    return [
        Row("a step", "five passes", 3, 3.5),
        Row("memory", "five passes", 0.8, 0.9, at_most=True),
        Row("a step, GPU", "five passes", 6, None, note="no GPU here"),
    ]


def test_the_table_says_what_was_missed_and_what_was_not_measured():
    lines = bench.table(rows()).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")] == ["what", "target", "measured", "met?"]
    met = [line.split("|")[-1].strip() for line in lines[2:5]]
    assert met == ["yes", "MISSED", "not measured (no GPU here)"]
    assert "at least 3 x" in lines[2] and "3.5 x" in lines[2] and "five passes" in lines[2]
    assert "at most 0.8 x" in lines[3]
    assert lines[-1] == "missed: memory"
    assert bench.table(rows()[:1]).endswith("no target was missed")


@pytest.mark.parametrize("record", [False, True])
def test_each_benchmark_is_written_with_the_machine(tmp_path, monkeypatch, capsys, record):
    def fails():
        raise RuntimeError("the reason\nand more")

    monkeypatch.setattr(bench, "ROWS", {"bad": fails, "good": lambda: rows()[1:]})
    monkeypatch.setattr(bench, "LATEST", tmp_path / "build" / "bench")
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["benchmarks", *["--record"][:record]])
    bench.main()
    shown = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in shown[2].split("|")]
    assert cells == ["bad", "-", "-", "not measured (the reason)"]
    (written,) = tmp_path.rglob("good.json")
    assert written.parent == tmp_path / ("results" if record else "build/bench")
    about = json.loads(written.read_text())
    assert [row["met"] for row in about["rows"]] == [False, None]
    assert about.keys() >= {"cpu", "cores", "memory_gb", "torch", "faiss", "numpy", "date"}
    assert about["commit"]
    assert about["threads"]["torch"] == torch.get_num_threads()
    assert (written.parent / "bad.json").exists()


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"json\.tool absent: .*No such file"):
        benchmarks.child("json.tool", "absent")
