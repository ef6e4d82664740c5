"""One of several processes that train together: started by torchrun in test_distributed.py.

    torchrun --nproc-per-node 2 tests/distributed_worker.py OUT

Trains every config of ``CONFIGS`` into OUT, and leaves OUT/rank-R.json with what process R saw.
"""

import json
import sys
from pathlib import Path

import torch
from helpers import color_data, tiny, train_quietly
from torch import nn

from derm_hash import files, runs, training
from derm_hash.devices import make_fabric
from derm_hash.model import BACKBONES
from derm_hash.settings import TrainConfig


class Stateless(nn.Module):
    """A small network that treats every image on its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 5, stride=4)
        self.norm = nn.GroupNorm(4, 16)
        self.fc = nn.Linear(16, 1)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))


BACKBONES["stateless"] = lambda weights: Stateless()
SPLITS = ["database"] * 40 + ["val"] * 10 + ["query"] * 10
DATA = color_data(splits=SPLITS, labels=[0, 1, 1, 1, 2] * 12)


def small(name: str, **changes) -> TrainConfig:
    """Four steps an epoch, without the amplification of rounding by AdamW."""
    fixed = {"backbone": "stateless", "attention": None, "epochs": 3, "batch_size": 10}
    return tiny(name=name, **fixed | {"optimizer": "sgd", "learning_rate": 0.02} | changes)


CONFIGS = [
    small("weighted"),
    small("released", class_weights="released", classify="upright"),
    small("turns", invariance=None, classify="upright", random_rotations=True),
    small("adamw", optimizer="adamw", learning_rate=1e-3),
    *[small(name, objective=name) for name in ("dpsh", "dsh", "hashnet", "dch", "csq")],
    small("supcon", objective="supcon"),
    small("ecl", objective="ecl", class_weights="bwce", projection=16),
    small("views", objective="ecl", views="weak-strong", class_weights="sampling"),
    small("batch-norm", backbone="pocket", epochs=2),
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
    seen = {"world": fabric.world_size, "histories": {}, "shares": []}
    step_losses = training.step_losses

    def spy(model, x, y, *rest):
        seen["shares"].append([len(x), float(x.sum())])
        return step_losses(model, x, y, *rest)

    training.step_losses = spy
    for config in CONFIGS:
        run = train_quietly(config, DATA, out, fabric=fabric)
        seen["histories"][config.name] = run.history.to_dict("list")
    stop_and_resume(out, fabric)
    with (out / f"rank-{fabric.global_rank}.json").open("w") as file:
        json.dump(seen, file)


def stop_and_resume(out: Path, fabric) -> None:
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
            train_quietly(CONFIGS[-1], DATA, out / "resumed", fabric=fabric)
        except KeyboardInterrupt:
            continue
    assert len(calls) == 6 + 3, calls


if __name__ == "__main__":
    main(Path(sys.argv[1]))
