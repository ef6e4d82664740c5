"""Hostile files: each is refused in one sentence, nothing in it runs, and it fills no memory."""

import io
import json
import os
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path

import loaders
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from derm_hash import cli, model, training
from derm_hash.checkpoints import read_checkpoint
from derm_hash.data.manifest import read_manifest, stored_pixels
from derm_hash.errors import InputError
from derm_hash.files import leaves_folder
from derm_hash.retrieval import HashIndex
from derm_hash.settings import TrainConfig


@pytest.fixture(autouse=True)
def small(monkeypatch, little_memory):
    loaders.use_pocket(monkeypatch)


def assert_refused(load, path, *words):
    with pytest.raises(InputError) as error:
        load(path)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


# --- a pickle that runs a program ---------------------------------------------------------------


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def plain(payload):
    return pickle.dumps(payload)


def oldest(payload):
    return pickle.dumps(payload, protocol=0)


def as_torch_saves(payload):
    content = io.BytesIO()
    torch.save({"model": payload, "position": {}}, content)
    return content.getvalue()


def as_torch_saved_once(payload):
    content = io.BytesIO()
    torch.save({"model": payload}, content, _use_new_zipfile_serialization=False)
    return content.getvalue()


def as_an_array(payload):
    content = io.BytesIO()
    np.save(content, np.array([payload], dtype=object), allow_pickle=True)
    return content.getvalue()


def as_arrays(payload):
    content = io.BytesIO()
    names = [f"{part}_{kind}" for part in ("train", "val", "test") for kind in ("images", "labels")]
    np.savez(content, **dict.fromkeys(names, np.array([payload], dtype=object)))
    return content.getvalue()


def behind_a_length(payload):
    """Where a safetensors file has its header."""
    program = pickle.dumps(payload)
    return struct.pack("<Q", len(program)) + program


PAYLOADS = {
    make.__name__: make
    for make in (
        *(plain, oldest, as_torch_saves, as_torch_saved_once),
        *(as_an_array, as_arrays, behind_a_length),
    )
}


