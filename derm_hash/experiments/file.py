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
    grid, planned_seeds = tables.get("grid"), tables.get("planned_seeds")
    if isinstance(grid, list) and grid:
        grid = [_table(path, "grid", table, kinds, lists=True) for table in grid]
    else:
        grid = _table(path, "grid", grid, kinds, lists=True)
    without_seed = {key: kind for key, kind in kinds.items() if key != "seed"}
    if planned_seeds is not None:
        check_type(f"planned_seeds in {path}", planned_seeds, int)
        if planned_seeds < 1:
            raise InputError(f"planned_seeds in {path} must be 1 or more, not {planned_seeds}")
    return Experiment(
        _table(path, "data", tables.get("data"), DATA_KINDS),
        grid,
        _table(path, "train", tables.get("train", {}), kinds),
        _table(path, "baseline", tables.get("baseline", {}), without_seed),
        planned_seeds,
    )


def _read_toml(path: Path) -> dict:
    """Read a TOML file; InputError if it is not one, or has a name that is not in `Experiment`."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"There is no experiment file {path}: check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: save it as such") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML ({one_line(error)}): correct it") from error
    known = Experiment._fields
    for name in tables:
        if name not in known:
            likely = difflib.get_close_matches(name.lower(), known, 1)
            hint = f": did you mean {likely[0]}?" if likely else ""
            raise InputError(f"{path} has '{name}', and may have {', '.join(known)}{hint}")
    return tables


def _table(path: Path, name: str, table: object, kinds: Mapping, lists: bool = False) -> dict:
    """Check a table [name] of values, or of lists of values; return it with None for "none"."""
    if not isinstance(table, dict):
        raise InputError(f"{path} has no [{name}] table: see benchmarks/configs")

    def checked(key: str, value: object) -> object:
        what = f"{key} in the [{name}] of {path}"
        if key not in kinds:
            raise InputError(f"{what} must be one of {', '.join(kinds)}")
        if lists and not (isinstance(value, list) and value):
            raise InputError(f"{what} must be a list of values")
        values = value if lists else [value]
        for each in values:
            check_type(what, each, kinds[key])
        if kinds[key] == str | None:
            values = [None if each == "none" else each for each in values]
        return values if lists else values[0]

    return {key: checked(key, value) for key, value in table.items()}
