"""A training step against the released one: its time, and its memory in a process of its own.

``python -m benchmarks.training released`` (or ``kit``, or ``32-true``) prints the MB that two
steps add to a process that already holds model and images, or null if they cannot be read.
"""

import argparse
import json
from collections.abc import Callable

import torch
from lightning_fabric import Fabric

from benchmarks import Row, child, has_bf16, released, side_by_side
from benchmarks.memory import UNKNOWN, peak_added
from derm_hash.model import DermHash
from derm_hash.optimizers import make_optimizer
from derm_hash.settings import TrainConfig
from derm_hash.training import step_losses

BATCH, SIZE = 16, 224
WHAT = f"ResNet-18 + HDC-SA, {SIZE} px, batch {BATCH}"
RELEASED = "five passes in float32, one after another"
EXACT = "32-true"


def batch(count: int, size: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise as images (B, 3, S, S), and labels (B,): the work does not depend on them."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(count, 3, size, size, generator=rng), torch.arange(count) % 4
    return x.to(device), y.to(device)


def precision(device: str) -> str:
    """The fastest precision of a training step, which ``train`` takes by default."""
    return "bf16-mixed" if device == "cuda" or has_bf16() else EXACT


def released_step(device: str = "cpu", count: int = BATCH, size: int = SIZE) -> Callable[[], None]:
    """A function that does one training step of the released procedure."""
    model = DermHash().to(device)
    optimizer = make_optimizer(TrainConfig.preset("released"), model)
    x, y = batch(count, size, device)
    return lambda: released.step(model, optimizer, x, y)


def kit_step(
    device: str = "cpu",
    count: int = BATCH,
    size: int = SIZE,
    kind: str | None = None,
    mode: str | None = None,
    preset: str = "released",
) -> Callable[[], None]:
    """A function that does one training step of the kit, with the released settings by default.

    ``kind`` is the precision, by default the fastest one. With a ``mode`` of ``torch.compile`` the
    network is compiled; "default" is that of ``train(compiled=True)``.
    """
    config = TrainConfig.preset(preset)
    fabric = Fabric(accelerator=device, devices=1, precision=kind or precision(device))
    model = DermHash().to(memory_format=torch.channels_last)
    if mode:
        model.compile(mode=mode)
    model, optimizer = fabric.setup(model, make_optimizer(config, model))
    x, y = batch(count, size, device)
    members = torch.arange(config.copies)  # which ones does not matter here

    def step():
        losses = step_losses(model, x, y, config, fabric=fabric, members=members)
        fabric.backward(losses["loss"])
        optimizer.step()
        optimizer.zero_grad()

    return step


def step_time() -> list[Row]:
    """Images per second of a training step on the CPU: all four copies, or two of them."""
    steps = {"released": released_step(), "kit": kit_step()}
    steps["recommended"] = kit_step(preset="recommended")
    if has_bf16():
        steps[EXACT] = kit_step(kind=EXACT)
    times = side_by_side(steps)
    ratios = {name: times["released"] / taken for name, taken in times.items()}
    what = f"training step, {WHAT}, CPU"
    details = {"images_per_s": {name: BATCH / taken for name, taken in times.items()}}
    whole = Row(what, RELEASED, 3, ratios["kit"], note=in_words(ratios), details=details)
    note = f"in {precision('cpu')}, two of the four copies in each step"
    sampled = f"{what}, with the preset recommended"
    return [whole, Row(sampled, RELEASED, 4, ratios["recommended"], note=note)]


def in_words(ratios: dict[str, float]) -> str:
    """The note of a row: the precision of its number, and the number in 32 bits."""
    if EXACT not in ratios:
        return "in 32 bits, since this CPU has no bfloat16 units"
    fast = precision("cpu")
    return f'in {fast}, which precision="auto" takes here; {ratios[EXACT]:.3g} x in {EXACT}'


def step_memory() -> Row:
    """Peak memory that a training step adds, on the CPU."""
    names = [name for name in STEPS if name != EXACT or has_bf16()]
    row = memory_row("CPU")
    told = {name: child("benchmarks.training", name).splitlines()[-1] for name in names}
    added = {name: json.loads(line) for name, line in told.items()}
    if None in added.values():
        row.note = UNKNOWN
        return row
    ratios = fill_memory(row, added)
    row.note = in_words(ratios)
    return row


def memory_row(device: str) -> Row:
    """The target of a step's memory, not measured yet."""
    return Row(f"memory of that step, {WHAT}, {device}", RELEASED, 0.8, None, at_most=True)


def fill_memory(row: Row, added: dict[str, float]) -> dict[str, float]:
    """Put the MB that the steps add into a row; return their ratios to the released step."""
    ratios = {name: mb / added["released"] for name, mb in added.items()}
    row.measured, row.details = ratios["kit"], {"peak_added_mb": added}
    return ratios


STEPS = {"released": released_step, "kit": kit_step, EXACT: lambda: kit_step(kind=EXACT)}


def main() -> None:
    """Print the MB that two steps add."""
    parser = argparse.ArgumentParser(description=__doc__.replace("``", "`"))
    parser.add_argument("step", choices=STEPS)
    step = STEPS[parser.parse_args().step]()
    print(json.dumps(peak_added(lambda: (step(), step()))))


if __name__ == "__main__":
    main()
