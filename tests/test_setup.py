"""The files that set the project up agree with one another and with what is installed."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


def what_setup_installs():
    """What `make setup` installs: the dependencies, and the extras that `test` draws in."""
    extras = PROJECT["optional-dependencies"]
    drawn_in = ("lab", "teach", "cluster", "pretrained", "test")
    lines = PROJECT["dependencies"] + [line for name in drawn_in for line in extras[name]]
    needs = map(Requirement, lines)
    return [need for need in needs if need.name != PROJECT["name"]]


def pins():
    """constraints.txt as a dictionary name -> version."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    needs = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[^*,]+", str(need.specifier)) for need in needs)
    return {canonicalize_name(need.name): str(need.specifier)[2:] for need in needs}


each_requirement = pytest.mark.parametrize("need", what_setup_installs(), ids=lambda n: n.name)


# --- pyproject.toml, constraints.txt, environment.yml ---


@each_requirement
def test_every_requirement_is_pinned_to_a_version_that_it_accepts(need):
    assert need.specifier.contains(pins()[canonicalize_name(need.name)])


def test_pins_hold_on_every_platform():
    """The CUDA packages exist on Linux alone, and a CPU build of torch does without them."""
    assert [name for name in pins() if re.match(r"nvidia|cuda|triton", name)] == []
    assert PROJECT["name"] not in pins()


def test_conda_installs_python_and_leaves_the_rest_to_pip():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    *conda, pip = environment["dependencies"]
    assert [re.split("[=<>]", name)[0] for name in conda] == ["python", "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[lab,test]"]}
    version = conda[0].partition("=")[2]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)


# --- make and CI ---


def test_help_lists_every_command():
    shown = subprocess.check_output(["make", "--no-print-directory"], cwd=ROOT, text=True)
    assert set(re.findall(r"^  make ([a-z]+)  +\S", shown, re.MULTILINE)) == TARGETS
    assert {"setup", "lab", "walkthrough", "notebooks", "release", "grade"} <= TARGETS
    assert {"test", "bench", "clean"} <= TARGETS


def test_the_commands_of_the_readme_exist():
    readme = (ROOT / "README.md").read_text("utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", readme, re.MULTILINE))
    assert {"lab", "walkthrough", "test"} <= named
    assert named <= TARGETS
    extras = {name for group in re.findall(r"\.\[([a-z,]+)\]", readme) for name in group.split(",")}
    assert extras <= set(PROJECT["optional-dependencies"])


def test_lab_keeps_the_token_and_takes_options():
    command = ["make", "-n", "lab", "LAB_ARGS=--port 9000"]
    shown = subprocess.check_output(command, cwd=ROOT, text=True)
    assert "-m derm_hash.lab --port 9000" in shown
    assert "token" not in shown and "password" not in shown


# --- make setup ---

# Notes what it is asked to do; only `-c` is run, by a real Python that takes itself for this one.
STUB = """#!/bin/sh
self=$(readlink -f "$0")
version=${{self##*python3.}}
case "$1 $2 $3" in
    "-c "*) exec {python} -c "import sys; sys.version_info = (3, $version, 0); $2" ;;
    "-m pip --version") exit 0 ;;
    "-m venv "*)
        echo "$*" >>log; rm -rf .venv; mkdir -p .venv/bin; ln -s "$self" .venv/bin/python ;;
    .ci/pins.py*) echo "a pin" ;;
    *) echo "$*" >>log; test ! -e no-network ;;
esac
"""
PIP = "pip install --disable-pip-version-check -c .venv/constraints.txt -e .[lab,test]"
FILES = ["Makefile", "pyproject.toml", "constraints.txt", ".ci/pins.py"]


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """A function that runs `make setup` on a copy of the project, with stubs of Python.

    Returns the exit status, what make wrote, and what Python was asked to do.
    """
    for name in ("3.10", "3.11", "3.12"):
        program = tmp_path / "bin" / f"python{name}"
        program.parent.mkdir(exist_ok=True)
        program.write_text(STUB.format(python=sys.executable))
        program.chmod(0o755)
    (tmp_path / "bin" / "python3").symlink_to("python3.11")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    for name in FILES:
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, path)
        os.utime(path, (0, 0))

    def run(*options, folder="project"):
        log = tmp_path / folder / "log"
        log.write_text("")
        command = ["make", "setup", *options]
        done = subprocess.run(command, cwd=tmp_path / folder, capture_output=True, text=True)
        asked = log.read_text().replace("-m ", "").splitlines()
        return done.returncode, done.stdout + done.stderr, asked

    run.folder = tmp_path / "project"
    return run


