"""The command line, from a data folder to the picture of hits, and its sentences for bad input."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from derm_hash import cli
from derm_hash.atlas.atlas import make_atlas
from derm_hash.cli import main
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.manifest import read_manifest, write_manifest
from derm_hash.data.splits import split_by_lesion
from derm_hash.model import encode
from derm_hash.retrieval import HashIndex
from derm_hash.runs import load_model

TINY = ["--backbone", "resnet10", "--bits", "8", "--epochs", "1", "--batch-size", "16"]


def write_folder(root, atlas):
    """A data folder with the images of an atlas."""
    (root / "images").mkdir(parents=True)
    rows = []
    for i, (image, label, lesion) in enumerate(
        zip(atlas.images, atlas.labels, atlas.lesion_ids, strict=True)
    ):
        Image.fromarray(image).save(root / "images" / f"{i:03}.png")
        rows.append({"image": f"images/{i:03}.png", "label": label, "lesion_id": lesion})
    write_manifest(split_by_lesion(pd.DataFrame(rows), query=0.25, val=0.2), root)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "d", make_atlas(48, 32, progress=False))


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    data = ["--data", str(folder), "--size", "32"]
    assert main(["train", *data, "--runs", str(runs), "--name", "tiny", *TINY]) == 0
    return runs / "tiny"


def test_train_leaves_model_index_curves_and_metrics(run):
    names = {path.name for path in run.iterdir()}
    wanted = {"config.json", "metrics.csv", "model.safetensors", "checkpoint.safetensors"}
    assert wanted | {".lock", "index.safetensors", "history.png"} == names
    assert load_model(run).bits == 8


def test_train_compiles_on_request_alone(folder, monkeypatch):
    asked = []

    def train(*args, compiled):
        asked.append(compiled)
        raise KeyboardInterrupt  # that will do

    monkeypatch.setattr(cli, "train", train)
    for options in ["--compile"], []:
        assert main(["train", "--data", str(folder), "--size", "32", *options]) == 130
    assert asked == [True, False]


def test_evaluate_prints_every_class(run, folder, capsys):
    assert main(["evaluate", "--run", str(run), "--data", str(folder)]) == 0
    shown = capsys.readouterr().out
    queries = LesionDataset.from_folder(folder, 32, progress=False).split("query")
    for name, count in queries.table["label"].value_counts().items():
        row = next(line.split() for line in shown.splitlines() if line.startswith(name))
        assert int(row[1]) == count
    scores = pd.read_csv(run / "evaluation.csv", index_col="score")["value"]
    assert 0 <= scores["class_mean_map"] <= 1 and f"{scores['class_mean_map']:.3f}" in shown


def test_search_finds_the_image_itself_first(run, folder, tmp_path, capsys):
    """A database image as query: distance 0, and the picture of the hits is drawn."""
    table = read_manifest(folder)
    name = table.loc[table["split"] == "database", "image"].iloc[0]
    out = tmp_path / "hits.png"
    options = ["--run", str(run), "--out", str(out), "--radius", "8", "--label", "MEL"]
    assert main(["search", str(folder / name), *options]) == 0
    first = capsys.readouterr().out.splitlines()[2].split()
    assert first[:2] == ["1", name] and float(first[-1]) == pytest.approx(0, abs=1e-4)
    with Image.open(out) as picture:
        assert picture.width > 500 and len(np.unique(np.asarray(picture))) > 50


def test_search_takes_an_image_of_any_mode_and_shape(run, tmp_path, capsys):
    image = tmp_path / "grey.png"
    Image.fromarray(make_atlas(4, 64, progress=False).images[0]).convert("L").resize((90, 64)).save(
        image
    )
    options = ["--run", str(run), "--out", str(tmp_path / "h.png"), "--radius", "8", "--k", "500"]
    assert main(["search", str(image), *options]) == 0
    assert "hamming" in capsys.readouterr().out


def test_search_may_ask_for_more_hits_than_there_are(run, folder, tmp_path, capsys):
    images = (read_manifest(folder)["split"] == "database").sum()
    options = ["--run", str(run), "--out", str(tmp_path / "h.png"), "--radius", "8"]
    image = str(folder / "images/000.png")
    assert main(["search", image, *options, "--k", str(10**10), "--label", r"$\frac{$"]) == 0
    assert f"\n{images} " in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_search_does_not_wait_for_a_pipe(run, folder, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert main(["search", str(tmp_path / "pipe"), "--run", str(run)]) == 2
    assert "pipe is not a file" in capsys.readouterr().err
    shutil.copytree(run, tmp_path / "run")
    index = HashIndex.load(run / "index.safetensors")
    index.items = index.items.assign(folder=str(tmp_path), image="pipe")
    index.save(tmp_path / "run" / "index.safetensors")
    image = str(folder / "images/000.png")
    options = ["--run", str(tmp_path / "run"), "--out", str(tmp_path / "h.png"), "--radius", "8"]
    assert main(["search", image, *options]) == 2
    assert "pipe is not a file" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_query_with_a_line_end_in_its_name_is_shown_all_the_same(run, tmp_path, capsys):
    file = tmp_path / "odd\n.png"
    Image.new("RGB", (32, 32)).save(file)
    shutil.copytree(run, tmp_path / "run")
    far = HashIndex.load(run / "index.safetensors")
    code = encode(load_model(run), torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    HashIndex.build((code < 0.5).repeat(len(far), 0), far.labels, far.items).save(
        tmp_path / "run" / "index.safetensors"
    )
    assert main(["search", str(file), "--run", str(tmp_path / "run"), "--radius", "0"]) == 0
    assert "odd\\n.png: try a larger --radius" in capsys.readouterr().out


def test_encode_writes_the_codes_of_the_split(run, folder, capsys):
    command = ["encode", "--run", str(run), "--data", str(folder), "--split", "query"]
    assert main(command) == 0
    queries = LesionDataset.from_folder(folder, 32, progress=False).split("query")
    assert f"{len(queries)} codes of 8 bits" in capsys.readouterr().out
    codes = HashIndex.load(run / "index.safetensors").codes
    np.testing.assert_allclose(codes, encode(load_model(run), queries), atol=1e-6)
    main(["encode", "--run", str(run), "--data", str(folder)])


def test_encode_uses_bfloat16_on_request_alone(run, folder, capsys):
    from derm_hash.retrieval import HashIndex

    command = ["encode", "--run", str(run), "--data", str(folder), "--split", "query"]
    queries = LesionDataset.from_folder(folder, 32, progress=False).split("query")
    for options, bf16 in (["--bf16"], True), ([], False):
        assert main([*command, *options]) == 0
        codes = HashIndex.load(run / "index.safetensors").codes
        np.testing.assert_array_equal(codes, encode(load_model(run), queries, bf16=bf16))
    main(["encode", "--run", str(run), "--data", str(folder)])


def test_reproduce_leaves_a_table_and_a_figure(folder, tmp_path, capsys):
    file = tmp_path / "grid.toml"
    file.write_text(
        f'[data]\nsource = "{folder.as_posix()}"\nsize = 32\n'
        '[grid]\nseed = [0, 1]\nreadout = ["plain", "orbit-mean"]\n'
        '[train]\nbackbone = "resnet10"\nattention = "none"\nbits = 8\nepochs = 1\n'
        'batch_size = 16\n[baseline]\nreadout = "plain"\n'
    )
    assert main(["reproduce", str(file), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    mean = table.loc[table["readout"] == "orbit-mean", "class_mean_map"].mean()
    row = next(line for line in shown.out.splitlines() if line.startswith("orbit-mean"))
    assert f"{mean:.3f} ± " in row and "runs: 100%" in shown.err
    with Image.open(tmp_path / "out" / "results.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    plain = table.loc[table["readout"] == "plain", "class_mean_map"].mean()
    differences = pd.read_csv(tmp_path / "out" / "differences.csv").set_index("score")
    row = differences.loc["class_mean_map"]
    assert row["difference"] == pytest.approx(mean - plain, abs=1e-6)
    assert row["low"] <= row["difference"] <= row["high"] and row["readout"] == "orbit-mean"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["search", "{tmp}/absent.png", "--run", "{run}"], "absent.png"),
        (["search", "{tmp}/text.png", "--run", "{run}"], "text.png"),
        (["search", "{image}", "--run", "{run}", "--k", "0"], "k is the number of hits"),
        (["search", "{tmp}", "--run", "{run}"], "is not a file: name an image file"),
        (["search", "{image}", "--run", "{run}", "--label", "\x1b[1m"], "--label '\\x1b[1m' has"),
        (["search", "{image}", "--run", "{run}", "--label", "N" * 1001], "than 1000 characters"),
        (["search", "{image}", "--run", "{tmp}"], "train it first"),
        (["evaluate", "--run", "{run}", "--data", "{tmp}/nothing"], "nothing"),
        (["train", "--data", "{data}", "--orbit", "0"], "orbit must be greater than 0"),
        (["train", "--data", "{data}", "--schedule", "x"], "schedule must be one of"),
        (["reproduce", "{tmp}/absent.toml"], "absent.toml"),
    ],
)
def test_bad_input_gets_one_sentence(command, sentence, run, folder, tmp_path, capsys):
    (tmp_path / "text.png").write_text("not an image")
    places = {"tmp": tmp_path, "run": run, "data": folder, "image": folder / "images/000.png"}
    capsys.readouterr()
    assert main([part.format(**places) for part in command]) == 2
    shown = capsys.readouterr().err
    assert sentence in shown and "Traceback" not in shown
    assert len([line for line in shown.splitlines() if line.startswith("derm-hash:")]) == 1


def test_a_run_of_other_classes_is_refused(run, tmp_path, capsys):
    atlas = make_atlas(24, 32, balance={"MEL": 0.5, "NV": 0.5}, progress=False)
    other = write_folder(tmp_path / "two", atlas)
    assert main(["evaluate", "--run", str(run), "--data", str(other)]) == 2
    assert "same classes" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys):
    def stop(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("derm_hash.cli.doctor_command", stop)
    assert main(["doctor"]) == 130
    assert "goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        (["--augment", "true"], "augment", True),
        (["--augment", "False"], "augment", False),
        (["--learning-rate", "1e-3"], "learning_rate", 0.001),
        (["--epochs", "7"], "epochs", 7),
        (["--milestones", "10,20"], "milestones", (10, 20)),
        (["--attention", "none"], "attention", None),
        (["--name", "2024"], "name", "2024"),
    ],
)
def test_settings_on_the_command_line_have_the_type_of_their_field(
    option, field, value, folder, monkeypatch
):
    seen = []
    monkeypatch.setattr(cli, "train", lambda config, *args, **kwargs: seen.append(config) or stop())
    assert main(["train", "--data", str(folder), "--size", "32", *option]) == 130
    assert getattr(seen[0], field) == value


def stop():
    raise KeyboardInterrupt


def test_a_setting_of_another_type_is_named(folder, capsys):
    options = ["--data", str(folder), "--size", "32", "--epochs", "many"]
    assert main(["train", *options]) == 2
    assert "epochs must be a whole number, not 'many'" in capsys.readouterr().err