def test_the_payload_works(tmp_path):
    pickle.loads(plain(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()
    torch.load(io.BytesIO(as_torch_saves(Payload(tmp_path / "also"))), weights_only=False)
    assert (tmp_path / "also").is_dir()


@pytest.mark.parametrize("form", PAYLOADS)
@pytest.mark.parametrize("name", loaders.LOADERS)
def test_no_reader_runs_a_pickle(name, form, tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", name)
    path.write_bytes(PAYLOADS[form](Payload(tmp_path / "ran")))
    if name == "archive" and form in ("as_torch_saves", "as_arrays"):
        load(path)  # a sound zip file; what is in it stays bytes
    else:
        assert_refused(load, path)
    assert not (tmp_path / "ran").exists()


# --- checkpoints ------------------------------------------------------------------------------


def repacked(path, change, compression=zipfile.ZIP_STORED):
    """Write a checkpoint again with its pickle changed."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)


def with_a_function(module, name):
    """A pickle that calls a function on nothing, in the place of another."""
    return lambda _: b"\x80\x02c" + f"{module}\n{name}\n".encode() + b")R."


@pytest.mark.parametrize(
    "change",
    [
        with_a_function("os", "getcwd"),
        with_a_function("builtins", "bytearray"),
        with_a_function("torch._utils", "_rebuild_meta_tensor_no_storage"),
        lambda _: pickle.dumps(os.getcwd, protocol=4),  # a name that is put together on the stack
        lambda _: b"\x80\x02(ios\ngetcwd\n.",  # and one of an old kind
        lambda program: program[:-20],
        lambda _: b"",
    ],
)
def test_a_checkpoint_names_no_function(tmp_path, change):
    path, load = loaders.prepared(tmp_path / "folder", "checkpoint")
    repacked(path, lambda program: program)
    load(path)
    repacked(path, change)
    assert_refused(load, path, str(path), "cannot be read", "delete the run's folder")


def test_what_torch_saves_names_what_is_allowed(tmp_path):
    path, _ = loaders.prepared(tmp_path / "folder", "checkpoint")
    with zipfile.ZipFile(path) as archive:
        [program] = [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]
    names = {argument for code, argument, _ in pickletools.genops(program) if code.name == "GLOBAL"}
    assert "torch._utils _rebuild_tensor_v2" in names and len(names) >= 4


def test_a_checkpoint_that_is_packed_is_not_unpacked(tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", "checkpoint")
    repacked(path, lambda program: program, zipfile.ZIP_DEFLATED)
    assert_refused(load, path, "cannot be read")


def test_one_wrong_bit_in_the_weights_is_noticed(tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", "checkpoint")
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = max(archive.infolist(), key=lambda info: info.file_size)
        start = content.index(archive.read(info))
    content[start + info.file_size // 2] ^= 1
    path.write_bytes(content)
    assert_refused(load, path, "cannot be read")


def test_a_program_in_front_of_a_sound_checkpoint_is_refused(tmp_path):
    """Python looks for a zip file at the end of a file, and torch at its start."""
    path, _ = loaders.prepared(tmp_path / "folder", "checkpoint")
    path.write_bytes(as_torch_saved_once(3) + path.read_bytes())
    assert torch.load(path, weights_only=True) == {"model": 3}
    assert_refused(read_checkpoint, path, str(path), "cannot be read")


def test_torch_is_given_what_was_checked_and_not_the_file(tmp_path, monkeypatch):
    path, load = loaders.prepared(tmp_path / "folder", "checkpoint")
    given, read = [], torch.load
    monkeypatch.setattr(torch, "load", lambda file, **how: given.append(file) or read(file, **how))
    load(path)
    assert isinstance(given[0], io.BytesIO)


def members_of(path):
    """The program of a checkpoint, and its other members by name."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return members.pop("archive/data.pkl"), members


def packed(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_program_under_a_name_in_other_letters_is_refused(tmp_path):
    """Torch finds ``DATA.PKL`` where it looks for ``data.pkl``."""
    path, _ = loaders.prepared(tmp_path / "folder", "checkpoint")
    sound, others = members_of(path)
    evil = pickle.dumps({"model": 3}, protocol=2)
    packed(path, {"archive/DATA.PKL": evil} | others | {"archive/zz.pkl": sound})
    assert torch.load(path, weights_only=True) == {"model": 3}
    assert_refused(read_checkpoint, path, str(path), "cannot be read")


@pytest.mark.parametrize(
    "name", ["archive/DATA.PKL", "archive/data.pkl/", "archive/zz.pkl", "other/data.pkl"]
)
def test_the_program_has_the_name_that_torch_gives_it(tmp_path, name):
    path, _ = loaders.prepared(tmp_path / "folder", "checkpoint")
    program, others = members_of(path)
    packed(path, others | {"archive/data.pkl": program})
    read_checkpoint(path)
    packed(path, others | {name: program})
    assert_refused(read_checkpoint, path, "cannot be read")


def test_two_names_that_differ_in_their_letters_alone_are_refused(tmp_path):
    path, _ = loaders.prepared(tmp_path / "folder", "checkpoint")
    program, others = members_of(path)
    packed(path, {"archive/data.pkl": program} | others | {"archive/Data/0": bytes(4)})
    assert_refused(read_checkpoint, path, "cannot be read")


def twice(start, levels):
    """A pair of twice a pair of twice ... as a pickle: each level doubles the work of a hash."""
    return start + b"".join(bytes([*b"q", i, *b"h", i]) + b"\x86" for i in range(levels))


@pytest.mark.parametrize(
    "value",
    [
        b"}" + twice(b")", 18) + b"K\x01s",
        b"}(K\x01K\x01" + twice(b")", 18) + b"K\x01u",
        b"}K\x01\x85K\x01s",
        b"}G" + bytes(8) + b"K\x01s",
        b"}\x8a\x09" + bytes(8) + b"\x01K\x01s",
        b"ccollections\nOrderedDict\n])K\x01\x86a\x85R",
        b"ccollections\nCounter\n])a\x85R",
        b"ccollections\nOrderedDict\n)R])K\x01\x86ab",
        twice(b"]", 18),
    ],
    ids=[
        *("a key", "keys", "a pair", "a fraction", "a long number", "an ordered dictionary"),
        *("a counter", "an attribute", "a list that is there twice"),
    ],
)
def test_keys_are_texts_and_whole_numbers_and_nothing_else_is_there_twice(tmp_path, value):
    path, _ = loaders.prepared(tmp_path / "folder", "checkpoint")
    repacked(path, lambda _: b"\x80\x02}X\x01\0\0\0a" + value + b"s.")
    assert_refused(read_checkpoint, path, "cannot be read")


def nan_weight(state):
    state["model"]["hash_layer.bias"][0] = torch.nan


def infinite_momentum(state):
    state["optimizer"]["state"][0]["exp_avg"].view(-1)[0] = torch.inf


def infinite_rate(state):
    state["optimizer"]["param_groups"][0]["lr"] = float("inf")


def word_for_rate(state):
    state["optimizer"]["param_groups"][0]["lr"] = "fast"


def other_shape(state):
    state["model"]["hash_layer.bias"] = torch.zeros(5)


def other_type(state):
    state["model"]["hash_layer.bias"] = torch.zeros(4, dtype=torch.float64)


def momentum_of_other_shape(state):
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(2, 2)


def terabytes_from_one_number(state):
    state["model"]["hash_layer.bias"] = torch.zeros(1).expand(10**12)


def far_ahead(state):
    state["position"]["epoch"] = 10**9


def before_the_start(state):
    state["position"]["step"] = -1


def history_too_long(state):
    state["history"] = [{"epoch": 1.0}] * 5


def strange_schedule(state):
    state["scheduler"]["step"] = 5


def schedule_elsewhere(state):
    state["scheduler"]["last_epoch"] = 0


def a_list(state):
    state["model"] = [1, 2]


def nothing_of_the_optimizer(state):
    del state["optimizer"]


def itself(state):
    state["history"] = [state]


@pytest.mark.parametrize(
    "change",
    [
        *(nan_weight, infinite_momentum, infinite_rate, word_for_rate, other_shape, other_type),
        *(momentum_of_other_shape, terabytes_from_one_number, far_ahead, before_the_start),
        *(history_too_long, strange_schedule, schedule_elsewhere, a_list),
        *(nothing_of_the_optimizer, itself),
    ],
)
def test_a_checkpoint_that_fits_nothing_is_refused(tmp_path, change):
    path, load = loaders.prepared(tmp_path / "folder", "checkpoint")
    state = read_checkpoint(path)
    change(state)
    torch.save(state, path)
    assert_refused(load, path, str(path), "cannot be read")


def group(**changes):
    return lambda saved: saved["optimizer"]["param_groups"][0].update(changes)


def momentum(**changes):
    """Change what the optimizer keeps of the first parameter; what is None now is left out."""

    def change(saved):
        kept = saved["optimizer"]["state"]
        kept[0] = {name: v for name, v in (kept[0] | changes).items() if v is not None}

    return change


def schedule(**changes):
    return lambda saved: saved["scheduler"].update(changes)


def position(**changes):
    return lambda saved: saved["position"].update(changes)


def after_an_epoch(*history):
    """At the start of the second epoch but for the history, which may be anything."""

    def change(saved):
        position(epoch=1, step=0, totals={})(saved)
        schedule(last_epoch=3, _step_count=4, _last_lr=[0.00095])(saved)
        saved["history"] = list(history)

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(group(lr=1e300), group(lr=0.5), group(lr=-1.0), group(betas=("a", "b"))),
        *(group(betas=(0.5, 0.5)), group(capturable=True), group(maximize=True), group(fused="x")),
        *(group(initial_lr=1.0), group(unknown=1), group(params=[]), group(weight_decay=0.0)),
        *(momentum(exp_avg=None), momentum(exp_avg=5), momentum(step=torch.tensor(-5.0))),
        *(momentum(step=torch.tensor(3.0)), momentum(step=2), momentum(other=torch.zeros(1))),
        *(momentum(exp_avg_sq=torch.full((4, 3, 3, 3), -1.0)),),
        *(momentum(exp_avg=torch.zeros(4, 3, 3, 3, dtype=torch.float64)),),
        lambda saved: saved["optimizer"]["state"].clear(),
        lambda saved: saved["optimizer"]["state"].pop(1),
        lambda saved: saved["optimizer"]["state"].update({99: {}}),
        *(schedule(_schedule_phases=[]), schedule(total_steps="x"), schedule(total_steps=70)),
        *(schedule(_last_lr=[5.0]), schedule(base_lrs=[]), schedule(_step_count=-1)),
        *(position(totals={"loss": "x"}), position(totals={1: 1.5}), position(totals=[("a", 1)])),
        *(position(totals={}), position(epoch=0.0), position(epoch=False), position(step=2.0)),
        *(position(step=torch.tensor(2)), position(epoch=2), position(epoch="0")),
        *(after_an_epoch({"epoch": "x"}), after_an_epoch({}), after_an_epoch("row")),
        lambda saved: saved.update(precision={"scale": 2.0}),
        lambda saved: saved.update(precision=5),
    ],
)
def test_a_checkpoint_with_settings_of_its_own_is_refused(tmp_path, change):
    path, load = loaders.prepared(tmp_path / "folder", "checkpoint")
    saved = torch.load(path, weights_only=True)
    change(saved)
    torch.save(saved, path)
    assert_refused(load, path, str(path), "cannot be read: delete the run's folder")


def test_tensors_that_share_their_memory_are_taken_apart(tmp_path):
    path, _ = loaders.prepared(tmp_path / "folder", "checkpoint")
    saved = torch.load(path, weights_only=True)
    shared = torch.ones(4, 3, 3, 3)
    momentum(exp_avg=shared, exp_avg_sq=shared.detach())(saved)
    torch.save(saved, path)
    state = loaders.small_state()
    state.resume(path)
    kept = state.optimizer.state_dict()["state"][0]
    kept["exp_avg"].zero_()
    assert kept["exp_avg_sq"].min() == 1


def test_a_checkpoint_sets_nothing_but_the_position(tmp_path):
    path, _ = loaders.prepared(tmp_path / "folder", "checkpoint")
    saved = read_checkpoint(path)
    saved["position"]["fabric"] = saved["position"]["check_weights"] = "mine"
    torch.save(saved, path)
    state = loaders.small_state()
    fabric = state.fabric
    state.resume(path)
    assert state.fabric is fabric and callable(state.check_weights)


# --- models -------------------------------------------------------------------------------------


def described(path, **changes):
    """Write a model's description anew; what is None now is left out."""
    with path.open("rb") as file:
        [length] = struct.unpack("<Q", file.read(8))
        about = json.loads(json.loads(file.read(length))["__metadata__"]["derm_hash"])
    save_file(load_file(path), path, {"derm_hash": json.dumps(about | changes)})


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": 10**12},
        {"bits": -1},
        {"bits": 4.0},
        {"bits": True},
        {"bits": 10**30},
        {"classes": 10**12},
        {"classes": 3},
        {"class_names": ["only one"]},
        {"class_names": [1, 2]},
        {"class_names": "MELNV"},
        {"class_names": None},
        {"image_size": 0},
        {"image_size": 10**9},
        {"image_size": "32"},
        {"weights": "imagenet"},
        {"weights": "/etc/passwd"},
        {"backbone": "resnet18"},
        {"backbone": ["resnet18"]},
        {"attention": ["se"]},
        {"attention": 3},
        {"disc": "yes"},
    ],
    ids=str,
)
def test_a_model_that_lies_about_itself_is_refused(tmp_path, changes, monkeypatch):
    path, load = loaders.prepared(tmp_path / "folder", "model")
    described(path)
    load(path)
    described(path, **changes)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)  # nothing is fetched
    assert_refused(load, path, str(path))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    network = loaders.small_model()
    with torch.no_grad():
        network.hash_layer.weight[1, 2] = value
    path = model.save_model(network, tmp_path / "model.safetensors")
    assert_refused(model.load_model, path, str(path), "hash_layer.weight", "not finite")


