"""Devices and processes: where a run computes, in which precision, and how a batch is shared.

Lightning Fabric takes seconds to import, so it is imported where a training starts.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from derm_hash.errors import InputError, one_line
from derm_hash.precision import best_precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric

DEVICES = ("auto", "cpu", "cuda")


def make_fabric(precision: str = "auto", device: str = "auto") -> Fabric:
    """Make a Fabric on one device (a name in ``DEVICES``), or on those of torchrun or fabric."""
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    check_device(device)
    precision = best_precision(device) if precision == "auto" else precision
    if "LT_CLI_USED" in os.environ:  # fabric run has chosen the devices, and launches itself
        return Fabric(precision=precision)
    devices, nodes, strategy = 1, 1, "auto"
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    if check_device(device) == "cuda" and devices > torch.cuda.device_count():
        # NCCL refuses processes that share a GPU; gloo accepts them.
        shared = [torch.device("cuda", 0)] * devices
        devices, strategy = 1, DDPStrategy(parallel_devices=shared, process_group_backend="gloo")
    share = {"strategy": strategy, "devices": devices, "num_nodes": nodes}
    fabric = Fabric(accelerator=device, precision=precision, **share)
    fabric.launch()
    return fabric


def check_device(device: str) -> str:
    """Return "cpu" or "cuda" for a name in ``DEVICES``; InputError if there is no such device."""
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise InputError(
            "PyTorch finds no CUDA device here: leave out --device cuda, or see `derm-hash doctor`"
        )
    return device if device != "auto" else "cuda" if there else "cpu"


def check_compiler(device: torch.device) -> None:
    """Compile a small function: InputError now if ``torch.compile`` does not work on a device."""
    try:
        torch.compile(torch.sin)(torch.zeros(2, device=device))
    except RuntimeError as error:
        raise InputError(
            f"torch.compile does not work here ({one_line(error)}): install a C++ compiler "
            "(Debian: `apt-get install g++`), or train without --compile"
        ) from error


def check_batch(images: int, copies: int, size: int, processes: int = 1) -> None:
    """Raise InputError if processes cannot share a batch, or batch norm cannot train on a share."""
    if images % processes:
        raise InputError(
            f"{processes} processes cannot share a batch of {images} images equally: choose a "
            f"batch_size that is a multiple of {processes}, and not more than there are images"
        )
    values = images // processes * copies * math.ceil(size / 32) ** 2
    if values < 2:  # of each channel in the last feature map
        raise InputError(
            f"A step sees a single image of {size} px, which batch norm cannot train on: "
            "choose a larger batch_size, larger images, or an orbit"
        )


def whole_batch(fabric: Fabric, logits: Tensor, codes: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Gather logits (copies, B, classes), codes (copies, B, bits) and labels (B,) of all processes.

    Every process then computes the loss of the whole batch: the mean of the shares' losses would
    be another number where classes have weights or pairs are compared. The gradient of each
    process's loss flows back to the share that it came from, so a share gets it once from each
    process; DDP's mean over processes undoes that.
    """
    logits, codes = (
        torch.cat(list(fabric.all_gather(each, sync_grads=True)), dim=1) for each in (logits, codes)
    )
    return logits, codes, fabric.all_gather(y).flatten()


@contextmanager
def unbroken(fabric: Fabric) -> Iterator[None]:
    """Let Ctrl-C wait for the end of a block, so that no step is done by half.

    With several processes it does nothing: one would wait in vain for another that has stopped.
    """
    usual, pressed = signal.getsignal(signal.SIGINT), []
    main = threading.current_thread() is threading.main_thread()
    if fabric.world_size > 1 or not main or not callable(usual):
        yield
        return
    signal.signal(signal.SIGINT, lambda *args: pressed.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if pressed:
        usual(*pressed[0])
