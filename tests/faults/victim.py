"""A short training run in a process of its own that somebody may kill: test_faults_kill.py does.

The network is a real one, so that a checkpoint has fifteen megabytes and takes its time to write.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from helpers import color_data, tiny

from derm_hash import training
from derm_hash.training import train

CONFIG = tiny(name="victim", backbone="resnet8", batch_size=4)
SPLITS = ["database"] * 12 + ["val"] * 3  # three steps an epoch


def train_once(root: str, die_at: int | None = None) -> None:
    """Train, or go on, with a checkpoint after every step.

    With ``die_at`` the process kills itself just before its so-many-th operation on the files
    below ``root``: before it opens, renames or removes one.
    """
    torch.set_num_threads(1)
    training.SECONDS_BETWEEN_CHECKPOINTS = -1
    if die_at is not None:
        die_before_operation(root, die_at)
    train(CONFIG, color_data(splits=SPLITS), root, progress=False)


def die_before_operation(root: str, number: int) -> None:
    """Count what happens to files below a folder, and kill this process in the midst of it."""
    left = [number]

    def watch(event: str, arguments: tuple) -> None:
        if event in ("open", "os.rename", "os.remove", "os.mkdir"):
            path = arguments[0]
            if isinstance(path, str | Path) and str(path).startswith(root):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