@pytest.mark.parametrize("name", ["model", "index"])
@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<Q", 2**62),
        struct.pack("<Q", 60)
        + b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
        struct.pack("<Q", 200_000) + b"[" * 200_000,
        b"",
    ],
)
def test_a_header_that_promises_too_much_is_refused(tmp_path, name, header):
    path, load = loaders.prepared(tmp_path / "folder", name)
    path.write_bytes(header)
    assert_refused(load, path, str(path))


@pytest.mark.parametrize("name", ["model", "index"])
def test_a_description_that_is_nested_too_deep_is_refused(tmp_path, name):
    path, load = loaders.prepared(tmp_path / "folder", name)
    key = {"model": "derm_hash", "index": "items"}[name]
    save_file(load_file(path), path, {key: "[" * 100_000})
    assert_refused(load, path, str(path), "nested too deep")


@pytest.mark.parametrize("name", ["model", "index"])
@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.complex64, torch.float64, torch.bool])
def test_numbers_of_a_kind_that_the_kit_does_not_write_are_refused(tmp_path, name, kind):
    path, load = loaders.prepared(tmp_path / "folder", name)
    with safe_open(path, "pt") as file:
        about = file.metadata()
    save_file(load_file(path) | {"more": torch.zeros(3).to(kind)}, path, about)
    assert_refused(load, path, str(path), "more has numbers of the kind")


