"""A full disk is one sentence: what was there stays as it was, and nothing half-written is left.

The tests mount a small disk of their own where the system lets them, and otherwise set a limit on
the size of files, as every process can.
"""

import resource
import shutil
import subprocess
from contextlib import contextmanager

import pandas as pd
import pytest
import victim
from helpers import assert_equal_states, checkpoint_of, color_data, noise
from publishers import contents

from data_setup import __main__ as data_setup
from derm_hash import cli, training
from derm_hash.data.manifest import store_pixels, write_manifest
from derm_hash.training import train

pytestmark = pytest.mark.usefixtures("one_thread")

DISK = 60_000_000


class Limited:
    """Files may not become larger than there is room."""

    def __init__(self, folder):
        self.folder = folder

    @contextmanager
    def room_for(self, size):
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)


class Mounted(Limited):
    """A disk in memory that another file fills."""

    @contextmanager
    def room_for(self, size):
        filler = self.folder / "filler"
        free = int(subprocess.check_output(["df", "-B1", "--output=avail", self.folder]).split()[1])
        filler.write_bytes(bytes(max(0, free - size)))
        try:
            yield
        finally:
            filler.unlink()


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    yield Mounted(folder) if mounted else Limited(folder)
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A data folder of 24 images of 32 px."""
    root, rows = tmp_path_factory.mktemp("pictures"), []
    for i in range(24):
        noise(i, 32, 32).save(root / f"{i}.png")
        split = "query" if i < 4 else "val" if i < 8 else "database"
        rows.append({"image": f"{i}.png", "label": ("NV", "MEL")[i % 2], "split": split})
    write_manifest(pd.DataFrame(rows), root)
    return root


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory, one_thread):
    """A run that the command line has trained."""
    runs = tmp_path_factory.mktemp("runs")
    assert cli.main(command(pictures, runs)) == 0
    return runs / "small"


def command(pictures, runs):
    return [
        *("train", "--data", str(pictures), "--runs", str(runs), "--size", "32"),
        *("--name", "small", "--backbone", "resnet8", "--bits", "8", "--epochs", "1"),
        *("--batch-size", "8", "--precision", "32-true"),
    ]


def assert_one_sentence(error, program="derm-hash"):
    *_, last = error.strip().splitlines()
    assert last.startswith(f"{program}: the system refuses: [Errno ")
    assert "No space left on device" in last or "File too large" in last
    assert "Traceback" not in error


# --- training -------------------------------------------------------------------------------


@pytest.mark.parametrize("fits", ["nothing", "the model"])
def test_a_disk_that_is_full_after_an_epoch_keeps_it_and_training_goes_on(
    disk, tmp_path, fits, monkeypatch
):
    # The second epoch is made to be the better one, so that it has a model to write.
    scores = iter([0.1, 0.2, 0.2, 0.1, 0.2])
    monkeypatch.setattr(training, "val_score", lambda *_: next(scores))
    data, folder = color_data(splits=victim.SPLITS), disk.folder / "victim"
    with pytest.raises(KeyboardInterrupt):
        train(victim.CONFIG, data, disk.folder, progress=False, on_epoch=stop)
    before = contents(folder)
    model, metrics = (folder / name for name in ("model.safetensors", "metrics.csv"))
    room = 2**16 + (model.stat().st_size if fits == "the model" else 0)
    with disk.room_for(room), pytest.raises(OSError, match=r"No space|too large") as error:
        train(victim.CONFIG, data, disk.folder, progress=False)
    wrong = "checkpoint.safetensors" if fits == "the model" else "model.safetensors"
    assert str(folder / wrong) in str(error.value)
    after = contents(folder)
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == (set() if fits == "nothing" else {model.name, metrics.name})
    assert checkpoint_of(folder)["epoch"] == 1
    ours = train(victim.CONFIG, data, disk.folder, progress=False)
    scores = iter([0.1, 0.2])
    expected = train(victim.CONFIG, data, tmp_path / "undisturbed", progress=False)
    assert_equal_states(ours.model.state_dict(), expected.model.state_dict())


def stop(history):
    raise KeyboardInterrupt


# --- the commands -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 2_500_000])
def test_train_says_that_the_disk_is_full(disk, pictures, size, capsys):
    with disk.room_for(size):
        assert cli.main(command(pictures, disk.folder / "runs")) == 2
    assert_one_sentence(capsys.readouterr().err)
    left = contents(disk.folder / "runs")
    assert set(left) <= {"small/config.json"}


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["encode"], "index.safetensors"),
        (["evaluate"], "evaluation.csv"),
        (["search", "0.png", "--radius", "8"], "hits.png"),
    ],
)
def test_the_other_commands_say_that_the_disk_is_full(
    disk, pictures, finished, arguments, output, capsys
):
    run = shutil.copytree(finished, disk.folder / "small")
    if not (run / output).exists():
        (run / output).write_bytes(b"old")
    name, *rest = arguments
    line = [name, "--run", str(run)]
    if name == "search":
        line += [str(pictures / rest[0]), *rest[1:], "--out", str(run / output)]
    else:
        line += ["--data", str(pictures)]
    before = contents(disk.folder)
    with disk.room_for(0):
        assert cli.main(line) == 2
    assert_one_sentence(capsys.readouterr().err)
    assert contents(disk.folder) == before
    assert cli.main(line) == 0
    assert (run / output).read_bytes() != b"old"


def test_data_setup_says_that_the_disk_is_full(disk, pictures, capsys, monkeypatch):
    # It looks at the free space first; here another program takes it just afterwards.
    monkeypatch.setattr("data_setup.build.check_space", lambda *_: None)
    root, source = disk.folder / "data", disk.folder.parent / "source"
    for label in ("a", "b"):
        shutil.copytree(pictures, source / label, ignore=shutil.ignore_patterns("*.csv"))
    line = ["folder", "--root", str(root), "--source", str(source), "--size", "32"]
    with disk.room_for(20_000):
        assert data_setup.main(line) == 2
    assert_one_sentence(capsys.readouterr().err, "data_setup")
    assert not list(disk.folder.rglob(".*.part"))
    assert not (root / "manifest.csv").exists()
    assert data_setup.main(line) == 0


# --- single files -----------------------------------------------------------------------------


def test_decoded_pixels_do_not_end_the_process(disk, pictures):
    """Written through a memory map without the space for them, they would: by a bus error."""
    root, names = disk.folder / "data", [f"{i}.png" for i in range(24)]
    shutil.copytree(pictures, root)
    before = set(root.iterdir())
    with disk.room_for(40_000), pytest.raises(OSError, match=r"No space|too large"):
        store_pixels(root, names)
    assert set(root.iterdir()) == before
    assert store_pixels(root, names).is_file()