def test_an_environment_is_made_once(setup):
    assert setup()[::2] == (0, ["venv --clear .venv", PIP])
    assert (setup.folder / ".venv" / "constraints.txt").read_text() == "a pin\n"
    assert setup()[::2] == (0, [])


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", ".ci/pins.py"])
def test_it_is_refreshed_after_a_change(setup, name):
    setup()
    os.utime(setup.folder / ".venv" / "derm-hash.stamp", (1, 1))
    (setup.folder / name).touch()
    assert setup()[2] == [PIP]
    assert setup()[2] == []


def test_a_checkout_that_was_moved_is_installed_again(setup):
    setup()
    setup.folder.rename(setup.folder.with_name("else where"))
    assert setup(folder="else where")[2] == [PIP]
    assert setup(folder="else where")[2] == []


def test_a_failed_installation_is_tried_again(setup):
    (setup.folder / "no-network").touch()
    for _ in range(2):
        status, shown, asked = setup()
        assert status != 0 and "run the same command again" in shown and asked[-1] == PIP
    (setup.folder / "no-network").unlink()
    assert setup()[::2] == (0, [PIP])


def test_an_old_python_is_refused_in_one_sentence(setup):
    status, shown, asked = setup("PYTHON=python3.10")
    assert status != 0 and asked == []
    assert "derm-hash needs Python 3.11 or newer, and python3.10 is 3.10: " in shown
    assert "`make setup PYTHON=python3.12`" in shown
    setup()
    assert setup("PYTHON=python3.10")[2] == [] and setup()[::2] == (0, [])


def test_another_python_is_taken_only_when_it_is_asked_for(setup):
    setup("PYTHON=python3.12")
    assert setup()[2] == setup("PYTHON=python3.12")[2] == []
    assert setup("PYTHON=python3.11")[2] == ["venv --clear .venv", PIP]
    status, shown, asked = setup("PYTHON=python9")
    assert status != 0 and asked == [] and "python9" in shown


def test_an_environment_that_the_user_made_is_kept(setup):
    subprocess.run(["python3", "-m", "venv", "--clear", ".venv"], cwd=setup.folder, check=True)
    assert setup()[2] == [PIP]


# --- .ci/pins.py ---


ALL_PINS = ["jinja2==3.1.6", "sympy==1.14.0", "torch==2.14.1", "torchvision==0.29.1"]


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({}, ALL_PINS),
        ({"torch": ["2.5.1+cpu"]}, ALL_PINS),  # too old
        # A torch that the user chose stays, with what it insists on.
        (
            {"torch": ["2.6.0+cpu", "sympy==1.13.1; python_version >= '3.9'", "jinja2"]},
            ["jinja2==3.1.6", "torch==2.6.0+cpu"],
        ),
        (
            {"torch": ["2.14.1+cpu"], "torchvision": ["0.29.1+cpu", "torch>=2.14.0"]},
            [*ALL_PINS[:2], "torch==2.14.1+cpu", "torchvision==0.29.1+cpu"],
        ),
    ],
)
def test_a_torch_that_the_user_chose_stays(tmp_path, monkeypatch, installed, expected):
    spec = importlib.util.spec_from_file_location("pins_script", ROOT / ".ci" / "pins.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    needs = '[project]\ndependencies = ["torch>=2.6", "torchvision", "sympy>=1.13"]\n'
    (tmp_path / "pyproject.toml").write_text(needs)
    (tmp_path / "constraints.txt").write_text("\n".join(["# made by hand", *reversed(ALL_PINS)]))

    def distribution(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        version, *requires = installed[name]
        return SimpleNamespace(version=version, requires=requires)

    monkeypatch.setattr(module, "distribution", distribution)
    assert module.pins(tmp_path) == expected
