"""Files of tensors: safetensors, which cannot run code, with JSON texts in the header."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from derm_hash.errors import InputError, one_line
from derm_hash.files import write_atomically


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor | np.ndarray], about: Mapping[str, str]
) -> Path:
    """Write tensors, and JSON texts about them by name, to one safetensors file, all or nothing."""
    path = Path(path)
    tensors = {key: torch.as_tensor(value).contiguous() for key, value in tensors.items()}
    # safetensors' save_file writes a temporary file, which is left behind if the process is killed.
    content = save(tensors, dict(about))
    write_atomically(path, lambda part: part.write_bytes(content))
    return path


def load_tensors(
    path: Path, name: str, what: str, remedy: str = "make it again"
) -> tuple[dict[str, Tensor], dict]:
    """Read what :func:`save_tensors` wrote: the tensors, and the JSON values by name.

    ``name`` is a JSON text that the file must have; if it is missing, an InputError says that the
    file is not ``what`` it should be, and what to do (``remedy``).
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
            about[name]  # a KeyError if it is another file
            return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is not {what} ({one_line(error)}): {remedy}") from error


def save_state(path: Path, state: Mapping) -> None:
    """Write nested dictionaries of tensors and JSON values (a checkpoint), all or nothing."""
    tensors: dict[str, Tensor] = {}
    about = _pack(state, "", tensors)
    save_tensors(path, tensors, {"state": json.dumps(about)})


def _pack(value: object, name: str, tensors: dict[str, Tensor]) -> object:
    """Move the tensors of a nested value to ``tensors``; what stays is JSON."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {str(key): _pack(each, f"{name}.{key}", tensors) for key, each in value.items()}
    return value


def load_state(path: Path) -> dict:
    """Read a file of :func:`save_state` (tensors on the CPU, keys are strings), or InputError."""
    what, remedy = "a checkpoint of derm-hash", "delete its folder and start again"
    tensors, about = load_tensors(path, "state", what, remedy)
    return _unpack(about["state"], tensors)


def _unpack(value: object, tensors: Mapping[str, Tensor]) -> object:
    """The reverse of :func:`_pack`."""
    if not isinstance(value, dict):
        return value
    if value.keys() == {"tensor"}:
        return tensors[value["tensor"]].clone()  # or the file would stay mapped to memory
    return {key: _unpack(each, tensors) for key, each in value.items()}