def test_the_name_of_a_tensor_does_not_reach_the_terminal_raw(tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", "index")
    save_file(load_file(path) | {"\x1b[31m": torch.tensor([torch.nan])}, path, {"items": "{}"})
    assert_refused(load, path, "numbers in \\x1b[31m that are not finite")


# --- indexes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"codes": torch.full((5, 12), torch.nan)},
        {"codes": torch.full((5, 12), 1.5)},
        {"codes": torch.zeros(5, 12, dtype=torch.bfloat16)},
        {"codes": torch.zeros(5, 0)},
        {"codes": torch.zeros(60)},
        {"codes": torch.zeros(4, 12)},
        {"labels": torch.zeros(5)},
        {"labels": torch.tensor([0, 1, 2, 3, -1])},
        {"labels": torch.zeros(5, 1, dtype=torch.int64)},
        {"labels": torch.zeros(6, dtype=torch.int64)},
    ],
    ids=lambda changes: " ".join(f"{name} {list(value.shape)}" for name, value in changes.items()),
)
def test_an_index_with_strange_numbers_is_refused(tmp_path, changes):
    path, load = loaders.prepared(tmp_path / "folder", "index")
    items = HashIndex.load(path).items.to_json(orient="split", index=False)
    save_file(load_file(path) | changes, path, {"items": items})
    assert_refused(load, path, str(path))


