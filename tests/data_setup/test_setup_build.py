"""The life of a data folder: complete or absent, one writer, never overwritten by accident."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from helpers import encoded, noise
from publishers import contents

from data_setup import build
from data_setup import prepare as storing
from data_setup.__main__ import COMMANDS, main
from derm_hash import files
from derm_hash.data import manifest
from derm_hash.data.manifest import read_manifest
from derm_hash.errors import InputError


@pytest.fixture
def run(ham):
    """Prepare HAM10000; the exit code."""
    command = ["ham10000", "--archives", str(ham.folder), "--root"]
    return lambda root, *options: main([*command, str(root), *options])


@pytest.fixture
def whole(run, tmp_path):
    """What a command leaves that nothing interrupts."""
    assert run(tmp_path / "whole") == 0
    return contents(tmp_path / "whole")


def stop_after(monkeypatch, files, error):
    """Let the images' module write so many files and fail then, as if somebody pressed Ctrl-C."""
    written, original = [], storing.put

    def put(path, data):
        if len(written) >= files:
            raise error
        written.append(path)
        original(path, data)

    monkeypatch.setattr(storing, "put", put)
    return written


def test_an_interrupted_command_is_completed_by_the_same_one(run, root, whole, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_after(patch, 9, KeyboardInterrupt())
        assert run(root, "--workers", "1") == 130
    assert "run the same command again" in capsys.readouterr().err
    half = contents(root)
    assert 5 <= sum(name.startswith(("images/", "masks/")) for name in half) <= 10
    assert all(whole[name] == content for name, content in half.items() if ".json" not in name)
    with pytest.raises(InputError, match=r"no manifest\.csv"):
        read_manifest(root)
    (root / "images" / ".ISIC_0024306.jpg.4711.part").write_bytes(b"half")  # what a kill leaves
    written = stop_after(monkeypatch, 10**6, KeyboardInterrupt())
    assert run(root) == 0
    assert contents(root) == whole
    assert len(written) < len(whole) - 5  # what was there was not written again


def test_unfinished_work_with_other_options_is_started_anew(run, root, whole, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 9, KeyboardInterrupt())
        assert run(root, "--size", "8") == 130
    assert run(root) == 0
    assert contents(root) == whole


def test_space_is_checked_before(run, root, monkeypatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 10}))
    assert run(root) == 2
    assert "make room" in capsys.readouterr().err
    assert not root.exists()


def test_a_finished_folder_is_left_alone(run, root, capsys):
    assert run(root) == 0
    before = contents(root)
    assert run(root, "--workers", "1") == 0
    assert "complete already" in capsys.readouterr().out
    assert run(root, "--classes", "7", "--seed", "2") == 2
    error = capsys.readouterr().err
    assert "classes 4 instead of 7 and with seed 0 instead of 2" in error
    assert "--force" in error
    assert main(["synthetic", "--root", str(root), "--images", "8"]) == 2
    assert "by the command 'ham10000'" in capsys.readouterr().err
    assert contents(root) == before


def test_force_makes_it_anew(run, root, whole):
    assert run(root, "--classes", "7") == 0
    (root / "images" / "old.jpg").write_bytes(b"old")
    assert run(root, "--classes", "4", "--force") == 0
    assert contents(root) == whole


def failing(root):
    """A command that finds out too late that it cannot go on."""
    return main(["synthetic", "--root", str(root), "--size", "2"])


def test_a_link_to_a_folder_will_do_and_does_not_hide_an_error(run, tmp_path, capsys):
    link, folder = tmp_path / "link", tmp_path / "disk"
    folder.mkdir()
    link.symlink_to(folder, target_is_directory=True)
    assert failing(tmp_path / "plain") == 2
    reason = capsys.readouterr().err
    for _ in range(2):  # the second time the link leads nowhere
        assert failing(link) == 2
        assert capsys.readouterr().err == reason
        assert link.is_symlink() and not folder.exists()
    assert run(link) == 0
    assert (folder / "manifest.csv").exists()


def test_a_folder_that_cannot_be_removed_does_not_hide_an_error(tmp_path, monkeypatch, capsys):
    assert failing(tmp_path / "plain") == 2
    reason = capsys.readouterr().err
    remove = os.rmdir

    def rmdir(path, **options):
        if str(path).endswith("mounted"):
            raise OSError(16, "Device or resource busy", str(path))
        remove(path, **options)

    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(os, "rmdir", rmdir)
    assert failing(tmp_path / "mounted") == 2
    assert capsys.readouterr().err == reason


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_other_peoples_files_are_never_touched(run, root, capsys, force):
    mine = root / "images" / "mine.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    before = contents(root)
    assert run(root, *force) == 2
    assert "holds other files (such as images)" in capsys.readouterr().err
    assert contents(root) == before
    assert run(mine, *force) == 2
    assert "is a file" in capsys.readouterr().err


NNUNET = '{"name": "mine", "labels": {"0": "skin", "1": "lesion"}, "numTraining": 1}'
FOREIGN = [NNUNET, "", "{", "{}", "[1, 2]", '"text"', "[" * 10**5, "\0"]
FOREIGN += ['{"tool": ["derm-hash 1"]}']


BESIDE = ("images/mine.jpg", "masks/mine.png", "SHA256SUMS", "pixels-mine.npy", "manifest.csv")


