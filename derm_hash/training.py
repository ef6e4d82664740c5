"""Training: one batched pass over the orbit a step, resumable, selected on ``val``.

Lightning Fabric brings the device, mixed precision and several GPUs; everything
else is written out below, from the loss of a step to the checkpoint.
"""

import dataclasses
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import to_input
from derm_hash.errors import InputError
from derm_hash.files import remove_parts, write_atomically
from derm_hash.losses import OrbitPenalty, class_weights
from derm_hash.metrics.ranking import precision, relevance
from derm_hash.metrics.scores import class_means
from derm_hash.model import encode
from derm_hash.objectives import OBJECTIVES
from derm_hash.retrieval import build_index
from derm_hash.rotations import rotate_quarters, rotation_orbit
from derm_hash.runs import MODEL_FILE, Run, read_config, save_model
from derm_hash.settings import TrainConfig
from derm_hash.training_state import TrainingState

SECONDS_BETWEEN_CHECKPOINTS = 300


def train(
    config: TrainConfig,
    data: LesionDataset,
    root: str | Path = "runs",
    progress: bool = True,
    on_epoch: Callable[[pd.DataFrame], None] | None = None,
    fabric: Fabric | None = None,
    compiled: bool = False,
) -> Run:
    """Train a model, or go on where the same call was stopped.

    Parameters
    ----------
    config : TrainConfig
    data : LesionDataset
        With splits; trains on ``database``, chooses the best epoch on ``val`` by class-mean
        precision@10 against the database, and never looks at ``query``.
    root : str or Path
        The run's folder is ``root/config.name``. What is written there is complete at any
        moment, and going on after a stop gives the same numbers as never having stopped (on
        the same machine, with the same number of threads).
    progress : bool
        Show a progress bar.
    on_epoch : callable, optional
        Called with the history after every epoch (say, to draw it).
    fabric : Fabric, optional
        By default one device: a GPU where there is one. Start with ``torchrun`` for several:
        they share each batch, and the loss is that of the whole batch, so the result is that
        of one device. The exception is batch norm, which normalises each process's share by
        its own statistics; the first process's running statistics are kept.
    compiled : bool
        Put the network through ``torch.compile``, which is meant for GPUs: the same training, up to
        rounding. No setting of the run, which may go on with it or without.

    Raises
    ------
    InputError
        If a split is empty, the processes cannot share a batch equally, or the folder holds a
        run with other settings or data.
    """
    fabric = fabric or make_fabric(config.precision)
    database, val = data.split("database"), data.split("val")
    images = min(config.batch_size, len(database))
    check_shares(images, fabric.world_size)
    check_batch_norm(images // fabric.world_size * config.copies, data.size)
    state = TrainingState.start(config, data, fabric, steps=batches_in(database, config))
    if compiled:
        state.model.module.compile()  # in place, so that checkpoints know nothing of it
    path = Path(root) / config.name
    with one_at_a_time(path, fabric):  # once all the rest is valid
        claim_folder(path, config, data, write=fabric.global_rank == 0)
        state.resume(path / "last.ckpt")
        train_epochs(state, database, val, path, progress, on_epoch)
        fabric.barrier()
    return Run.load(path)


def train_epochs(state, database, val, path, progress, on_epoch) -> None:
    """All epochs that are left, with a progress bar; the arguments are those of ``train``."""
    config = state.config
    total = config.epochs * state.steps
    bar = tqdm(
        total=total,
        initial=state.epoch * state.steps + state.step,
        desc=config.name if len(config.name) <= 40 else f"{config.name[:39]}…",
        unit="step",
        disable=not progress or state.fabric.global_rank > 0,
    )
    with bar:
        while state.epoch < config.epochs:
            train_epoch(state, database, path, bar)
            state.check_weights()
            state.history.append(state.epoch_row(val_score(state.model, database, val)))
            save_epoch(state, path)
            bar.set_postfix(val=f"{state.history[-1]['val_precision_at_10']:.3f}")
            if on_epoch:
                on_epoch(pd.DataFrame(state.history))


@contextmanager
def one_at_a_time(path: Path, fabric: Fabric) -> Iterator[None]:
    """Make the run's folder and hold its lock: two notebooks may want the same model at once.

    The second one waits, and then finds the run finished.
    """
    if fabric.global_rank > 0:  # the first process holds the lock for all of them
        fabric.barrier()
        yield
        return
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{path.name} is being trained by another process: waiting for it to end.")
        lock.acquire()
    try:
        remove_parts(path)
        fabric.barrier()
        yield
    finally:
        lock.release()


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
    """What "auto" stands for here. A GPU without bfloat16 only emulates it, slowly."""
    has_gpu = torch.cuda.is_available()
    bf16 = has_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if bf16 else "32-true"


def check_shares(images: int, processes: int) -> None:
    """InputError if the processes cannot share a batch of so many images equally."""
    if images % processes:
        raise InputError(
            f"{processes} processes cannot share a batch of {images} images equally: choose a "
            f"batch_size that is a multiple of {processes}, and not more than there are images."
        )


def check_batch_norm(images: int, size: int) -> None:
    """InputError if batch norm would see one number of each kind, which has no spread."""
    if images * math.ceil(size / 32) ** 2 < 2:
        raise InputError(
            f"A step sees a single image of {size} px, which batch norm cannot train on: choose a "
            "larger batch_size, larger images, or an orbit that is looked at."
        )


def claim_folder(path: Path, config: TrainConfig, data: LesionDataset, write: bool = True) -> None:
    """Check that a run's folder belongs to this run, and write down what it is for."""
    about = {"classes": list(data.classes), "size": data.size, "fingerprint": fingerprint(data)}
    if (path / "config.json").exists():
        old, old_data = read_config(path)
        changed = [
            f"{field.name} was {getattr(old, field.name)!r}"
            for field in dataclasses.fields(config)
            if getattr(old, field.name) != getattr(config, field.name)
        ]
        changed += [f"the data's {key} differs" for key in about if old_data.get(key) != about[key]]
        if changed:
            raise InputError(
                f"{path} holds another run ({', '.join(changed)}): "
                "choose another name, or delete that folder."
            )
    if not write:
        return
    text = json.dumps({"config": dataclasses.asdict(config), "data": about}, indent=2)
    write_atomically(path / "config.json", lambda partial: partial.write_text(text))


def fingerprint(data: LesionDataset) -> str:
    """A checksum of the pixels, labels and splits."""
    value = zlib.crc32(data.images.contiguous().numpy())
    value = zlib.crc32(data.labels.numpy(), value)
    return f"{zlib.crc32(','.join(data.table['split']).encode(), value):08x}"


def batches_in(data: LesionDataset, config: TrainConfig) -> int:
    """Steps in an epoch; an incomplete last batch is left out where there is a whole one."""
    return max(1, len(data) // config.batch_size)


def epoch_batches(state: TrainingState, size: int) -> Iterator[Tensor]:
    """This process's share of the batches that are left of the epoch, in its own random order.

    The order follows from seed and epoch alone, so a resumed epoch goes on with it.
    """
    for step in range(state.step, state.steps):
        chosen = batch_of(state, step, size)
        yield chosen[state.fabric.global_rank :: state.fabric.world_size]


def batch_of(state: TrainingState, step: int, size: int) -> Tensor:
    """The whole batch of a step of the epoch: positions in a database of that size."""
    order = torch.randperm(size, generator=generator(state.config.seed, state.epoch))
    batch = state.config.batch_size
    return order[step * batch : (step + 1) * batch]


def generator(*key: int) -> torch.Generator:
    """A random generator that depends on nothing but its key."""
    return torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))


