"""One's own class folders."""

import os

import pytest
from publishers import contents

from data_setup.__main__ import main
from derm_hash.data.dataset import LesionDataset


@pytest.fixture
def command(class_folders):
    return ["folder", "--source", class_folders]


def test_images_keep_their_files_if_asked_to_and_get_their_folders_label(
    class_folders, command, prepare, record, root, capsys
):
    (class_folders / "readme.txt").write_text("x")
    (class_folders / "naevus" / "notes.docx").write_text("x")
    (class_folders / "naevus" / ".hidden.png").write_text("x")
    frame = prepare(*command, "--size", "original")
    originals = set(class_folders.rglob("*/[0-9]*.*"))
    assert set(frame["image"]) == {
        f"images/{p.relative_to(class_folders).as_posix()}" for p in originals
    }
    for row in frame.itertuples():
        name = row.image.removeprefix("images/")
        assert (root / row.image).read_bytes() == (class_folders / name).read_bytes()
        assert row.label == name.split("/")[0]
        assert (row.lesion_id, row.mask, row.source) == ("", "", "own images")
    out = capsys.readouterr().out
    assert "in no class folder: 2, such as naevus/notes.docx" in out
    assert "not known which images show the same lesion, so a query may find its own" in out
    assert f"derm-hash train --data {root}" in out
    assert record()["counts"]["classes"] == {
        label: {"database": 8, "val": 1, "query": 1, "all": 10}
        for label in ("naevus", "other things")
    }
    dataset = LesionDataset.from_folder(root, size=15, progress=False)
    assert dataset.classes == ("naevus", "other things")
    assert len(dataset.split("query")) == 2


def test_blanks_in_the_path_are_quoted_in_the_next_command(command, prepare, tmp_path, capsys):
    prepare(*command, root=tmp_path / "my data")
    assert f"--data '{tmp_path / 'my data'}'" in capsys.readouterr().out


def test_folders_that_are_not_class_folders_are_named(class_folders, command, refused, root):
    (class_folders / "empty").mkdir()
    assert "empty has no images" in refused(*command)
    assert "has no folders" in refused("folder", "--source", class_folders / "naevus" / "nested")
    assert "does not exist" in refused("folder", "--source", class_folders / "nowhere")
    assert not root.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["two\nlines.png", "a\\..\\up.png", "\udcff.png"])
def test_a_name_that_cannot_stand_in_a_manifest_is_refused(class_folders, command, refused, name):
    (class_folders / "naevus" / "1.JPG").rename(class_folders / "naevus" / name)
    assert "rename" in refused(*command)


def test_a_root_inside_the_source_is_refused(class_folders, command, capsys):
    for root in (class_folders, class_folders / "data", class_folders.parent):
        assert main([*map(str, command), "--root", str(root)]) == 2
        assert "lie in each other" in capsys.readouterr().err


def test_changed_sources_are_noticed(class_folders, command, prepare, root, capsys):
    prepare(*command)
    before = contents(root)
    capsys.readouterr()
    prepare(*command)
    assert "complete already" in capsys.readouterr().out
    (class_folders / "naevus" / "0.png").unlink()
    assert main([*map(str, command), "--root", str(root)]) == 2
    assert "from other source files" in capsys.readouterr().err
    assert contents(root) == before
    assert len(prepare(*command, "--force")) == 19
    assert not (root / "images" / "naevus" / "0.png").exists()


def test_classes_can_be_chosen(command, prepare, refused):
    error = refused(*command, "--classes", "naevus,mole")
    assert "no image has the label 'mole' of --classes: use some of naevus, other things" in error
    assert set(prepare(*command, "--classes", "naevus")["label"]) == {"naevus"}


def test_two_files_that_would_become_one_are_named(class_folders, command, prepare, refused):
    (class_folders / "naevus" / "0.jpg").write_bytes((class_folders / "naevus/0.png").read_bytes())
    error = refused(*command)
    assert "images/naevus/0.jpg and images/naevus/0.png would be stored under one name" in error
    prepare(*command, "--size", "original")


# --- a table ------------------------------------------------------------------------


TABLE = "image,label,lesion_id\nnaevus/0.png,NV,a\nnaevus/1.JPG,NV,a\nother things/2,MEL,b\n"


@pytest.fixture
def table(tmp_path):
    return tmp_path / "labels.csv"


@pytest.fixture
def with_table(table, command):
    table.write_text(TABLE)
    return [*command, "--csv", table]


def test_a_table_gives_labels_and_lesions(with_table, prepare, capsys):
    frame = prepare(*with_table)
    names = ["naevus/0.jpg", "naevus/1.jpg", "other things/2.jpg"]
    assert frame["image"].tolist() == [f"images/{name}" for name in names]
    assert frame["label"].tolist() == ["NV", "NV", "MEL"]
    assert frame["lesion_id"].tolist() == ["a", "a", "b"]
    out = capsys.readouterr().out
    assert "has no label for them: naevus/2.tif, naevus/3.bmp" in out
    assert "and 7 more" in out


def test_columns_can_be_named(table, with_table, prepare):
    table.write_text("id,dx,patient,label\nnaevus/0,NV,p,wrong\nnaevus/1,MEL,q,wrong\n")
    names = {"image": "id", "label": "dx", "lesion": "patient"}
    options = [word for name, column in names.items() for word in (f"--{name}-column", column)]
    frame = prepare(*with_table, *options)
    assert frame["label"].tolist() == ["NV", "MEL"]
    assert frame["lesion_id"].tolist() == ["p", "q"]


def test_a_changed_table_is_noticed(table, with_table, prepare, root, capsys):
    prepare(*with_table)
    table.write_text(TABLE.replace("MEL", "BCC "))
    assert main([*map(str, with_table), "--root", str(root)]) == 2
    assert "from other source files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("image,", "picture,", "no column 'image' (its columns: picture"),
        ("label", "dx", "name the right ones with"),
        (",MEL,", ",,", "line 4 of"),
        ("naevus/1.JPG,NV", "naevus/0,MEL", "0.png twice, in lines 2 and 3"),
        ("naevus/1.JPG", "naevus/11", "lists 1 image that cannot be found (naevus/11)"),
        ("naevus/1.JPG", "../secret", "cannot be found (../secret)"),
        ("naevus/1.JPG", "", "line 3 of"),
        ("MEL", '"M\nEL"', r"the label 'M\nEL' in line 4 of"),
        (",b", ",\x1b[31m", r"the lesion_id '\x1b[31m' in line 4 of"),
    ],
)
def test_bad_tables_are_reported_never_guessed(table, with_table, refused, before, after, named):
    assert before in TABLE
    table.write_text(TABLE.replace(before, after))
    assert named in refused(*with_table)


def test_an_ambiguous_name_is_reported(class_folders, table, with_table, refused):
    (class_folders / "naevus" / "0.jpg").write_bytes(b"x")
    table.write_text(TABLE.replace("0.png", "0"))
    assert "naevus/0.jpg or naevus/0.png: write the suffix" in refused(*with_table)


def test_lesions_with_several_labels_are_reported(table, with_table, prepare, capsys):
    table.write_text(TABLE.replace(",b", ",a"))
    prepare(*with_table)
    assert "images have different labels in" in capsys.readouterr().out
