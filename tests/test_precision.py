"""The precision that "auto" stands for: chosen once, kept by the run, and good enough."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import (
    Pocket,
    Stop,
    assert_same_run,
    network_input,
    one_sentence,
    tiny,
    train_quietly,
)

from derm_hash import model as network
from derm_hash import precision
from derm_hash.atlas.atlas import make_atlas
from derm_hash.data.dataset import LesionDataset
from derm_hash.metrics.scores import evaluate_retrieval
from derm_hash.model import DermHash, OrbitMean, encode
from derm_hash.precision import best_precision, fastest_precision, step_seconds
from derm_hash.retrieval import build_index
from derm_hash.runs import Run, settled

pytestmark = pytest.mark.usefixtures("one_thread")
NETWORK = ("cpu", "pocket", Pocket, 64, 32)  # a device, a name, a network, images, pixels


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder, not yet made."""
    monkeypatch.setenv("DERM_HASH_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "bfloat16.json"


@pytest.fixture
def timed(monkeypatch):
    """A processor with bfloat16 units, on which a step takes these seconds in 32 bits and in
    bfloat16; the arguments of all measurements."""
    asked = []

    def set_times(exact, fast):
        monkeypatch.setattr(precision, "computes_in_bf16", lambda device: True)
        monkeypatch.setattr(
            precision, "step_seconds", lambda *given: asked.append(given) or (exact, fast)
        )
        return asked

    return set_times


def test_a_processor_without_bfloat16_units_is_not_measured(cache, monkeypatch, capsys):
    monkeypatch.setattr(precision, "computes_in_bf16", lambda device: False)
    monkeypatch.setattr(precision, "step_seconds", None)
    assert fastest_precision(*NETWORK) == "32-true"
    assert not cache.exists() and capsys.readouterr().out == ""


def test_the_units_are_those_that_the_processor_names(monkeypatch):
    for names, there in (({"avx512_bf16"}, True), ({"amx_bf16"}, True), ({"avx512_f"}, False)):
        able = dict.fromkeys(("avx512_bf16", "amx_bf16", "avx512_f"), False)
        monkeypatch.setattr(precision, "cpu", lambda able=able, n=names: able | dict.fromkeys(n, 1))
        assert precision.computes_in_bf16("cpu") == there


def test_the_faster_precision_is_measured_once_for_each_network_and_size(cache, timed, capsys):
    asked = timed(2.1, 1.0)
    assert [fastest_precision(*NETWORK) for _ in range(3)] == ["bf16-mixed"] * 3
    said = capsys.readouterr().out
    assert said.startswith("bfloat16: 2.1 x as fast here") and said.count("\n") == 1
    assert asked == [(Pocket, 64, 32)]
    [(key, ratio)] = json.loads(cache.read_text()).items()
    assert "pocket, 32 px" in key and ratio == 2.1
    assert key.startswith(precision.cpu().get("cpu_name", ""))
    timed(1.1, 1.0)  # not worth the lost digits
    assert fastest_precision(*NETWORK[:4], 224) == "32-true"
    assert "1.1 x as fast here, so training stays in 32 bits" in capsys.readouterr().out
    assert asked[1] == (Pocket, 8, 224)  # of the step's 64 images, so that it takes two seconds
    assert fastest_precision(*NETWORK) == "bf16-mixed"
    assert len(json.loads(cache.read_text())) == 2


def test_a_cache_that_cannot_be_written_does_not_matter(cache, timed):
    timed(2.1, 1.0)
    cache.parent.write_text("a file where the folder should be")
    assert fastest_precision(*NETWORK) == "bf16-mixed"


def test_a_damaged_cache_is_named(cache, timed):
    timed(2.1, 1.0)
    cache.parent.mkdir()
    cache.write_text("[")
    with one_sentence(cache, "is damaged", "delete it"):
        fastest_precision(*NETWORK)


def test_processes_that_share_a_batch_agree_on_32_bits(timed, monkeypatch):
    asked = timed(2.1, 1.0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert fastest_precision(*NETWORK) == "32-true" and not asked


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_card_that_only_emulates_bfloat16_trains_in_32_bits(native, expected, monkeypatch):
    def supported(including_emulation=True):
        return including_emulation or native

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert best_precision() == fastest_precision("auto", *NETWORK[1:]) == expected
    assert best_precision("cpu") == "32-true"


def test_a_step_is_timed_in_both_precisions_and_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    seconds = step_seconds(lambda: DermHash("pocket", attention=None), 2, 32)
    assert min(seconds) > 0 and torch.equal(torch.get_rng_state(), before)


# --- a run keeps it -------------------------------------------------------------------------


def stop(*args):
    raise Stop


def test_a_run_goes_on_in_the_precision_that_it_began_in(data, tmp_path, timed, monkeypatch):
    """Also where the cache is gone, or another processor would choose another one."""
    timed(2.1, 1.0)
    auto = tiny(precision="auto")
    with pytest.raises(Stop):
        train_quietly(auto, data, tmp_path, on_epoch=stop)
    about = json.loads((tmp_path / "tiny" / "config.json").read_text())
    assert about["config"]["precision"] == "bf16-mixed"
    shutil.rmtree(tmp_path / "home")
    monkeypatch.setattr(precision, "computes_in_bf16", lambda device: False)
    resumed = train_quietly(auto, data, tmp_path)
    whole = train_quietly(tiny(precision="bf16-mixed"), data, tmp_path / "whole")
    assert_same_run(resumed, whole)
    assert resumed.config == whole.config


def test_auto_without_bfloat16_units_is_a_run_in_32_bits(data, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "computes_in_bf16", lambda device: False)
    run = train_quietly(tiny(precision="auto"), data, tmp_path)
    assert_same_run(run, finished)
    assert run.config == finished.config and not run.model.bf16


@pytest.mark.parametrize("chosen", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_precision_that_was_asked_for_is_not_measured(tmp_path, timed, chosen):
    asked = timed(2.1, 1.0)
    config = tiny(precision=chosen)
    assert settled(config, 32, tmp_path) is config and not asked


def test_a_network_is_encoded_in_what_it_was_trained_in(data, tmp_path, monkeypatch):
    exact, fast = (
        train_quietly(tiny(precision=name), data, tmp_path / name).model
        for name in ("32-true", "bf16-mixed")
    )
    x = network_input(8)
    for able in (True, False):
        monkeypatch.setattr(network, "computes_in_bf16", lambda device, able=able: able)
        for model in (exact, OrbitMean(exact)):
            assert np.array_equal(encode(model, x), encode(model, x, bf16=False))
        for model in (fast, OrbitMean(fast), Run.load(tmp_path / "bf16-mixed" / "tiny").model):
            assert np.array_equal(encode(model, x), encode(model, x, bf16=able))
            assert not np.array_equal(encode(model, x), encode(model, x, bf16=not able))


def test_both_precisions_find_the_same_within_seeds(tmp_path):
    data = LesionDataset.from_atlas(make_atlas(240, 32, 0), query=0.3)
    queries, scores = data.split("query"), {}
    recipe = {"epochs": 8, "batch_size": 16, "learning_rate": 0.02, "augment": False}
    recipe |= {"attention": None, "invariance": None, "classify": "upright"}
    for name in ("32-true", "bf16-mixed"):
        for seed in range(3):
            config = tiny(precision=name, seed=seed, name=f"{seed}", **recipe)
            model = train_quietly(config, data, tmp_path / name).model
            index = build_index(model, data.split("database"))
            found = evaluate_retrieval(index, encode(model, queries), queries.labels.numpy())
            scores.setdefault(name, []).append(found["class_mean_map"])
    exact, fast = scores.values()
    assert min(exact + fast) > 0.35  # the four classes in random order have about 0.27
    assert abs(np.mean(exact) - np.mean(fast)) < np.ptp(exact)
    assert exact != fast
