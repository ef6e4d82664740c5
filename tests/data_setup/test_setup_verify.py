"""`verify` notices every change to a data folder, and nothing else."""

import json
import os
import subprocess

import pytest

from data_setup.__main__ import main


@pytest.fixture
def root(ham, root, prepare):
    prepare("ham10000", "--archives", ham.folder)
    return root


@pytest.fixture
def verified(capsys, root):
    """Verify the folder: exit code, and the lines that name problems."""

    def run():
        capsys.readouterr()
        code = main(["verify", str(root)])
        lines = capsys.readouterr().out.splitlines()
        kinds = ("missing", "changed", "extra", "unreadable", "damaged", "unfinished")
        return code, [line for line in lines if line.split(":")[0] in kinds]

    return run


def test_a_new_folder_is_as_it_was_stored(root, capsys, verified):
    assert verified() == (0, [])
    assert main(["verify", str(root)]) == 0
    out = capsys.readouterr().out
    assert "ham10000 classes=4 partial=False size=256 fit=crop split=lesion seed=0" in out
    assert "from HAM10000_metadata.csv" in out
    assert f"{root}: as it was stored" in out


def test_the_sums_are_those_of_sha256sum(root):
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=root, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    names = [line[66:] for line in (root / "SHA256SUMS").read_text().splitlines()]
    files = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    assert names == sorted(files - {"dataset.json", "SHA256SUMS", ".lock"})


def test_every_kind_of_change_is_one_line_with_its_remedy(root, verified):
    images = sorted((root / "images").iterdir())
    images[0].unlink()
    content = bytearray(images[1].read_bytes())
    content[100] ^= 1
    images[1].write_bytes(content)
    (root / "masks" / "more.png").write_bytes(b"x")
    (root / "notes.txt").write_text("x")
    (root / ".DS_Store").write_text("x")
    code, lines = verified()
    assert code == 1
    assert [line.split(" ")[:2] for line in sorted(lines)] == [
        ["changed:", f"images/{images[1].name}:"],
        ["extra:", "masks/more.png"],
        ["extra:", "notes.txt"],
        ["missing:", f"images/{images[0].name}:"],
    ]
    assert all("copy it back" in line or "remove it" in line for line in lines)


def test_an_unreadable_file_is_named(root, verified):
    image = min((root / "images").iterdir())
    image.unlink()
    image.mkdir()
    code, lines = verified()
    assert code == 1
    assert lines[0].startswith(f"unreadable: images/{image.name} (")


@pytest.mark.parametrize("name", ["manifest.csv", "SHA256SUMS"])
def test_changed_and_missing_tables_are_noticed(root, verified, name):
    path = root / name
    path.write_bytes(path.read_bytes().replace(b"ISIC_0024306", b"ISIC_0024307", 1))
    code, lines = verified()
    assert code == 1
    assert any(line.startswith(f"changed: {name}") for line in lines)
    path.unlink()
    code, lines = verified()
    assert code == 1
    assert all(name in line for line in lines)


def test_changed_counts_are_noticed(root, verified):
    record = json.loads((root / "dataset.json").read_text())
    record["counts"]["images"] += 1
    (root / "dataset.json").write_text(json.dumps(record))
    code, (line,) = verified()
    assert code == 1
    assert "the counts in dataset.json" in line


@pytest.mark.parametrize("line", ["", "x", "0" * 64 + "  ../../etc/passwd", "0" * 64 + " *a"])
def test_damaged_sums_are_one_line_and_nothing_outside_is_read(root, verified, line):
    (root / "SHA256SUMS").write_text(line + "\n")
    code, (found,) = verified()
    assert code == 1
    assert found.startswith("damaged: line 1 of")
    (root / "SHA256SUMS").write_bytes(b"\xff\xfe")
    assert verified()[0] == 1


def test_what_data_setup_did_not_make_is_code_2(tmp_path, capsys, root):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "nowhere", root / "manifest.csv"):
        assert main(["verify", str(place)]) == 2
        assert str(place) in capsys.readouterr().err
    (root / "dataset.json").write_text("{")
    assert main(["verify", str(root)]) == 2
    assert os.linesep not in capsys.readouterr().err.strip()
    (root / "dataset.json").write_text('{"name": "mine", "labels": {"0": "skin"}}')
    assert main(["verify", str(root)]) == 2
    assert "data_setup did not make it" in capsys.readouterr().err
