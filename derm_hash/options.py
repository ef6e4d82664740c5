"""The options of ``derm-hash train``: the fields of TrainConfig, a file of them, a run's name."""

import argparse
import ast
import dataclasses
import difflib
import inspect
import itertools
import json
import re
import tomllib
import zlib
from pathlib import Path

from derm_hash.attention import GATES
from derm_hash.errors import InputError, one_line
from derm_hash.experiments.results import run_name
from derm_hash.model import BACKBONES
from derm_hash.settings import PRESETS, TrainConfig

FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}
PLACEHOLDERS = {int: "N", float: "X", bool: "{true,false}", tuple[int, ...]: "N,N,..."}
LONGEST_RUN_NAME = 100
USUAL_SIZE = 64  # side of the images in pixels


def add_settings(command: argparse.ArgumentParser) -> None:
    """Add ``--preset``, ``--config``, and an option for each field of TrainConfig."""
    text = "settings to start from (%(default)s)"
    command.add_argument("--preset", default="recommended", choices=PRESETS, help=text)
    text = "settings from a run's config.json, or from a JSON or TOML file (batch_size = 32)"
    command.add_argument("--config", type=Path, metavar="FILE", help=text)
    settings = command.add_argument_group("settings", "what differs from the preset and the file")
    choices = TrainConfig.CHOICES | {"backbone": BACKBONES, "attention": (None, *GATES)}
    notes = first_sentences()
    for name, field in FIELDS.items():
        default = f"default {as_text(field.default)}"
        if name in PRESETS["released"]:
            default += f"; released {as_text(PRESETS['released'][name])}"
        if name == "name":
            default = "default: the settings that differ from the preset"
        named = "{" + ",".join(map(as_text, choices.get(name, ()))) + "}"
        settings.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"set_{name}",
            default=argparse.SUPPRESS,
            metavar=named if name in choices else PLACEHOLDERS.get(field.type, "NAME"),
            help=f"{notes[name]} ({default})".replace("%", "%%"),
        )


def first_sentences() -> dict[str, str]:
    """The first sentence of the text below each field of TrainConfig, without its mark-up."""
    body = ast.parse(inspect.getsource(TrainConfig)).body[0].body
    texts = {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }
    sentences = {name: re.split(r"(?<=\.) ", text)[0].rstrip(".") for name, text in texts.items()}
    # The help lists the names itself, so it need not say where the code has them.
    return {name: re.sub(r": a name in ``.*", "", text) for name, text in sentences.items()}


def as_text(value: object) -> str:
    """A setting as it is written on the command line; the reverse of :func:`from_text`."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def from_text(text: str, type_: object) -> object:
    """Convert a setting from the command line to its type: "0.1" -> 0.1, "40,60" -> [40, 60].

    Text that cannot be converted stays text, so that TrainConfig reports it.
    """
    if type_ in (str, str | None):
        return None if type_ is not str and text == "none" else text
    try:
        return json.loads(f"[{text}]" if type_ == tuple[int, ...] else text.lower())
    except ValueError:
        return text


def chosen_config(args: argparse.Namespace) -> TrainConfig:
    """The preset, changed by the file and then by the options; named after what differs."""
    given = read_settings(args.config) if args.config else {}
    for name, field in FIELDS.items():
        if f"set_{name}" in args:
            given[name] = from_text(getattr(args, f"set_{name}"), field.type)
    config = TrainConfig.preset(args.preset, **given)
    if "name" in given:
        return config
    return dataclasses.replace(config, name=name_of(config, args.size))


def read_settings(path: Path) -> dict:
    """The settings in a run's config.json (without its name), or in a JSON or TOML file of them.

    InputError if it is not such a file, or holds a name that TrainConfig does not have.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a file of settings ({one_line(error)}): name a run's "
            "config.json, or a JSON or TOML file"
        ) from error
    if isinstance(values, dict) and isinstance(values.get("config"), dict):
        values = {name: value for name, value in values["config"].items() if name != "name"}
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no names and values: write settings such as epochs = 10")
    for name in values:
        if name not in FIELDS:
            likely = difflib.get_close_matches(name, FIELDS, 1)
            hint = f"did you mean {likely[0]}" if likely else "see derm-hash train --help"
            raise InputError(f"'{name}' in {path} is not a setting: {hint}")
    none = {name for name in values if FIELDS[name].type == str | None and values[name] == "none"}
    return values | dict.fromkeys(none)


def name_of(config: TrainConfig, size: int = USUAL_SIZE) -> str:
    """Name a run after the nearest preset and what differs from it: "recommended,epochs=10"."""
    changes = {
        preset: {
            name: as_text(getattr(config, name))
            for name in FIELDS
            if name != "name" and getattr(config, name) != getattr(TrainConfig.preset(preset), name)
        }
        for preset in PRESETS
    }
    nearest = min(changes, key=lambda preset: len(changes[preset]))
    special = changes[nearest] | ({} if size == USUAL_SIZE else {"size": size})
    name = re.sub(r"[^\w.,=+-]+", "-", f"{nearest},{run_name(special)}".rstrip(","))
    if len(name) <= LONGEST_RUN_NAME:
        return name
    return f"{name[: LONGEST_RUN_NAME - 9]}-{zlib.crc32(name.encode()):08x}"
