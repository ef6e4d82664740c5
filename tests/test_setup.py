"""The files that set the project up agree with one another and with what is installed."""

import importlib.util
import json
import os
import re
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
    lines = [*PROJECT["dependencies"], *extras["lab"], *extras["teach"], *extras["test"]]
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


@each_requirement
def test_what_is_installed_is_what_is_required(need):
    assert need.specifier.contains(metadata.version(need.name), prereleases=True)


def test_no_requirement_is_given_twice():
    names = [need.name for need in what_setup_installs()]
    assert len(names) == len(set(names))


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


# --- weaknesses that are known of the pinned versions ---

AUDIT = ["pip_audit", "-r", "constraints.txt", "--no-deps", "--disable-pip", "--timeout", "5"]
AUDIT += ["--format", "json", "--progress-spinner", "off"]


def known_weaknesses(report):
    """What pip-audit's report (its JSON) says: a line each; None where it could ask nobody."""
    answered = [each for each in report["dependencies"] if "skip_reason" not in each]
    if not answered:
        return None
    return [
        f"{each['name']} {each['version']}: {weakness['id']}, mended in {weakness['fix_versions']}"
        for each in answered
        for weakness in each["vulns"]
    ]


def test_a_weakness_is_found_in_a_report():
    good = {"name": "torch", "version": "2.14.1", "vulns": []}
    weak = {"id": "CVE-2024-1", "fix_versions": ["3.1.6"]}
    bad = {"name": "jinja2", "version": "3.1.0", "vulns": [weak]}
    unknown = {"name": "numpy", "skip_reason": "Dependency not found on PyPI"}
    assert known_weaknesses({"dependencies": [good, unknown]}) == []
    assert known_weaknesses({"dependencies": [good, bad]}) == [
        "jinja2 3.1.0: CVE-2024-1, mended in ['3.1.6']"
    ]
    assert known_weaknesses({"dependencies": [unknown]}) is None


def test_the_pinned_versions_have_no_known_weakness():
    """Asks the index of Python packages about each of them, where it can be reached."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", *AUDIT], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        found = known_weaknesses(json.loads(done.stdout))
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        found = None
    if found is None:
        pytest.skip("no reports of known weaknesses can be had here: run pip-audit elsewhere")
    assert found == [], "take a mended version in constraints.txt"


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


def test_ci_is_a_script_that_bash_accepts():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    assert "\nmake test\n" in script.read_text("utf-8")


# --- .ci/venv.py ---


@pytest.fixture
def venv(tmp_path, monkeypatch):
    """The script as a module, on a project and an environment of the test's own."""
    spec = importlib.util.spec_from_file_location("venv_script", ROOT / ".ci" / "venv.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("version = 3.11.7")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["torch>=2.6", "torchvision", "sympy>=1.13"]\n'
    )
    (tmp_path / "constraints.txt").write_text(
        "# made by hand\ntorch==2.14.1\ntorchvision==0.29.1\nsympy==1.14.0\njinja2==3.1.6\n"
    )
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "BIN", tmp_path / ".venv" / "bin" / "python")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "stamp")
    return module


@pytest.fixture
def installed(monkeypatch):
    """A function that says which torch and torchvision are in the environment."""

    def pretend(**versions):
        def distribution(name):
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            version, *requires = versions[name]
            return SimpleNamespace(version=version, requires=requires)

        monkeypatch.setattr(metadata, "distribution", distribution)

    return pretend


ALL_PINS = ["jinja2==3.1.6", "sympy==1.14.0", "torch==2.14.1", "torchvision==0.29.1"]


@pytest.mark.parametrize("torch", [{}, {"torch": ["2.14.1"]}, {"torch": ["2.5.1+cpu"]}])
def test_the_pins_decide_where_no_fitting_torch_is_installed(venv, installed, torch):
    installed(**torch)
    assert venv.constraints() == ALL_PINS