@pytest.mark.parametrize("beside", [BESIDE, BESIDE[:-1], ()], ids=["finished", "unfinished", "no"])
@pytest.mark.parametrize("record", FOREIGN, ids=range(len(FOREIGN)))
def test_a_record_of_another_tool_does_not_give_its_folder_away(root, capsys, record, beside):
    for name in ("dataset.json", *beside):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"mine")
    (root / "dataset.json").write_text(record)
    before = contents(root)
    for force in ([], ["--force"]):
        assert main(["synthetic", "--root", str(root), "--images", "8", *force]) == 2
        assert "holds other files (such as " in capsys.readouterr().err
        assert contents(root) == before


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_folder_or_link_named_like_a_record_is_left_alone(root, refused, kind):
    root.mkdir()
    if kind == "folder":
        (root / "dataset.json").mkdir()
    else:
        (root / "dataset.json").symlink_to(root.parent / "elsewhere.json")
    error = refused("synthetic", "--size", "2")
    assert "holds other files (such as dataset.json)" in error
    assert [path.name for path in root.iterdir()] == ["dataset.json"]


def test_there_is_one_writer(run, root, capsys):
    root.mkdir()
    with FileLock(root / ".lock"):
        assert run(root) == 2
    assert "another data_setup is writing" in capsys.readouterr().err
    assert run(root) == 0


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_explains_every_option(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    option = {"verify": "ROOT", "audit": "ROOT", "list": "--help"}
    assert option.get(command[0], "--root") in out if command else "NAME" in out
    assert "%%" not in out


def test_an_unseen_share_is_checked_first_and_recorded(class_folders, prepare, refused, record):
    source = "folder", "--source", class_folders
    for wrong in ("1", "0", "-0.1"):
        with pytest.raises(SystemExit):
            prepare(*source, "--unseen", wrong)
    assert "splits anew" in refused(*source, "--split", "query", "--unseen", "0.25")
    prepare(*source, "--unseen", "0.25")
    assert record()["options"]["unseen"] == 0.25
    with pytest.raises(AssertionError):  # without it, the same folder is another data set
        prepare(*source)


def two_classes(source, count, content):
    """Class folders a and b of equally many images."""
    for label in ("a", "b"):
        (source / label).mkdir(parents=True)
        for i in range(count):
            (source / label / f"{i}.png").write_bytes(content(i))
    return ["folder", "--source", str(source)]


def interrupted_writes(patch, at):
    """Let the write of number `at` leave a half-written file and never return, as a kill does."""
    count, original = itertools.count(), manifest.write_atomically

    def write_atomically(path, write):
        if next(count) == at:
            path.with_name(f".{path.name}.4711.part").write_bytes(b"half")
            raise KeyboardInterrupt
        original(path, write)

    for module in (files, storing, manifest):
        patch.setattr(module, "write_atomically", write_atomically)


def test_an_interrupt_at_any_write_leaves_a_folder_that_the_command_completes(
    tmp_path, monkeypatch
):
    command = two_classes(tmp_path / "source", 2, lambda i: encoded(noise(i), "PNG"))
    command.append("--root")
    assert main([*command, str(tmp_path / "whole")]) == 0
    codes = []
    for at in itertools.count():
        root = tmp_path / f"data{at}"
        with monkeypatch.context() as patch:
            interrupted_writes(patch, at)
            codes.append(main([*command, str(root)]))
        assert (root / "manifest.csv").exists() == (codes[-1] == 0)
        assert main([*command, str(root)]) == 0
        assert contents(root) == contents(tmp_path / "whole")
        if codes[-1] == 0:
            break
    # The record, four images, their pixels, the sums, the record again, the manifest.
    assert codes == [130] * 9 + [0]


def test_force_that_is_interrupted_keeps_nothing_old(run, root, monkeypatch):
    assert run(root) == 0
    expected = contents(root)
    min((root / "images").iterdir()).write_bytes(b"damaged")
    with monkeypatch.context() as patch:
        patch.setattr(build.shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(OSError(5)))
        assert run(root, "--force") == 2
    assert not (root / "manifest.csv").exists()
    assert run(root) == 0
    assert contents(root) == expected


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_and_kill_in_real_processes(tmp_path):
    root, content = tmp_path / "data", encoded(noise(1, 600, 450), "PNG")
    arguments = two_classes(tmp_path / "source", 60, lambda _: content)
    arguments += ["--workers", "1", "--root"]
    command = [sys.executable, "-m", "data_setup", *arguments, str(root)]
    checkout, rng = Path(__file__).parents[2], random.Random(0)
    for part, kind in enumerate([signal.SIGINT, signal.SIGKILL, signal.SIGINT, signal.SIGKILL]):
        process = subprocess.Popen(
            command,
            cwd=checkout,
            stderr=subprocess.PIPE,
            text=True,
            # What a shell starts in the background ignores Ctrl-C, and so do its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        enough = part * 25 + rng.randint(1, 25)
        while process.poll() is None and len(list(root.glob("images/*/*.jpg"))) < enough:
            time.sleep(0.001)
        process.send_signal(kind)
        _, error = process.communicate(timeout=60)
        assert process.returncode == (130 if kind == signal.SIGINT else -kind)
        if kind == signal.SIGINT:
            assert "run the same command again" in error
        assert "Traceback" not in error
        assert not (root / "manifest.csv").exists()
        assert enough <= len(list(root.glob("images/*/*.jpg"))) < 120
    assert main([*arguments, str(root)]) == 0
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    assert contents(root) == contents(tmp_path / "whole")
