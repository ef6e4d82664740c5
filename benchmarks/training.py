"""A training step beside the released one: its time here, its memory in processes of their own.

``python -m benchmarks.training released`` (or ``kit``) prints the MB that two steps add to a
process in which model and images are already there.
"""

import argparse
from collections.abc import Callable

import torch
from lightning_fabric import Fabric

from benchmarks import Row, child, has_bf16, released, side_by_side
from benchmarks.memory import peak_added
from derm_hash.model import DermHash
from derm_hash.training import TrainConfig, make_optimizer, step_losses

BATCH, SIZE = 16, 224
WHAT = f"ResNet-18 + HDC-SA, {SIZE} px, batch {BATCH}"
RELEASED = "five passes in float32, one after another"


def batch(count: int, size: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, 3, S, S) and labels (B,) of noise: the work does not depend on them."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(count, 3, size, size, generator=rng), torch.arange(count) % 4
    return x.to(device), y.to(device)


def precision(device: str) -> str:
    """What a training step is fastest in."""
    return "bf16-mixed" if device == "cuda" or has_bf16() else "32-true"


def released_step(device: str = "cpu", count: int = BATCH, size: int = SIZE) -> Callable[[], None]:
    """A training step of the released procedure, ready to be called."""
    model = DermHash().to(device)
    optimizer = make_optimizer(TrainConfig.preset("released"), model)
    x, y = batch(count, size, device)
    return lambda: released.step(model, optimizer, x, y)


def kit_step(device: str = "cpu", count: int = BATCH, size: int = SIZE) -> Callable[[], None]:
    """The kit's training step on the released recipe: what `train_epoch` does with a batch."""
    config = TrainConfig.preset("released")
    fabric = Fabric(accelerator=device, devices=1, precision=precision(device))
    model = DermHash().to(memory_format=torch.channels_last)
    if device == "cuda":
        model.compile()
    model, optimizer = fabric.setup(model, make_optimizer(config, model))
    x, y = batch(count, size, device)

    def step():
        fabric.backward(step_losses(model, x, y, config, fabric=fabric)["loss"])
        optimizer.step()
        optimizer.zero_grad()

    return step


def step_time() -> Row:
    """Images a second of a training step on the CPU."""
    times = side_by_side({"released": released_step(), "kit": kit_step()})
    return Row(
        f"training step, {WHAT}, CPU",
        RELEASED,
        target=3,
        measured=times["released"] / times["kit"],
        note="" if has_bf16() else "in float32, since this CPU has no bfloat16 units",
        details={"images_per_s": {name: BATCH / taken for name, taken in times.items()}},
    )


def step_time_gpu() -> Row:
    """Images a second of a training step on a GPU: bfloat16, channels last, compiled."""
    row = Row(f"training step, {WHAT}, GPU", RELEASED, 6, None, note="no GPU here")
    if not torch.cuda.is_available():
        return row

    def waited(step):
        def run():
            step()
            torch.cuda.synchronize()

        return run

    steps = {"released": released_step("cuda"), "kit": kit_step("cuda")}
    times, memory = side_by_side({k: waited(s) for k, s in steps.items()}, repeats=20), {}
    for name, step in steps.items():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        memory[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
    row.measured, row.note = times["released"] / times["kit"], torch.cuda.get_device_name()
    row.details = {
        "images_per_s": {name: BATCH / taken for name, taken in times.items()},
        "peak_added_mb": memory,
    }
    return row


def step_memory() -> Row:
    """Peak memory that a training step adds, on the CPU."""
    added = {name: float(child("benchmarks.training", name).split()[-1]) for name in STEPS}
    return Row(
        f"memory of that step, {WHAT}, CPU",
        RELEASED,
        target=0.8,
        measured=added["kit"] / added["released"],
        at_most=True,
        details={"peak_added_mb": added},
    )


STEPS = {"released": released_step, "kit": kit_step}


def main() -> None:
    """Print the MB that two steps add."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    step = STEPS[parser.parse_args().step]()
    print(peak_added(lambda: (step(), step())))


if __name__ == "__main__":
    main()
