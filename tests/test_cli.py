"""The command line, from a data folder to the picture of hits, and its sentences for bad input."""

import dataclasses
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from derm_hash import commands
from derm_hash.atlas.atlas import make_atlas
from derm_hash.cli import main
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.manifest import read_manifest, write_manifest
from derm_hash.data.splits import split_by_lesion
from derm_hash.model import encode
from derm_hash.options import name_of
from derm_hash.retrieval import HashIndex
from derm_hash.runs import Run, load_model
from derm_hash.settings import TrainConfig

TINY = ["--backbone", "resnet8", "--bits", "8", "--epochs", "1", "--batch-size", "16"]


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


def test_train_leaves_model_index_curves_and_metrics(run, folder, monkeypatch):
    names = {path.name for path in run.iterdir()}
    wanted = {"config.json", "metrics.csv", "model.safetensors", "checkpoint.safetensors"}
    assert wanted | {".lock", "index.safetensors", "history.png"} == names
    assert load_model(run).bits == 8
    options = ["--config", str(run / "config.json"), "--name", "tiny"]
    assert trained_config(monkeypatch, folder, *options) == Run.load(run).config


def test_train_compiles_on_request_alone(folder, monkeypatch):
    assert asked_for(monkeypatch, folder, "--compile")[1] is True
    assert asked_for(monkeypatch, folder)[1] is False


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


def test_search_takes_an_image_of_any_mode_and_shape_and_more_hits_than_there_are(
    run, folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(commands, "PICTURED", 2)  # a picture of all hits could take minutes
    images = (read_manifest(folder)["split"] == "database").sum()
    image = tmp_path / "grey.png"
    Image.open(folder / "images/000.png").convert("L").resize((90, 64)).save(image)
    options = ["--run", str(run), "--out", str(tmp_path / "h.png"), "--radius", "8"]
    assert main(["search", str(image), *options, "--k", str(10**10), "--label", r"$\frac{$"]) == 0
    printed = capsys.readouterr().out
    assert f"\n{images} " in printed and f"the first 2 of {images} hits" in printed


def test_search_says_when_an_image_is_unlike_all_of_the_database(run, folder, tmp_path, capsys):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    said = "unlike everything in the database"
    for image, strange in ((tmp_path / "stripes.png", True), (folder / "images/000.png", False)):
        options = ["--run", str(run), "--out", str(tmp_path / "h.png"), "--radius", "8"]
        assert main(["search", str(image), *options]) == 0
        assert (said in capsys.readouterr().out) == strange


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


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda items: items.drop(columns="folder"), "does not say where its images are"),
        (lambda items: items.assign(image="../a.png"), "names images outside its folder"),
        (lambda items: items.assign(label="\x1b[1m"), "has names with control characters"),
        (lambda items: items.assign(folder=""), "No picture is drawn, since the built-in atlas"),
    ],
)
def test_an_index_says_where_its_images_are(run, folder, tmp_path, change, sentence, capsys):
    index = HashIndex.load(run / "index.safetensors")
    index.items = change(index.items)
    other = str(index.save(tmp_path / "other.safetensors"))
    line = ["search", str(folder / "images/000.png"), "--run", str(run), "--radius", "8"]
    assert main([*line, "--index", other]) == (0 if "No picture" in sentence else 2)
    assert sentence in "".join(capsys.readouterr())


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


# Without an option, as the run was trained: in bfloat16 where the processor computes in it.
@pytest.mark.parametrize(("option", "bf16"), [("", None), ("--bf16", True), ("--no-bf16", False)])
def test_encode_writes_the_database_to_the_runs_index(run, folder, tmp_path, option, bf16, capsys):
    run = shutil.copytree(run, tmp_path / "run")
    (run / "index.safetensors").unlink()
    assert main([*encode_line(run, folder), *filter(None, [option])]) == 0
    database = LesionDataset.from_folder(folder, 32, progress=False).split("database")
    assert f"{len(database)} codes of 8 bits" in capsys.readouterr().out
    codes = HashIndex.load(run / "index.safetensors").codes
    np.testing.assert_array_equal(codes, encode(load_model(run), database, bf16=bf16))


def encode_line(run, folder, *options):
    return ["encode", "--run", str(run), "--data", str(folder), *options]


def test_encode_writes_other_codes_to_a_file_of_their_own(run, folder, tmp_path):
    index, codes = tmp_path / "query.safetensors", tmp_path / "all.npy"
    assert main(encode_line(run, folder, "--split", "query", "--out", str(index))) == 0
    assert main(encode_line(run, folder, "--split", "all", "--out", str(codes))) == 0
    data = LesionDataset.from_folder(folder, 32, progress=False)
    np.testing.assert_allclose(np.load(codes), encode(load_model(run), data), atol=1e-6)
    queries = data.split("query")
    assert HashIndex.load(index).items["image"].tolist() == queries.table["image"].tolist()
    # Such an index can be searched: a query finds itself there, and is not in the run's own.
    image, name = folder / queries.table["image"].iloc[0], queries.table["image"].iloc[0]
    options = ["--run", str(run), "--out", str(tmp_path / "hits.png"), "--radius", "8"]
    assert main(["search", str(image), *options, "--index", str(index)]) == 0
    assert name not in HashIndex.load(run / "index.safetensors").items["image"].tolist()


