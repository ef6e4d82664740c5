"""Devices and processes: where a run computes, in which precision, and how a batch is shared."""

import math
import os

import torch
from lightning_fabric import Fabric
from torch import Tensor

from derm_hash.errors import InputError, one_line


def make_fabric(precision: str = "auto") -> Fabric:
    """Fabric on one device, or on those of the launcher (torchrun, fabric run)."""
    precision = best_precision() if precision == "auto" else precision
    if "LT_CLI_USED" in os.environ:  # fabric run has chosen the devices, and launches itself
        return Fabric(precision=precision)
    devices, nodes = 1, 1
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    fabric = Fabric(devices=devices, num_nodes=nodes, precision=precision)
    fabric.launch()
    return fabric


def best_precision() -> str:
    """bfloat16 on a GPU that computes in it; 32 bits on one that only emulates it, or a CPU."""
    gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if gpu else "32-true"


def check_compiler(device: torch.device) -> None:
    """Compile one small function, to learn now whether ``torch.compile`` works on a device.

    Raises
    ------
    InputError
        If it does not: most often, there is no C++ compiler.
    """
    try:
        torch.compile(torch.sin)(torch.zeros(2, device=device))
    except RuntimeError as error:
        raise InputError(
            f"torch.compile does not work here ({one_line(error)}): install a C++ compiler "
            "(Debian: `apt-get install g++`), or train without --compile"
        ) from error


def check_batch(images: int, copies: int, size: int, processes: int = 1) -> None:
    """Check that processes can share a batch, and that batch norm can train on a share.

    Parameters
    ----------
    images : int
        Images in a batch.
    copies : int
        Rotated copies of each.
    size : int
        Side of an image in pixels.
    processes : int

    Raises
    ------
    InputError
        If the batch cannot be shared equally, or a share gives batch norm a single value.
    """
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
    """Gather the outputs of all processes: the whole batch, as if one process had made it.

    Logits (copies, B, classes), codes (copies, B, bits), labels (B,) -> the same for all images
    of the batch. Every process then computes the loss of the whole batch: the mean of the
    shares' losses would be another number where classes have weights or pairs are compared.
    The gradient of each process's loss flows back to the share that it came from, so a share
    gets it once from each process; DDP's mean over processes undoes that.
    """
    logits, codes = (
        torch.cat(list(fabric.all_gather(each, sync_grads=True)), dim=1) for each in (logits, codes)
    )
    return logits, codes, fabric.all_gather(y).flatten()
