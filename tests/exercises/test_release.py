"""What is handed out: the students' versions, and the kit."""

import re
import zipfile
from pathlib import Path

from tests.exercises.notebooks import EXERCISES, FOLDER, code_cells, mark, points, read

FIGURES = sorted((FOLDER.parent / "figures").iterdir())


def test_the_students_versions_have_stubs_and_no_hidden_tests(script, tmp_path, capsys):
    assert script.main(["--course", str(tmp_path), "release"]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in written] == [path.name for path in EXERCISES]
    for path, source in zip(written, EXERCISES, strict=True):
        text = path.read_text("utf-8")
        assert "SOLUTION" not in text and "HIDDEN" not in text and "MARK SCHEME" not in text
        stubs = sum("raise NotImplementedError()" in c.source for c in code_cells(read(path)))
        assert stubs == len(code_cells(read(source), "solution"))
        assert points(read(path)) == points(read(source))
        for shown, whole in zip(code_cells(read(path)), code_cells(read(source)), strict=True):
            assert len(shown.source) < len(whole.source) or not mark(whole).get("grade")


def test_the_kit_for_students_has_no_solution(script, tmp_path, capsys):
    assert script.main(["--course", str(tmp_path), "student-kit"]) == 0
    with zipfile.ZipFile(capsys.readouterr().out.strip()) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        assert {"derm-hash/Makefile", "derm-hash/.student-kit"} <= set(names)
        assert {"derm-hash/benchmarks/configs/presets.toml"} <= set(names), "notebook 08 reads it"
        figures = {f"derm-hash/notebooks/figures/{path.name}" for path in FIGURES}
        assert figures and figures <= set(names)
        commands = archive.read("derm-hash/Makefile").decode()
        assert {"setup:", "lab:", "app:", "clean:"} <= set(re.findall(r"^\w+:", commands, re.M))
        assert not re.search(r"^(release|grade|hub|test|walkthrough):", commands, re.MULTILINE)
        assert not any("test" in Path(name).parts or name.endswith("grading.py") for name in names)
        inside = [name for name in names if "/exercises/" in name]
        assert sorted(Path(name).name for name in inside) == sorted(
            [path.name for path in EXERCISES] + ["08_statistics.csv"]
        )
        assert all("BEGIN SOLUTION" not in archive.read(name).decode() for name in inside)
