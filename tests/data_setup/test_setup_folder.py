"""One's own class folders."""

import json
import os

import pytest
from publishers import contents

from data_setup.__main__ import main
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.manifest import read_manifest


def prepare(source, root, *options):
    return main(["folder", "--source", str(source), "--root", str(root), *options])


def refused(capsys, source, root, *options):
    assert prepare(source, root, *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("data_setup: ")
    assert not (root / "manifest.csv").exists()
    return error


def test_images_keep_their_files_if_asked_to_and_get_their_folders_label(
    class_folders, tmp_path, capsys
):
    (class_folders / "readme.txt").write_text("x")
    (class_folders / "naevus" / "notes.docx").write_text("x")
    (class_folders / "naevus" / ".hidden.png").write_text("x")
    root = tmp_path / "data"
    assert prepare(class_folders, root, "--size", "original") == 0
    frame = read_manifest(root)
    originals = [
        p for p in class_folders.rglob("*") if p.suffix in (".png", ".JPG", ".tif", ".bmp")
    ]
    originals = {p for p in originals if not p.name.startswith(".")}
    assert set(frame["image"]) == {
        f"images/{p.relative_to(class_folders).as_posix()}" for p in originals
    }
    for row in frame.itertuples():
        name = row.image.removeprefix("images/")
        assert (root / row.image).read_bytes() == (class_folders / name).read_bytes()
        assert row.label == name.split("/")[0]
        assert (row.lesion_id, row.mask, row.source) == ("", "", "own images")
    out = capsys.readouterr().out
    assert "not images: 2" in out
    assert "same lesion is not known" in out
    assert f"derm-hash train --data {root}" in out
    counts = json.loads((root / "dataset.json").read_text())["counts"]
    assert counts["classes"] == {
        label: {"database": 8, "val": 1, "query": 1, "all": 10}
        for label in ("naevus", "other things")
    }
    dataset = LesionDataset.from_folder(root, size=15, progress=False)
    assert dataset.classes == ("naevus", "other things")
    assert len(dataset.split("query")) == 2


def test_blanks_in_the_path_are_quoted_in_the_next_command(class_folders, tmp_path, capsys):
    assert prepare(class_folders, tmp_path / "my data") == 0
    assert f"--data '{tmp_path / 'my data'}'" in capsys.readouterr().out


def test_an_empty_class_folder_is_named(class_folders, tmp_path, capsys):
    (class_folders / "empty").mkdir()
    assert "empty has no images" in refused(capsys, class_folders, tmp_path / "data")


def test_a_folder_without_class_folders_is_named(class_folders, tmp_path, capsys):
    error = refused(capsys, class_folders / "naevus" / "nested", tmp_path / "data")
    assert "has no folders" in error
    assert "does not exist" in refused(capsys, tmp_path / "nowhere", tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["two\nlines.png", "a\\..\\up.png", "\udcff.png"])
def test_a_name_that_cannot_stand_in_a_manifest_is_refused(class_folders, tmp_path, capsys, name):
    (class_folders / "naevus" / "1.JPG").rename(class_folders / "naevus" / name)
    assert "rename" in refused(capsys, class_folders, tmp_path / "data")


def test_a_root_inside_the_source_is_refused(class_folders, capsys):
    for root in (class_folders, class_folders / "data", class_folders.parent):
        assert prepare(class_folders, root) == 2
        assert "lie in each other" in capsys.readouterr().err


def test_changed_sources_are_noticed(class_folders, tmp_path, capsys):
    root = tmp_path / "data"
    assert prepare(class_folders, root) == 0
    before = contents(root)
    capsys.readouterr()
    assert prepare(class_folders, root) == 0
    assert "complete already" in capsys.readouterr().out
    (class_folders / "naevus" / "0.png").unlink()
    assert prepare(class_folders, root) == 2
    assert "from other source files" in capsys.readouterr().err
    assert contents(root) == before
    assert prepare(class_folders, root, "--force") == 0
    assert len(read_manifest(root)) == 19
    assert not (root / "images" / "naevus" / "0.png").exists()


def test_classes_can_be_chosen(class_folders, tmp_path, capsys):
    root = tmp_path / "data"
    assert prepare(class_folders, root, "--classes", "naevus") == 0
    assert set(read_manifest(root)["label"]) == {"naevus"}
    error = refused(capsys, class_folders, tmp_path / "other", "--classes", "naevus,mole")
    assert "no image has the label 'mole': use some of naevus, other things" in error


def test_two_files_that_would_become_one_are_named(class_folders, tmp_path, capsys):
    (class_folders / "naevus" / "0.jpg").write_bytes((class_folders / "naevus/0.png").read_bytes())
    error = refused(capsys, class_folders, tmp_path / "data")
    assert "images/naevus/0.jpg and images/naevus/0.png would be stored under one name" in error
    assert prepare(class_folders, tmp_path / "data", "--size", "original") == 0


# --- a table ------------------------------------------------------------------------


TABLE = "image,label,lesion_id\nnaevus/0.png,NV,a\nnaevus/1.JPG,NV,a\nother things/2,MEL,b\n"


def from_table(source, tmp_path, text, *options):
    table = tmp_path / "labels.csv"
    table.write_text(text)
    return ["--csv", str(table), *options]


def test_a_table_gives_labels_and_lesions(class_folders, tmp_path, capsys):
    options = from_table(class_folders, tmp_path, TABLE)
    assert prepare(class_folders, tmp_path / "data", *options) == 0
    frame = read_manifest(tmp_path / "data")
    assert frame["image"].tolist() == [
        "images/naevus/0.jpg",
        "images/naevus/1.jpg",
        "images/other things/2.jpg",
    ]
    assert frame["label"].tolist() == ["NV", "NV", "MEL"]
    assert frame["lesion_id"].tolist() == ["a", "a", "b"]
    out = capsys.readouterr().out
    assert "has no label for them: naevus/2.tif, naevus/3.bmp" in out
    assert "and 7 more" in out


def test_columns_can_be_named(class_folders, tmp_path):
    text = "id,dx,patient,label\nnaevus/0,NV,p,wrong\nnaevus/1,MEL,q,wrong\n"
    options = from_table(class_folders, tmp_path, text, "--image-column", "id")
    options += ["--label-column", "dx", "--lesion-column", "patient"]
    assert prepare(class_folders, tmp_path / "data", *options) == 0
    frame = read_manifest(tmp_path / "data")
    assert frame["label"].tolist() == ["NV", "MEL"]
    assert frame["lesion_id"].tolist() == ["p", "q"]


def test_a_changed_table_is_noticed(class_folders, tmp_path, capsys):
    options = from_table(class_folders, tmp_path, TABLE)
    assert prepare(class_folders, tmp_path / "data", *options) == 0
    from_table(class_folders, tmp_path, TABLE.replace("MEL", "BCC "))
    assert prepare(class_folders, tmp_path / "data", *options) == 2
    assert "from other source files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.replace("image", "picture", 1), "no column 'image' (its columns: picture"),
        (
            lambda t: t.replace("label", "dx", 1),
            "name the right ones with",
        ),
        (lambda t: t.splitlines()[0], "has no rows"),
        (lambda t: "", "is empty"),
        (lambda t: t.replace(",MEL,", ",,"), "line 4 of"),
        (
            lambda t: t.replace("naevus/1.JPG,NV", "naevus/0,MEL"),
            "0.png twice, in lines 2 and 3",
        ),
        (lambda t: t.replace("naevus/1.JPG", "naevus/11"), "1 images of"),
        (lambda t: t.replace("naevus/1.JPG", "../secret"), "cannot stand in a manifest"),
        (lambda t: t.replace("naevus/1.JPG", "/etc/passwd"), "cannot stand in a manifest"),
        (lambda t: t.replace("naevus/1.JPG", ""), "line 3 of"),
        (lambda t: t.replace("lesion_id", "label ", 1), "two columns 'label'"),
        (lambda t: t.replace("image,label", "label,label", 1), "two columns 'label'"),
        (lambda t: t.replace("image", '"a\nb"', 1), r"(its columns: a\nb, label"),
        (lambda t: t.replace("MEL", '"M\nEL"'), r"the label 'M\nEL' with a control"),
        (lambda t: t.replace(",b", ",\x1b[31m"), r"the lesion_id '\x1b[31m' with a control"),
        (
            lambda t: t.replace("naevus/1.JPG", "naevus//0.png"),
            "0.png twice, in lines 2 and 3",
        ),
    ],
)
def test_bad_tables_are_reported_never_guessed(class_folders, tmp_path, capsys, change, named):
    options = from_table(class_folders, tmp_path, change(TABLE))
    assert named in refused(capsys, class_folders, tmp_path / "data", *options)


def test_an_ambiguous_name_is_reported(class_folders, tmp_path, capsys):
    (class_folders / "naevus" / "0.jpg").write_bytes(b"x")
    options = from_table(class_folders, tmp_path, TABLE.replace("0.png", "0"))
    error = refused(capsys, class_folders, tmp_path / "data", *options)
    assert "naevus/0.jpg or naevus/0.png: write the suffix" in error


def test_lesions_with_several_labels_are_reported(class_folders, tmp_path, capsys):
    options = from_table(class_folders, tmp_path, TABLE.replace(",b", ",a"))
    assert prepare(class_folders, tmp_path / "data", *options) == 0
    assert "images have different labels in" in capsys.readouterr().out