@pytest.mark.parametrize(
    "items",
    [
        *("null", "3", "[]", '{"columns": ["a"], "data": [[1]]}', '{"columns": 3, "data": [[1]]}'),
        '{"columns": ["a", "b"], "data": [[1], [2], [3], [4], [5]]}',
    ],
)
def test_an_index_with_strange_items_is_refused(tmp_path, items):
    path, load = loaders.prepared(tmp_path / "folder", "index")
    save_file(load_file(path), path, {"items": items})
    assert_refused(load, path, str(path))


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "../../etc/passwd"},
        {"image": "/etc/passwd"},
        {"image": "C:\\secret.png"},
        {"image": 5},
        {"folder": None},
        {"lesion_id": 7},
    ],
    ids=str,
)
def test_the_pictures_of_a_search_lie_in_their_folder(changes):
    items = pd.DataFrame({"image": ["a.png"], "label": "NV", "lesion_id": "", "folder": "/data"})
    sound = HashIndex.build([[0.5]], [0], items)
    cli.check_items(sound, Path("index"))
    with pytest.raises(InputError, match="run `derm-hash encode` again"):
        cli.check_items(HashIndex.build([[0.5]], [0], items.assign(**changes)), Path("index"))
    with pytest.raises(InputError, match="does not say where its images are"):
        cli.check_items(HashIndex.build([[0.5]], [0], ["a.png"]), Path("index"))


@pytest.mark.parametrize("column", ["image", "label", "lesion_id", "folder"])
@pytest.mark.parametrize("name", ["\ud800", "\x1b[31mred", "two\nlines", "x" * 1001], ids=range(4))
def test_names_that_cannot_be_shown_are_refused(name, column):
    items = pd.DataFrame({"image": ["a.png"], "label": "NV", "lesion_id": "", "folder": "/data"})
    cli.check_items(HashIndex.build([[0.5]], [0], items.assign(label="ä" * 1000)), Path("index"))
    odd = HashIndex.build([[0.5]], [0], items.assign(**{column: name}))
    with pytest.raises(InputError, match="rename them in the data folder and run"):
        cli.check_items(odd, Path("index"))


