"""Where people work: read-only homes, disks without locks, old consoles, no compiler."""

import argparse
import errno
import io
import os
import runpy
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from derm_hash import app, cli, course, doctor
from derm_hash.devices import check_compiler
from derm_hash.errors import InputError, counted, exit_code
from derm_hash.files import locked

ROOT = Path(__file__).resolve().parents[2]


def raises(number, name=None):
    """A command that the system stops with an error."""

    def command():
        raise OSError(number, os.strerror(number), name)

    return command


# --- one error, one remedy -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EACCES, "DERM_HASH_HOME"),
        (errno.ENOLCK, "no file locks"),
        (errno.EADDRINUSE, "--port"),
        (errno.ENOENT, "check the name"),
        (errno.EMFILE, "ulimit"),
    ],
)
def test_the_remedy_fits_the_cause(number, remedy, capsys):
    assert exit_code("derm-hash", raises(number, "/a file"), "") == 2
    said = capsys.readouterr().err
    assert remedy in said and "'/a file'" in said and len(said.splitlines()) == 1


def test_an_error_without_a_known_remedy_gets_no_wrong_one(capsys):
    assert exit_code("derm-hash", raises(errno.ECHILD, "x"), "") == 2
    assert capsys.readouterr().err.endswith(f"{os.strerror(errno.ECHILD)}: 'x'\n")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_disk_without_locks_is_named(number, tmp_path, monkeypatch, capsys):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", lambda *_: raises(number)())

    def command():
        with locked(tmp_path / "run", "busy"):
            pass

    assert exit_code("derm-hash", command, "") == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "run") in said and "on a disk that has them" in said


# --- folders that cannot be written -----------------------------------------------------------


def test_an_unwritable_cache_is_found_before_anything_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(course, "make_atlases", lambda *_: pytest.fail("drawn for nothing"))
    monkeypatch.setattr(course.tempfile, "TemporaryFile", lambda dir: raises(errno.EROFS, dir)())
    monkeypatch.setenv("DERM_HASH_HOME", str(tmp_path))
    assert cli.main(["train", "--data", "atlas", "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path) in said and "DERM_HASH_HOME" in said


def test_doctor_names_a_home_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    home = {"HOME": str(tmp_path / "file"), "PYTHONPATH": str(ROOT)}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "DERM"))}
    command = [sys.executable, "-m", "derm_hash", "doctor"]
    done = subprocess.run(command, env=environment | home, capture_output=True, text=True)
    lines = [line.split() for line in done.stdout.splitlines() if line]
    assert ["note", "home"] in [line[:2] for line in lines]
    assert ["BROKEN", "cache"] in [line[:2] for line in lines]
    assert done.returncode == 1 and "build/jupyter" in done.stdout


@pytest.mark.parametrize("missing", [False, True])
def test_what_can_be_written_is_found_out_by_writing(tmp_path, missing, monkeypatch):
    folder = tmp_path / "not yet" if missing else tmp_path
    assert doctor.cannot_write(folder) == "" and [*tmp_path.iterdir()] == []
    refused = os.strerror(errno.EROFS)
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", lambda dir: raises(errno.EROFS, dir)())
    assert doctor.cannot_write(folder) == refused


# --- consoles ---------------------------------------------------------------------------------


@pytest.fixture
def help_of(monkeypatch):
    """What ``python -m MODULE --help`` prints on a console of an encoding."""

    def run(module, encoding="utf-8"):
        console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [module, "--help"])
            patch.setattr(sys, "stdout", console)
            with pytest.raises(SystemExit) as stopped:
                runpy.run_module(module, run_name="__main__")
            console.flush()
        assert not stopped.value.code
        return console.buffer.getvalue().decode(encoding)

    return run


RUN_AGAIN = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")


@RUN_AGAIN
@pytest.mark.parametrize("encoding", ["ascii", "cp932"])
@pytest.mark.parametrize("module", ["derm_hash", "derm_hash.app", "data_setup"])
def test_help_is_printed_on_every_console(encoding, module, help_of):
    assert "usage: " in help_of(module, encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp932", "cp1252"])
def test_a_console_without_a_letter_shows_a_question_mark(encoding, monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", console)
    assert exit_code("derm-hash", lambda: print("0.44 \u00b1 0.01 Ł"), "") == 0
    console.flush()
    assert console.buffer.getvalue().startswith(b"0.44 ")


@RUN_AGAIN
def test_help_has_no_markup(help_of):
    parsers = [cli.parser(), *commands_of(cli.parser())]
    assert not [parser.prog for parser in parsers if "``" in parser.format_help()]
    assert not [name for name in ("derm_hash.app", "benchmarks") if "``" in help_of(name)]


def commands_of(parser):
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices.values()


def test_one_image_is_not_one_images():
    assert [counted(n, "image") for n in (0, 1, 2594)] == ["0 images", "1 image", "2,594 images"]


def test_the_next_command_can_be_copied_for_a_folder_with_blanks(tmp_path, monkeypatch, capsys):
    runs = tmp_path / "my runs"
    monkeypatch.setenv("DERM_HASH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(course.course_data, "__defaults__", ("atlas", 32, 60, 0))
    options = ["--backbone", "resnet8", "--epochs", "1", "--size", "32"]
    assert cli.main(["train", "--data", "atlas", "--runs", str(runs), *options]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    program, *words = shlex.split(line.removeprefix("next: "))
    assert program == "derm-hash" and Path(words[words.index("--run") + 1]).is_dir()
    assert cli.parser().parse_args(words).data == "atlas"


# --- ports and compilers ----------------------------------------------------------------------


def test_a_busy_port_is_found_before_the_work(monkeypatch, capsys):
    monkeypatch.setattr(app, "prepare", lambda *_: pytest.fail("worked for nothing"))
    monkeypatch.setattr(app.signal, "signal", lambda *_: None)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert app.main(["--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"the port {port} cannot be used" in said and 'make app ARGS="--port ' in said


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_that_is_none(port):
    with pytest.raises(InputError, match=f"{port} cannot be used .*--port {app.PORT}"):
        app.check_port(port)


def test_without_a_compiler_one_sentence_says_so(monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("No working C++ compiler found")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f: compile_(f, backend=broken))
    torch._dynamo.reset()
    with pytest.raises(InputError, match=r"No working C\+\+.*install a C\+\+ compiler.*--compile"):
        check_compiler(torch.device("cpu"))