@pytest.mark.parametrize("split", ["all", "query", "another folder"])
def test_encode_never_replaces_the_runs_index_by_other_codes(run, folder, tmp_path, split, capsys):
    before = (run / "index.safetensors").read_bytes()
    if split == "another folder":
        atlas = make_atlas(24, 32, seed=1, progress=False)
        folder, split = write_folder(tmp_path / "other", atlas), "database"
    assert main(encode_line(run, folder, "--split", split)) == 2
    assert f"--out {split}.safetensors" in capsys.readouterr().err
    assert (run / "index.safetensors").read_bytes() == before


def test_reproduce_leaves_a_table_and_a_figure(folder, tmp_path, capsys):
    file = tmp_path / "grid.toml"
    file.write_text(
        f'[data]\nsource = "{folder.as_posix()}"\nsize = 32\n'
        '[grid]\nseed = [0, 1]\nreadout = ["plain", "orbit-mean"]\n'
        '[train]\nbackbone = "resnet8"\nattention = "none"\nbits = 8\nepochs = 1\n'
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
        (["train", "--data", "{data}", "--epochs", "x"], "epochs must be a whole number, not 'x'"),
        (["encode", "--run", "{run}", "--data", "{data}", "--out", "{tmp}/a.txt"], "must end in"),
        (["train", "--data", "{data}", "--config", "{tmp}/list.json"], "no names and values"),
        (["reproduce", "{tmp}/absent.toml"], "absent.toml"),
    ],
)
def test_bad_input_gets_one_sentence(command, sentence, run, folder, tmp_path, capsys):
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "list.json").write_text("[1]")
    places = {"tmp": tmp_path, "run": run, "data": folder, "image": folder / "images/000.png"}
    capsys.readouterr()
    assert main([part.format(**places) for part in command]) == 2
    shown = capsys.readouterr().err
    assert sentence in shown and "Traceback" not in shown
    assert len([line for line in shown.splitlines() if line.startswith("derm-hash:")]) == 1


@pytest.mark.parametrize(
    ("line", "function", "error", "sentence"),
    [
        (["evaluate"], "commands.encode_data", "", "stopped; nothing new is kept"),
        (["encode"], "commands.build_index", "", "stopped; nothing new is kept"),
        (["train", "--size", "32"], "commands.train", "kept is this", "kept is this"),
        (["train", "--size", "32"], "commands.course_data", "", "stopped; nothing new is kept"),
        (["train", "--size", "32", *TINY, "--name", "tiny"], "commands.write_index", "",
         "stopped after training; the model is kept"),
        (["reproduce"], "commands.run_grid", "", "stopped; finished runs and checkpoints are kept"),
    ],
)  # fmt: skip
def test_ctrl_c_says_what_is_kept(
    line, function, error, sentence, run, folder, tmp_path, monkeypatch, capsys
):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt(*filter(None, [error]))

    name, *rest = line
    options = {"train": ["--runs", str(run.parent)], "reproduce": []}
    data = ["--data", str(folder)] if name != "reproduce" else [str(tmp_path / "grid.toml")]
    (tmp_path / "grid.toml").write_text("[data]\n[grid]\nseed = [0]\n")
    monkeypatch.setattr(f"derm_hash.{function}", stop)
    assert main([name, *data, *options.get(name, ["--run", str(run)]), *rest]) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"derm-hash: {sentence}")


def asked_for(monkeypatch, folder, *options):
    """The config that a command line would train, and whether it would be compiled."""
    seen = []

    def train(config, *args, compiled, **kwargs):
        seen.append((config, compiled))
        raise KeyboardInterrupt  # that will do

    monkeypatch.setattr(commands, "train", train)
    assert main(["train", "--data", str(folder), "--size", "32", *options]) == 130
    return seen[0]


def trained_config(*args):
    return asked_for(*args)[0]


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
    assert getattr(trained_config(monkeypatch, folder, *option), field) == value


def test_help_gives_default_choices_and_a_sentence_for_every_setting(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(TrainConfig):
        option = f"--{field.name.replace('_', '-')}"
        assert re.search(rf"{option} \S+ [A-Z][^`]{{8,}}? \(default.*?\)", shown), option
    assert "{adamw,sgd} The optimizer: AdamW, or SGD" in shown
    assert "(default 30; released 120)" in shown and "`" not in shown and "VALUE" not in shown


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ([], "recommended,size=32"),
        (["--epochs", "10", "--attention", "none"], "recommended,attention=none,epochs=10,size=32"),
        (["--preset", "released", "--seed", "1"], "released,seed=1,size=32"),
        (["--augment", "false", "--seed", "1"], "recommended,augment=false,seed=1,size=32"),
        (["--milestones", "1,2"], "recommended,milestones=1,2,size=32"),
        (["--epochs", "10", "--name", "mine"], "mine"),
    ],
)
def test_a_run_is_named_after_what_differs(options, name, folder, monkeypatch):
    assert trained_config(monkeypatch, folder, *options).name == name


