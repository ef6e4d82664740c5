"""Experiments in TOML files."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from derm_hash.errors import InputError, one_line
from derm_hash.experiments.results import setting_kinds
from derm_hash.settings import check_type

DATA_KINDS = {"source": str, "size": int, "images": int, "seed": int, "difficulty": float}
"""What [data] may hold: the arguments of :func:`derm_hash.course_data`."""


class Experiment(NamedTuple):
    """The content of an experiment's file."""

    data: dict
    """Arguments of :func:`derm_hash.course_data`."""
    grid: dict | list[dict]
    """What :func:`run_grid` runs."""
    train: dict
    """The settings that all runs share."""
    baseline: dict
    """The settings that :func:`compare` compares with; may be empty."""
    planned_seeds: int | None = None
    """How many seeds of each setting were decided on before the first run, if the file says so."""


def _known_names(path: Path, tables: dict) -> dict:
    """Return the file's content; InputError if a name is not a field of :class:`Experiment`."""
    known = Experiment._fields
    for name in tables:
        if name not in known:
            likely = difflib.get_close_matches(name.lower(), known, 1)
            hint = f": did you mean {likely[0]}?" if likely else ""
            raise InputError(f"{path} has '{name}', and may have {', '.join(known)}{hint}")
    return tables


def read_experiment(path: str | Path) -> Experiment:
    """Read an experiment's TOML file.

    The table [grid] holds lists of values for the settings of :func:`run_grid`; several tables
    [[grid]] are several grids. [data] says which data, [train] (optional) what all runs share,
    [baseline] (optional) what to compare with. TOML has no None: write "none" in its place.
    Above all tables, ``planned_seeds`` (optional) is the number of seeds that was decided on before
    the first run: a table of results says where there are more or fewer.

    `InputError` if the file is missing or not TOML, or a table, a setting or the type of a value
    is wrong.
    """
    path = Path(path)
    tables, kinds = _read_toml(path), setting_kinds()
    grid = tables.get("grid")
    if isinstance(grid, list) and grid:
        grid = [_lists(path, table, kinds) for table in grid]
    else:
        grid = _lists(path, grid, kinds)
    without_seed = {key: kind for key, kind in kinds.items() if key != "seed"}
    return Experiment(
        _values(path, "data", tables.get("data"), DATA_KINDS),
        grid,
        _values(path, "train", tables.get("train", {}), kinds),
        _values(path, "baseline", tables.get("baseline", {}), without_seed),
        _planned_seeds(path, tables.get("planned_seeds")),
    )


def _planned_seeds(path: Path, count: object) -> int | None:
    """Check the planned number of seeds, which a file may leave out."""
    if count is not None:
        check_type(f"planned_seeds in {path}", count, int)
        if count < 1:
            raise InputError(f"planned_seeds in {path} must be 1 or more, not {count}")
    return count


def _read_toml(path: Path) -> dict:
    """Read the tables of a TOML file; InputError if it is not one."""
    try:
        return _known_names(path, tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"There is no experiment file {path}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: save it as such") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {one_line(error)}") from error


def _values(path: Path, name: str, table: object, kinds: Mapping) -> dict:
    """Check a table [name] of single values, and return it with None for "none"."""
    if not isinstance(table, dict):
        raise InputError(f"{path} has no [{name}] table: see benchmarks/configs")
    where = f"the [{name}] of {path}"
    return {key: _value(key, value, kinds, where) for key, value in table.items()}


def _lists(path: Path, table: object, kinds: Mapping) -> dict:
    """Check a table [grid] of lists of values, and return it with None for "none"."""
    if not isinstance(table, dict):
        raise InputError(f"{path} has no [grid] table: see benchmarks/configs")
    where = f"the [grid] of {path}"
    for key, values in table.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{key} in {where} must be a list of values")
    return {key: [_value(key, value, kinds, where) for value in table[key]] for key in table}


def _value(key: str, value: object, kinds: Mapping, where: str) -> object:
    """Check a value's name and type, and return it: None for "none" where it may be None."""
    if key not in kinds:
        raise InputError(f"{key} in {where} must be one of {', '.join(kinds)}")
    check_type(f"{key} in {where}", value, kinds[key])
    return None if kinds[key] == str | None and value == "none" else value
