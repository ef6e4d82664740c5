"""Chooses the faster precision: known for a GPU, measured once on a CPU with bfloat16 units."""

import math
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import nn

from derm_hash.files import home, read_json, write_json

WORTH = 1.2
"""bfloat16 has 8 significant bits: a CPU uses it only if a step is this many times as fast."""
PIXELS = 8 * 224**2  # of the images of a timed step: half a second in 32 bits on two cores


def computes_in_bf16(device: str | torch.device) -> bool:
    """Whether a device multiplies in bfloat16 itself (CPUs: by AMX or AVX-512 BF16)."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool({"amx_bf16", "avx512_bf16"} & {name for name, there in cpu().items() if there})


def cpu() -> dict:
    """What PyTorch reports about the processor: {} in older versions."""
    return getattr(torch.cpu, "get_capabilities", dict)()


def best_precision(device: str = "auto") -> str:
    """bfloat16 on a GPU that computes in it; 32 bits on one that only emulates it, or a CPU."""
    gpu = device != "cpu" and torch.cuda.is_available() and computes_in_bf16("cuda")
    return "bf16-mixed" if gpu else "32-true"


def fastest_precision(
    device: str, what: str, make_model: Callable[[], nn.Module], images: int, size: int
) -> str:
    """The faster precision of a training step; measured in two seconds on a CPU with bfloat16.

    ``make_model`` returns the network, for images (B, 3, size, size), and ``what`` is its name,
    under which the answer is kept. The measurement may use fewer images than a step of the run.
    """
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    alone = os.environ.get("WORLD_SIZE", "1") == "1"  # several processes could disagree
    if on_cpu and alone and computes_in_bf16("cpu"):
        faster = speedup(f"{what}, {size} px", make_model, images, size) >= WORTH
        return "bf16-mixed" if faster else "32-true"
    return best_precision(device)


def speedup(what: str, make_model: Callable[[], nn.Module], images: int, size: int) -> float:
    """Time of a step in 32 bits over its time in bfloat16; measured once, then cached."""
    name = cpu().get("cpu_name") or platform.processor()
    key = f"{name}, {torch.get_num_threads()} threads: {what}"
    path = home() / "bfloat16.json"
    known = read_json(path, "delete it") if path.exists() else {}
    if key not in known:
        count = max(2, min(images, PIXELS // size**2))
        exact, fast = step_seconds(make_model, count, size)
        known[key] = round(exact / fast, 2)
        kept = "" if known[key] >= WORTH else ", so training stays in 32 bits"
        print(f"bfloat16: {known[key]:.2g} x as fast here{kept} ({key})")
        with suppress(OSError):  # a class may share a cache that only the lecturer can write
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, known)
    return known[key]


def step_seconds(make_model: Callable[[], nn.Module], count: int, size: int) -> tuple[float, float]:
    """Seconds of a step on ``count`` images, forward and backward: in 32 bits, in bfloat16."""
    with torch.random.fork_rng():
        model = make_model().to(memory_format=torch.channels_last)
        x = torch.randn(count, 3, size, size).to(memory_format=torch.channels_last)
    seconds = {False: math.inf, True: math.inf}
    for _ in range(3):  # the fastest counts: the first one prepares the kernels
        for bf16 in seconds:
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                outputs = model(x)
            sum(output.float().sum() for output in outputs).backward()
            seconds[bf16] = min(seconds[bf16], time.perf_counter() - start)
    return seconds[False], seconds[True]