def test_a_name_of_many_settings_stays_short_and_its_own():
    configs = [
        TrainConfig(gamma=0.25, orbit=2, optimizer="sgd", classify="upright", momentum=0.123456,
                    class_weights="none", learning_rate=0.0123, bits=64, seed=seed)
        for seed in (1, 2)
    ]  # fmt: skip
    names = {name_of(config) for config in configs}
    assert len(names) == 2 and max(map(len, names)) <= 100


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.toml", 'epochs = 3\nattention = "none"\nmilestones = [1, 2]\n'),
        ("a.json", '{"epochs": 3, "attention": null, "milestones": [1, 2]}'),
        ("config.json", '{"config": {"name": "old", "epochs": 3, "attention": null, '
                        '"milestones": [1, 2]}, "data": {}}'),
    ],
)  # fmt: skip
def test_settings_come_from_a_file_and_options_change_them(
    file, text, folder, tmp_path, monkeypatch
):
    (tmp_path / file).write_text(text)
    options = ["--config", str(tmp_path / file), "--epochs", "4"]
    config = trained_config(monkeypatch, folder, *options)
    assert (config.epochs, config.attention, config.milestones) == (4, None, (1, 2))
    assert config.name == "recommended,attention=none,epochs=4,milestones=1,2,size=32"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epoch = 3", "'epoch' in {file} is not a setting: did you mean epochs"),
        ("[train]\nepochs = 3", "'train' in {file} is not a setting: see derm-hash train --help"),
        ("epochs = ", "{file} cannot be read as a file of settings"),
        ('epochs = "3"', "epochs must be a whole number"),
        (None, "{file} cannot be read as a file of settings"),
    ],
)
def test_a_file_with_wrong_settings_gets_one_sentence(text, sentence, folder, tmp_path, capsys):
    file = tmp_path / "a.toml"
    if text is not None:
        file.write_text(text)
    assert main(["train", "--data", str(folder), "--config", str(file)]) == 2
    assert sentence.format(file=file) in capsys.readouterr().err


def test_an_epoch_is_a_line(folder, tmp_path, capsys):
    line = ["train", "--data", str(folder), "--size", "32", "--runs", str(tmp_path), *TINY]
    assert main([*line, "--epochs", "2", "--device", "cpu", "--name", "two"]) == 0
    lines = [each for each in capsys.readouterr().out.splitlines() if each.startswith("epoch ")]
    history = Run.load(tmp_path / "two").history
    for epoch, (shown, row) in enumerate(zip(lines, history.to_dict("records"), strict=True), 1):
        assert shown.startswith(f"epoch {epoch}: loss {row['loss']:.3f}, class-mean precision@10")
        assert f"val {row['val_precision_at_10']:.3f}, " in shown and shown.endswith(" s")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("command", ["train", "encode", "heatmaps"])
def test_a_device_that_is_missing_is_said(command, run, folder, capsys):
    line = [command, "--data", str(folder), "--device", "cuda"]
    assert main(line if command == "train" else [*line, "--run", str(run)]) == 2
    assert "PyTorch finds no CUDA device here" in capsys.readouterr().err


def test_heatmaps_prints_means_with_intervals_and_writes_every_image(run, folder, tmp_path, capsys):
    for i, name in enumerate(read_manifest(folder)["image"]):
        side = np.zeros((32, 32), np.uint8)
        side[8:24, 8 : 20 + i % 4] = 255
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / name, tmp_path / name)
        Image.fromarray(side).save(tmp_path / f"{i}.png")
    table = read_manifest(folder)
    table["mask"] = [f"{i}.png" if i < 40 else "" for i in range(len(table))]
    write_manifest(table, tmp_path)
    line = ["heatmaps", "--run", str(run), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*line, "--target", "match"]) == 0
    shown = capsys.readouterr().out
    assert "means over 40 images" in shown and "without a lesion mask: 8 of 48" in shown
    scores = pd.read_csv(tmp_path / "out" / f"match-{tmp_path.name}.csv")
    mean = scores.loc[scores["map"] == "centred blob", "iou"].mean()
    row = next(line for line in shown.splitlines() if line.startswith("centred blob"))
    assert f"{mean:.3f} [" in row
    summary = pd.read_csv(tmp_path / "out" / f"match-{tmp_path.name}-summary.csv")
    assert set(summary["map"]) == {
        "Grad-CAM, match", "Grad-CAM, match minus centred blob", "centred blob", "flat map"
    }  # fmt: skip


@pytest.mark.parametrize("option", [["--device", "cuda"], ["--compile"]])
def test_a_frozen_run_says_that_it_trains_on_the_cpu(option, tmp_path, capsys):
    frozen = ["--frozen", "true", "--attention", "none", "--runs", str(tmp_path)]
    assert main(["train", "--data", "atlas", *frozen, *option]) == 2
    assert "a frozen run trains on the CPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