# --- runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "a\\b", "/etc", "C:", "a\0b", 5, None]
)
def test_a_run_cannot_leave_its_folder(name):
    with pytest.raises(InputError, match=r"folder's name|name must be text"):
        TrainConfig(name=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": float("inf")},
        {"weight_decay": float("nan")},
        {"bits": 8.5},
        {"bits": 1e400},
        {"epochs": "3"},
        {"seed": 0.5},
        {"name": ".."},
        {"milestones": 3},
        {"objective": []},
        {"unknown": 1},
    ],
    ids=str,
)
def test_the_config_of_a_run_is_refused(tmp_path, changes):
    path, load = loaders.prepared(tmp_path / "folder", "config")
    about = json.loads(path.read_text())
    about["config"] |= changes
    path.write_text(json.dumps(about))
    assert_refused(load, path, str(path), "is not the config of a run")


@pytest.mark.parametrize(
    "text",
    ["", "epoch\n1\n", "epoch,loss,val_precision_at_10\n1,low,high\n", "\xff", "a,b\n1\n1,2,3\n"],
)
def test_the_table_of_a_run_is_refused(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_bytes(text.encode("latin-1"))
    assert_refused(training.read_history, path, str(path), "is not the table of a run")


# --- data folders -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/passwd", "C:\\a.png", "..\\a.png", "a/../../b", "\\\\host\\a.png"]
)
@pytest.mark.parametrize("column", ["image", "mask"])
def test_a_manifest_cannot_leave_its_folder(tmp_path, name, column):
    path, _ = loaders.prepared(tmp_path / "folder", "manifest")
    frame = read_manifest(path.parent)
    frame.loc[1, column] = name
    frame.to_csv(path, index=False)
    assert leaves_folder(name)
    assert_refused(read_manifest, path.parent, "leaves the folder")


def header(shape, kind="|u1"):
    content = io.BytesIO()
    about = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, about)
    return content.getvalue()


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(
    "content",
    [
        header((3, 2**20, 2**20, 3)),
        header((3, 2**40, 2**40, 3)),
        header((3, 16, 16, 3), "|O"),
        header((3, 16, 16, 3), "<f8") + bytes(3 * 16 * 16 * 3 * 8),
        header((3, 16, 17, 3)) + bytes(3 * 16 * 17 * 3),
        header((4, 16, 16, 3)) + bytes(4 * 16 * 16 * 3),
        header((3, 16, 16, 3)) + bytes(5),
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
    ],
    ids=range(8),
)
def test_decoded_pixels_that_promise_too_much_are_refused(tmp_path, content):
    path, _ = loaders.prepared(tmp_path / "folder", "pixels")
    path.write_bytes(content)
    names = [f"{i}.png" for i in range(3)]
    with pytest.raises(InputError, match="delete it") as error:
        stored_pixels(path.parent, names)
    assert "\n" not in str(error.value)


# --- found by damaging thousands of files: test_faults_fuzz.py at full length ---------------------


def test_a_manifest_with_an_endless_name_is_refused(tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", "manifest")
    path.write_text(path.read_text().replace("images/0.png", f"images/{'[' * 5000}.png"))
    assert_refused(load, path, str(path.parent))


def test_pixels_of_fewer_than_no_images_are_refused(tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", "pixels")
    path.write_bytes(path.read_bytes().replace(b"(3, 16,", b"(-3,16,"))
    assert_refused(load, path, str(path))


def test_an_archive_with_a_nameless_member_is_refused(tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", "archive")
    path.write_bytes(path.read_bytes().replace(b"metadata.csv", b"\0etadata.csv"))
    assert_refused(load, path, str(path))


@pytest.mark.parametrize("name", ["record", "ledger"])
def test_json_that_is_nested_too_deep_is_refused(tmp_path, name):
    path, load = loaders.prepared(tmp_path / "folder", name)
    path.write_text("[" * 100_000)
    assert_refused(load, path, str(path))
