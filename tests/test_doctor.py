"""The doctor's report on this machine, and on machines where one thing is missing."""

import importlib
import shutil
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest

from derm_hash import doctor


def check(name):
    return next(check for check in doctor.report() if check.name == name)


@pytest.fixture
def install(monkeypatch):
    """A function that changes what is installed: name -> version; None where nothing is."""
    version_of, load = metadata.version, importlib.import_module

    def pretend(versions):
        def version(distribution):
            if distribution not in versions:
                return version_of(distribution)
            if versions[distribution] is None:
                raise metadata.PackageNotFoundError(distribution)
            return versions[distribution]

        def import_module(name):
            if versions.get(name.split(".")[0], "") is None:
                raise ModuleNotFoundError(f"No module named {name!r}")
            return load(name)

        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr(importlib, "import_module", import_module)

    return pretend


def test_here_nothing_essential_is_broken():
    checks = doctor.report()
    assert [c.name for c in checks if c.essential and not c.ok] == []
    assert check("torch").value.startswith(metadata.version("torch"))
    assert check("JupyterLab").value == metadata.version("jupyterlab")
    assert len({c.name for c in checks}) == len(checks)


def test_print_report_names_what_is_broken(install, capsys):
    assert doctor.print_report() == 0
    assert "The course can run here" in capsys.readouterr().out
    install({"faiss": None, "faiss-cpu": None})
    assert doctor.print_report() == 1
    printed = capsys.readouterr().out
    assert "BROKEN  faiss" in printed
    assert "Not working: derm-hash, faiss\n" in printed
    assert doctor.INSTALL in printed


def test_optional_things_do_not_change_the_exit_status(install, monkeypatch, capsys):
    install({"jupyterlab": None, "ipywidgets": None})
    monkeypatch.setattr(doctor, "find_browser", lambda: None)
    assert doctor.print_report() == 0
    notes = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "note " in line]
    assert {"JupyterLab", "widgets", "browser"} <= set(notes)


def test_it_runs_where_the_packages_cannot_be_imported():
    """As a user would see it: a whole Python in which nothing heavy imports."""
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'faiss', 'numpy', 'pandas', 'psutil', 'cv2',"
        " 'packaging', 'matplotlib', 'ipywidgets'):\n"
        "    sys.modules[name] = None\n"
        "from derm_hash.doctor import print_report\n"
        "sys.exit(print_report())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == ""
    assert "Not working: derm-hash, torch, torchvision, faiss\n" in done.stdout


def test_torchvision_of_another_torch_is_named(monkeypatch):
    load = importlib.import_module

    def import_module(name):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nmore")
        return load(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    found = check("torchvision")
    assert not found.ok and found.essential
    assert "operator torchvision::nms does not exist" in found.value
    assert f"beside torch {metadata.version('torch')}" in found.value
    assert "one command" in found.remedy


@pytest.mark.parametrize("version, ok", [("2.5.1", False), ("2.6.0+cpu", True), ("3.0a1", True)])
def test_a_requirement_that_is_too_old_is_named(install, version, ok):
    install({"torch": version})
    found = check("derm-hash")
    assert found.ok == ok and (f"torch>=2.6 (found {version})" in found.remedy) == (not ok)


@pytest.mark.parametrize("name", ["derm-hash", "packaging", "torch", "torchvision", "psutil"])
def test_what_is_not_installed_can_be_installed(install, name):
    install({name: None})
    assert any(doctor.INSTALL in found.remedy for found in doctor.report())


def test_the_device_is_named(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert check("device").value.startswith(f"CPU, {torch.get_num_threads()} threads")

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "NVIDIA driver" in check("device").remedy

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert "MPS" in check("device").value

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "Test 9000")
    properties = SimpleNamespace(total_memory=24 * doctor.GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: properties)
    assert check("device").value == "GPU Test 9000, 24 GiB, the first of 2"


def test_the_cache_folder_is_the_one_that_the_environment_names(monkeypatch, tmp_path):
    monkeypatch.setenv("DERM_HASH_HOME", str(tmp_path / "not" / "yet"))
    assert check("cache").value.endswith(str(tmp_path / "not" / "yet"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("DERM_HASH_HOME", str(tmp_path / "file"))
    found = check("cache")
    assert not found.ok and found.essential and "DERM_HASH_HOME" in found.remedy


@pytest.mark.parametrize("kernel, browser", [("7.8.1", "3.0.17"), ("8.1.5", "1.1.11")])
def test_widgets_of_two_generations_are_reported(install, kernel, browser):
    install({"ipywidgets": kernel, "jupyterlab-widgets": browser})
    assert not check("widgets").ok
