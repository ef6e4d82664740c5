"""Experiments in TOML files."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from inspect import signature
from pathlib import Path
from typing import NamedTuple

from derm_hash.course import course_data
from derm_hash.errors import InputError, one_line
from derm_hash.experiments.results import setting_kinds, setting_names
from derm_hash.settings import KINDS, is_of_kind


class Experiment(NamedTuple):
    """What an experiment's file says.

    data: arguments of :func:`derm_hash.course.course_data`; grid: that of :func:`run_grid`;
    train: what all runs share; baseline: that of :func:`compare`, or empty.
    """

    data: dict
    grid: dict | list[dict]
    train: dict
    baseline: dict


def _known_tables(path: Path, tables: dict) -> dict:
    """Return the tables; InputError if one is not a field of :class:`Experiment`."""
    known = Experiment._fields
    for name in tables:
        if name not in known:
            likely = difflib.get_close_matches(name.lower(), known, 1)
            hint = f": did you mean {likely[0]}?" if likely else ""
            raise InputError(f"{path} has '{name}' beside the tables {', '.join(known)}{hint}")
    return tables


def read_experiment(path: str | Path) -> Experiment:
    """Read an experiment's TOML file: tables [data], [grid] and, optionally, [train], [baseline].

    [grid] holds lists of values for the settings of :func:`run_grid`. Several tables [[grid]]
    are several grids, one after the other. TOML has no None: the word "none" stands for it where
    a field may be None.
    """
    path = Path(path)
    experiment = _read_toml(path)
    data, grid = experiment.get("data"), experiment.get("grid")
    shared, baseline = experiment.get("train", {}), experiment.get("baseline", {})
    grids = grid if isinstance(grid, list) else [grid]
    for table, found in (
        ("data", [data]),
        ("grid", grids or [None]),
        ("train", [shared]),
        ("baseline", [baseline]),
    ):
        if not all(isinstance(each, dict) for each in found):
            raise InputError(f"{path} has no [{table}] table: see benchmarks/configs.")
    arguments = {name: each.annotation for name, each in signature(course_data).parameters.items()}
    if wrong := set(data) - set(arguments):
        raise InputError(
            f"{min(wrong)} in the [data] of {path} is none of source, size, images, seed."
        )
    if wrong := set(baseline) - set(setting_names()):
        raise InputError(f"{min(wrong)} in the [baseline] of {path} is no setting of a run.")
    for key, values in (item for each in grids for item in each.items()):
        if not isinstance(values, list) or not values:
            raise InputError(f"{key} in the [grid] of {path} must be a list of values.")
    values = [(key, value) for each in grids for key, of in each.items() for value in of]
    kinds = setting_kinds()
    _check_kinds(data.items(), arguments, f"the [data] of {path}")
    _check_kinds(values, kinds, f"the [grid] of {path}")
    _check_kinds(shared.items(), kinds, f"the [train] of {path}")
    _check_kinds(baseline.items(), kinds, f"the [baseline] of {path}")
    grids = [{k: [_setting(k, v) for v in values] for k, values in g.items()} for g in grids]
    shared = {key: _setting(key, value) for key, value in shared.items()}
    return Experiment(data, grids if isinstance(grid, list) else grids[0], shared, baseline)


def _read_toml(path: Path) -> dict:
    """The tables of a TOML file; InputError if it is none."""
    try:
        return _known_tables(path, tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"There is no experiment file {path}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: save it as such.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {one_line(error)}.") from error


def _check_kinds(items: Iterable[tuple[str, object]], kinds: Mapping, where: str) -> None:
    """InputError if a value is not of the kind that its name has, or a name has none."""
    for key, value in items:
        if key not in kinds:
            raise InputError(f"{key} in {where} is no setting of a run.")
        if not is_of_kind(value, kinds[key]):
            raise InputError(f"{key} in {where} must be {KINDS[kinds[key]]}, not {value!r}.")


def _setting(key: str, value):
    optional = key in ("attention", "invariance", "weights")
    return None if optional and value == "none" else value