def train_epoch(state: TrainingState, database: LesionDataset, path: Path, bar: tqdm) -> None:
    """Go through what is left of an epoch, with a checkpoint every few minutes."""
    config, fabric, saved = state.config, state.fabric, time.monotonic()
    state.model.train()
    for chosen in epoch_batches(state, len(database)):
        x = varied(state, to_input(database.images[chosen].to(fabric.device)))
        y = database.labels[chosen].to(fabric.device)
        losses = step_losses(state.model, x, y, config, state.weights, state.progress, fabric)
        fabric.backward(losses["loss"])
        rate = state.optimizer.param_groups[0]["lr"]
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.scheduler.step()
        for name, value in losses.items():
            number = float(value.detach())
            if not math.isfinite(number):
                raise InputError(not_finite_loss(name, number, state, database))
            state.totals[name] = state.totals.get(name, 0.0) + number
        state.totals["lr"] = state.totals.get("lr", 0.0) + rate
        state.step += 1
        bar.update()
        # All processes take part in a checkpoint, so one clock decides.
        if fabric.broadcast(time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS):
            state.save(path / "last.ckpt")
            saved = time.monotonic()


def not_finite_loss(name: str, number: float, state: TrainingState, database: LesionDataset) -> str:
    """What to say of a loss that is infinite or not a number: which images led to it."""
    chosen = batch_of(state, state.step, len(database)).numpy()
    return (
        f"The {name} is {number} in step {state.step + 1} of epoch {state.epoch + 1}: check its "
        f"images ({', '.join(database.table['image'].iloc[chosen])}), or train with a smaller "
        "learning rate or in 32-true precision; the last checkpoint is the last good one."
    )


def varied(state: TrainingState, x: Tensor) -> Tensor:
    """This process's share of a batch with the random changes that the config asks for.

    They are drawn for the whole batch and depend on the step alone, so an image changes in
    the same way however many processes share the batch.
    """
    config, fabric = state.config, state.fabric
    rank, world, key = fabric.global_rank, fabric.world_size, (state.epoch, state.step)
    if config.augment:
        x = augment(x, generator(config.seed, *key, 0), rank=rank, world=world)
    if config.random_turns:
        rng = generator(config.seed, *key, "turns")
        turns = torch.randint(4, (len(x) * world,), generator=rng)[rank::world]
        x = rotate_quarters(x, turns.to(x.device))
    return x