def test_a_torch_that_the_user_chose_stays_with_what_it_insists_on(venv, installed):
    installed(torch=["2.6.0+cpu", "sympy==1.13.1; python_version >= '3.9'", "jinja2"])
    assert venv.constraints() == ["jinja2==3.1.6", "torch==2.6.0+cpu"]


def test_a_pair_that_the_user_chose_stays(venv, installed):
    installed(torch=["2.14.1+cpu"], torchvision=["0.29.1+cpu", "torch>=2.14.0"])
    assert venv.constraints() == [*ALL_PINS[:2], "torch==2.14.1+cpu", "torchvision==0.29.1+cpu"]


@pytest.fixture
def pip(monkeypatch, venv, installed):
    """Instead of running programs: a list of the commands, which end with `pip.status`."""
    installed()
    record = SimpleNamespace(commands=[], status=0)

    def run(command, **options):
        record.commands.append(command)
        return SimpleNamespace(returncode=record.status)

    programs = SimpleNamespace(**(vars(subprocess) | {"run": run}))
    monkeypatch.setattr(venv, "subprocess", programs)
    return record


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", ".venv/pyvenv.cfg"])
def test_pip_runs_once_and_again_after_a_change(venv, pip, name):
    venv.refresh()
    [_, command] = pip.commands
    assert command[-2:] == ["-e", ".[lab,test]"]
    assert (venv.VENV / "constraints.txt").read_text().split() == ALL_PINS
    assert venv.up_to_date()
    venv.refresh()
    assert len(pip.commands) == 2
    with (venv.ROOT / name).open("a") as file:
        file.write("\n# changed\n")
    assert not venv.up_to_date()
    venv.refresh()
    assert len(pip.commands) == 4


def test_an_environment_that_was_moved_is_installed_again(venv, pip, monkeypatch):
    venv.refresh()
    monkeypatch.setattr(venv, "ROOT", venv.ROOT.rename(venv.ROOT.with_name("elsewhere")))
    monkeypatch.setattr(venv, "STAMP", venv.ROOT / ".venv" / "stamp")
    monkeypatch.setattr(venv, "BIN", venv.ROOT / ".venv" / "bin" / "python")
    assert venv.STAMP.exists() and not venv.up_to_date()


def test_a_failed_installation_is_tried_again(venv, pip):
    venv.refresh()
    (venv.ROOT / "pyproject.toml").write_text('[project]\ndependencies = ["torch", "torchvision"]')
    pip.status = 1
    for _ in range(2):
        with pytest.raises(SystemExit, match="run the same command again"):
            venv.refresh()
    assert len(pip.commands) == 6
    assert not venv.STAMP.exists()


def test_an_old_python_is_refused_in_one_sentence(venv, pip, monkeypatch):
    venv.BIN.unlink()
    monkeypatch.setattr(venv.sys, "version_info", (3, 10, 13, "final", 0))
    with pytest.raises(SystemExit, match=r"needs Python 3.11 or newer, and .* is 3.10: .*PYTHON="):
        venv.create(exact=False)
    assert pip.commands == []


def test_another_python_is_taken_only_when_it_is_asked_for(venv, pip, monkeypatch):
    venv.create(exact=True)
    assert pip.commands == []
    versions = {venv.BIN: "3.12", sys.executable: "3.11"}
    monkeypatch.setattr(venv, "version_of", versions.get)
    venv.create(exact=False)
    assert pip.commands == []
    venv.create(exact=True)
    assert pip.commands[0][1:4] == ["-m", "venv", "--clear"]


def test_a_broken_environment_is_made_anew(venv, pip):
    venv.refresh()
    venv.BIN.unlink()
    venv.BIN.symlink_to("/no/such/python")
    assert not venv.up_to_date()
    pip.commands.clear()
    venv.create(exact=False)
    assert pip.commands[0][1:4] == ["-m", "venv", "--clear"]
