"""One of several processes that train together: started by torchrun in test_distributed.py.

    torchrun --nproc-per-node 2 tests/distributed_worker.py OUT

Trains every config of ``CONFIGS`` into OUT, and leaves OUT/rank-R.json with what process R saw.
"""

import json
import sys
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from derm_hash import files, runs, training
from derm_hash.data.dataset import LesionDataset
from derm_hash.devices import make_fabric
from derm_hash.model import BACKBONES
from derm_hash.settings import TrainConfig
from derm_hash.training import train

CLASSES = ("MEL", "NV", "BCC")


class Stateless(nn.Module):
    """A small network that treats every image on its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 5, stride=4)
        self.norm = nn.GroupNorm(4, 16)
        self.fc = nn.Linear(16, 1)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))


class WithBatchNorm(Stateless):
    """The same, where the images of a process's share meet in a batch norm."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(16)


BACKBONES |= {"stateless": lambda weights: Stateless()}
BACKBONES |= {"batch-norm": lambda weights: WithBatchNorm()}


def make_data() -> LesionDataset:
    """60 images of 32 px, most of one class; the class is the colour and a bright corner."""
    labels = torch.tensor([0, 1, 1, 1, 2]).repeat(12)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 120, (60, 3, 32, 32), generator=generator)
    images[torch.arange(60), labels] += 60
    images[:, :, :8, :8] += 60
    split = ["database"] * 40 + ["val"] * 10 + ["query"] * 10
    table = {"image": [f"{i}.png" for i in range(60)], "label": [CLASSES[i] for i in labels]}
    return LesionDataset(images.to(torch.uint8), pd.DataFrame(table | {"split": split}), CLASSES)


def small(name: str, **changes) -> TrainConfig:
    """Four steps an epoch, without the amplification of rounding by AdamW."""
    fixed = {"backbone": "stateless", "attention": None, "bits": 8, "epochs": 3, "batch_size": 10}
    sgd = {"optimizer": "sgd", "learning_rate": 0.02, "precision": "32-true"}
    return TrainConfig(name=name, **fixed | sgd | changes)


CONFIGS = [
    small("weighted"),
    small("released", class_weights="released", classify="upright"),
    small("turns", invariance=None, classify="upright", random_turns=True),
    small("adamw", optimizer="adamw", learning_rate=1e-3),
    *[small(name, objective=name) for name in ("dpsh", "dsh", "hashnet", "dch", "csq")],
    small("batch-norm", backbone="batch-norm", epochs=2),
]


class Forbidden(Exception):
    """Another process than the first one writes."""


def forbid_writing() -> None:
    """Make everything that writes a run's files fail."""

    def refuse(*args, **kwargs):
        raise Forbidden

    for module in (files, runs, training):
        module.write_atomically = refuse
    Path.mkdir = Path.write_text = Path.replace = Path.unlink = refuse


def main(out: Path) -> None:
    """Train all configs with the other processes; stop one of them amid an epoch and go on."""
    torch.set_num_threads(1)
    fabric = make_fabric("32-true")
    if fabric.global_rank > 0:
        forbid_writing()
    data, seen = make_data(), {"world": fabric.world_size, "histories": {}, "shares": []}
    step_losses = training.step_losses

    def spy(model, x, y, *rest):
        seen["shares"].append([len(x), float(x.sum())])
        return step_losses(model, x, y, *rest)

    training.step_losses = spy
    for config in CONFIGS:
        run = train(config, data, out, progress=False, fabric=fabric)
        seen["histories"][config.name] = run.history.to_dict("list")
    stop_and_resume(data, out, fabric)
    with (out / f"rank-{fabric.global_rank}.json").open("w") as file:
        json.dump(seen, file)


def stop_and_resume(data: LesionDataset, out: Path, fabric) -> None:
    """The last config once more: each process stops at step 6 of 8, and goes on from step 5.

    Their clocks disagree on when a checkpoint is due.
    """
    training.SECONDS_BETWEEN_CHECKPOINTS = -1 if fabric.global_rank == 0 else 1e9
    step_losses, calls = training.step_losses, []

    def stopping(*args):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return step_losses(*args)

    training.step_losses = stopping
    for _ in range(2):
        try:
            train(CONFIGS[-1], data, out / "resumed", progress=False, fabric=fabric)
        except KeyboardInterrupt:
            continue
    assert len(calls) == 6 + 3, calls


if __name__ == "__main__":
    main(Path(sys.argv[1]))