def step_losses(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    config: TrainConfig,
    weights: Tensor | None = None,
    progress: float = 1.0,
    fabric: Fabric | None = None,
) -> dict[str, Tensor]:
    """Losses of one step: images (B, 3, S, S) in [-1, 1], labels (B,) -> named scalars.

    The whole orbit goes through the network in one batch, so that batch norm sees every
    copy once. ``loss = cross_entropy + hashing + rise * invariance_weight * invariance``,
    where rise goes from 0 to 1 while ``progress``, the share of the run that is done, goes
    from 0 to ``invariance_rise``. ``hashing`` is the config's objective where that is not
    classification; the cross-entropy then reaches the classifier alone. With a ``fabric`` of
    several processes, x and y are one process's share and the losses those of the whole batch.
    """
    copies = config.copies
    orbit = rotation_orbit(x, copies).flatten(0, 1)
    out = model(orbit.contiguous(memory_format=torch.channels_last))
    logits, codes = (each.float().unflatten(0, (copies, len(x))) for each in (out.logits, out.code))
    if fabric is not None and fabric.world_size > 1:
        logits, codes, y = whole_batch(fabric, logits, codes, y)
    seen = copies if config.classify == "orbit" else 1
    y = y.repeat(seen)
    judged = codes[:seen].flatten(0, 1), logits[:seen].flatten(0, 1), y
    if config.class_weights == "released":
        weights = class_weights(y, logits.shape[-1], "released")
    losses = {"cross_entropy": OBJECTIVES["classification"](*judged, weights)}
    losses["loss"] = losses["cross_entropy"]
    if config.objective != "classification":
        losses["hashing"] = OBJECTIVES[config.objective](*judged, weights)
        losses["loss"] = losses["loss"] + losses["hashing"]
    if config.invariance:
        losses["invariance"] = OrbitPenalty(config.invariance, config.gamma)(codes)
        rise = min(1.0, progress / config.invariance_rise) if config.invariance_rise else 1.0
        losses["loss"] = losses["loss"] + rise * config.invariance_weight * losses["invariance"]
    return losses


def whole_batch(fabric: Fabric, logits: Tensor, codes: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """What all processes made of their equal shares, as if one had made it.

    Logits (copies, B, classes), codes (copies, B, bits), labels (B,) -> the same for all images
    of the batch. Every process then computes the loss of the whole batch: the mean of the
    shares' losses would be another number where classes have weights or pairs are compared.
    The gradient of each process's loss flows back to the share it came from, so a share gets
    it once from each process; the mean over processes, which DDP takes, undoes that.
    """
    logits, codes = (
        torch.cat(list(fabric.all_gather(each, sync_grads=True)), dim=1) for each in (logits, codes)
    )
    return logits, codes, fabric.all_gather(y).flatten()


def augment(
    x: Tensor, rng: torch.Generator, light: float = 0.1, rank: int = 0, world: int = 1
) -> Tensor:
    """Mirror half of the images and change brightness and contrast by up to ``light``.

    Images (B, 3, S, S) in [-1, 1] -> the same; turning is the orbit's business. They are every
    ``world``-th image of a batch, from the ``rank``-th on, for which all draws are made.
    """
    draws = torch.rand(3, len(x) * world, 1, 1, 1, generator=rng)[:, rank::world]
    mirror, brightness, contrast = draws.to(x.device)
    x = torch.where(mirror < 0.5, x.flip(-1), x)
    return (x * (1 + light * (2 * contrast - 1)) + light * (2 * brightness - 1)).clamp(-1, 1)


def val_score(model: nn.Module, database: LesionDataset, val: LesionDataset) -> float:
    """Class-mean precision@10 of the val images among all database images."""
    index = build_index(model, database)
    hits = index.search(encode(model, val), k=10, radius=None)
    labels = val.labels.numpy()
    at_10 = class_means(precision(relevance(hits.ids, index.labels, labels)), labels)
    return sum(at_10.values()) / len(at_10)


def save_epoch(state: TrainingState, path: Path) -> None:
    """Write the model where it is the best so far, then the history, then the checkpoint.

    A stop before the checkpoint is there makes training do the epoch again, and write the
    same model and history.
    """
    scores = [row["val_precision_at_10"] for row in state.history]
    if state.fabric.global_rank == 0 and scores[-1] == max(scores):
        save_model(state.model.module, path / MODEL_FILE)
    if state.fabric.global_rank == 0:
        table = pd.DataFrame(state.history)
        write_atomically(path / "metrics.csv", lambda partial: table.to_csv(partial, index=False))
    state.save(path / "last.ckpt")
