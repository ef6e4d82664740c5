"""The life of a data folder: complete or absent, one writer, never overwritten by accident."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from publishers import contents, encoded, noise

from data_setup import common, folder, ham10000
from data_setup.__main__ import main
from derm_hash.data import read_manifest
from derm_hash.errors import InputError


def prepare(ham, root, *options):
    return main(["ham10000", "--archives", str(ham.folder), "--root", str(root), *options])


def stop_after(monkeypatch, module, files, error):
    """Let a module write so many files and fail then, as if somebody pressed Ctrl-C."""
    written = []

    def put(path, data):
        if len(written) >= files:
            raise error
        written.append(path)
        common.put(path, data)

    monkeypatch.setattr(module, "put", put)
    return written


def test_an_interrupted_command_is_completed_by_the_same_one(ham, tmp_path, monkeypatch, capsys):
    assert prepare(ham, tmp_path / "whole") == 0
    expected = contents(tmp_path / "whole")
    root = tmp_path / "data"
    with monkeypatch.context() as patch:
        stop_after(patch, ham10000, 9, KeyboardInterrupt())
        assert prepare(ham, root, "--workers", "1") == 130
    assert "the same command completes" in capsys.readouterr().err
    assert not (root / "manifest.csv").exists()
    half = contents(root)
    assert 5 <= sum(name.startswith(("images/", "masks/")) for name in half) <= 10
    assert all(expected[name] == content for name, content in half.items() if ".json" not in name)
    with pytest.raises(InputError, match=r"no manifest\.csv"):
        read_manifest(root)
    written = stop_after(monkeypatch, ham10000, 10**6, KeyboardInterrupt())
    assert prepare(ham, root) == 0
    assert contents(root) == expected
    assert len(written) < len(expected) - 5  # what was there was not written again


def test_leftovers_of_a_killed_run_are_removed(ham, tmp_path, monkeypatch):
    root = tmp_path / "data"
    with monkeypatch.context() as patch:
        stop_after(patch, ham10000, 3, KeyboardInterrupt())
        assert prepare(ham, root) == 130
    (root / "images" / ".ISIC_0024306.jpg.4711.part").write_bytes(b"half")
    assert prepare(ham, root) == 0
    assert not [name for name in contents(root) if name.endswith(".part")]


def test_unfinished_work_with_other_options_is_started_anew(ham, tmp_path, monkeypatch):
    root = tmp_path / "data"
    with monkeypatch.context() as patch:
        stop_after(patch, ham10000, 9, KeyboardInterrupt())
        assert prepare(ham, root, "--size", "8") == 130
    assert prepare(ham, root) == 0
    assert prepare(ham, tmp_path / "whole") == 0
    assert contents(root) == contents(tmp_path / "whole")


def test_a_full_disk_is_one_sentence(ham, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_after(patch, ham10000, 5, OSError(28, "No space left on device"))
        assert prepare(ham, tmp_path / "data") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error == "data_setup: the system refuses: [Errno 28] No space left on device"
    assert not (tmp_path / "data" / "manifest.csv").exists()
    assert prepare(ham, tmp_path / "data") == 0


def test_space_is_checked_before(ham, tmp_path, monkeypatch, capsys):
    usage = type("usage", (), {"free": 10})
    monkeypatch.setattr(common.shutil, "disk_usage", lambda path: usage)
    assert prepare(ham, tmp_path / "data") == 2
    assert "make room" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_finished_folder_is_left_alone(ham, tmp_path, capsys):
    root = tmp_path / "data"
    assert prepare(ham, root) == 0
    before = contents(root)
    assert prepare(ham, root, "--workers", "1") == 0
    assert "complete already" in capsys.readouterr().out
    assert prepare(ham, root, "--classes", "7", "--seed", "2") == 2
    error = capsys.readouterr().err
    assert "classes 4 instead of 7 and with seed 0 instead of 2" in error
    assert "--force" in error
    assert main(["synthetic", "--root", str(root), "--images", "8"]) == 2
    assert "by the command 'ham10000'" in capsys.readouterr().err
    assert contents(root) == before


def test_force_makes_it_anew(ham, tmp_path):
    root = tmp_path / "data"
    assert prepare(ham, root, "--classes", "7") == 0
    (root / "images" / "old.jpg").write_bytes(b"old")
    assert prepare(ham, root, "--classes", "4", "--force") == 0
    assert prepare(ham, tmp_path / "expected", "--classes", "4") == 0
    assert contents(root) == contents(tmp_path / "expected")


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_other_peoples_files_are_never_touched(ham, tmp_path, capsys, force):
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "mine.jpg").write_bytes(b"mine")
    before = contents(tmp_path / "data")
    assert prepare(ham, tmp_path / "data", *force) == 2
    assert "holds other files (such as images)" in capsys.readouterr().err
    assert contents(tmp_path / "data") == before
    assert prepare(ham, tmp_path / "data" / "images" / "mine.jpg", *force) == 2
    assert "is a file" in capsys.readouterr().err


def test_an_empty_folder_will_do(ham, tmp_path):
    (tmp_path / "data").mkdir()
    assert prepare(ham, tmp_path / "data") == 0


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '"text"'])
def test_a_damaged_record_is_named(ham, tmp_path, capsys, content):
    root = tmp_path / "data"
    assert prepare(ham, root) == 0
    (root / "dataset.json").write_text(content)
    assert prepare(ham, root) == 2
    assert "dataset.json is damaged" in capsys.readouterr().err


def test_there_is_one_writer(ham, tmp_path, capsys):
    root = tmp_path / "data"
    root.mkdir()
    with FileLock(root / ".lock"):
        assert prepare(ham, root) == 2
    assert "another data_setup is writing" in capsys.readouterr().err
    assert prepare(ham, root) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["synthetic"],
        ["synthetic", "--root", "x", "--images", "0"],
        ["synthetic", "--root", "x", "--size", "big"],
        ["synthetic", "--root", "x", "--seed", "-1"],
        ["synthetic", "--root", "x", "--split", "patient"],
        ["ham10000", "--root", "x", "--classes", "5"],
        ["folder", "--root", "x"],
    ],
)
def test_wrong_arguments_end_with_code_2_and_the_usage(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: python -m data_setup" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [[], ["synthetic"], ["ham10000"], ["folder"]])
def test_help_explains_every_option(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "--root" in out
    assert "%%" not in out


def test_records_say_how_the_folder_was_made(class_folders, tmp_path):
    root = tmp_path / "data"
    assert main(["folder", "--source", str(class_folders), "--root", str(root)]) == 0
    record = json.loads((root / "dataset.json").read_text())
    assert record["command"] == "folder"
    assert record["options"] == {"split": "lesion", "seed": 0}
    assert list(record["sources"]) == [str(class_folders)]
    files = sorted(p.relative_to(class_folders).as_posix() for p in class_folders.rglob("*.*"))
    assert record["sources"][str(class_folders)] == folder.fingerprint(class_folders, files)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a POSIX signal")
def test_ctrl_c_in_a_real_process(tmp_path):
    source, root = tmp_path / "source", tmp_path / "data"
    for label in ("a", "b"):
        (source / label).mkdir(parents=True)
        content = encoded(noise(1, 600, 450), "PNG")
        for i in range(150):
            (source / label / f"{i}.png").write_bytes(content)
    command = [sys.executable, "-m", "data_setup", "folder"]
    command += ["--source", str(source), "--root", str(root), "--workers", "1"]
    checkout = Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=checkout, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(root.glob("images/a/*.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command completes" in error
    assert "Traceback" not in error
    assert not (root / "manifest.csv").exists()
    assert 0 < len(list(root.glob("images/*/*.png"))) < 300
    subprocess.run(command, cwd=checkout, check=True, capture_output=True, timeout=120)
    assert len(read_manifest(root)) == 300
