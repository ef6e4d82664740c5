"""Training from top to bottom: set up, resume, epoch, step, validate, save.

A step passes the whole orbit through the network in one batch. Lightning Fabric provides the
device, mixed precision and several GPUs. Checkpoints are in ``runs``, random views in
``data.views``, the losses in ``objectives``, optimizer and schedule in ``optimizers``, Ctrl-C and
the sharing of a batch between processes in ``devices``. Names with contrast, proxies or curriculum
belong to the second method, ECL (``longtail``); skip them when you read this for the first time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from derm_hash.backbones import trained_on
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import to_input
from derm_hash.data.views import generator, order_of_images, random_views
from derm_hash.devices import check_batch, check_compiler, make_fabric, unbroken, whole_batch
from derm_hash.errors import InputError
from derm_hash.files import locked, write_atomically
from derm_hash.longtail import CURRICULA, ClassContrast, curriculum, make_contrast
from derm_hash.losses import class_weights
from derm_hash.metrics.classification import f1_columns
from derm_hash.metrics.ranking import precision, relevance
from derm_hash.metrics.scores import class_means
from derm_hash.model import DermHash, classify, encode
from derm_hash.objectives import BY_CLASSIFIER, orbit_losses
from derm_hash.optimizers import make_optimizer, make_scheduler
from derm_hash.retrieval import build_index
from derm_hash.rivals import hash_centres
from derm_hash.rotations import rotation_orbit
from derm_hash.runs import (
    CHECKPOINT,
    MODEL_FILE,
    REMEDY,
    Run,
    check_weights,
    claim_folder,
    keep_progress,
    load_checkpoint,
    save_checkpoint,
    save_model,
    settled,
)
from derm_hash.settings import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

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
    """Train a model, or continue where the same call was stopped.

    Parameters
    ----------
    config : TrainConfig
    data : LesionDataset with splits
        Trains on ``train`` (or on ``database``, where there is no such part). The best epoch is the
        one with the highest class-mean precision@10 when ``val`` searches the trained images.
        ``query`` is never looked at.
    root : str or Path
        The run's folder is ``root/config.name``. A run that was stopped and resumed gives the same
        numbers as one that was not (on the same machine, with the same number of threads).
    progress : bool
        Show a progress bar.
    on_epoch : callable, optional
        The first process calls it with the history after every epoch: to draw it
        (:class:`derm_hash.plots.LiveCurves`), or to pass its last row on to TensorBoard.
    fabric : Fabric, optional
        By default one device: a GPU if there is one. Processes of ``torchrun`` share each batch,
        with the result of one device except for batch norm, which sees its process's share.
    compiled : bool
        Pass the network through ``torch.compile``, meant for GPUs: the same training up to
        rounding. A run may be resumed with or without it.

    Returns
    -------
    Run
        With the model of the epoch that is best on ``val`` (on a tie, the later one).

    Raises
    ------
    InputError
        If the config is that of a frozen run, a split is empty, the processes cannot share a batch
        equally, a loss or weight is not finite, ``torch.compile`` does not work here, or the folder
        holds a run with other settings or data.
    KeyboardInterrupt
        After Ctrl-C. A single process first saves a checkpoint of its last whole step. Several stop
        at different steps and keep the last periodic checkpoint. The message says what is kept.
    """
    if config.frozen:
        raise InputError("train trains the whole network: call derm_hash.frozen.train_frozen")
    path = Path(root) / config.name
    # The precision "auto" becomes the one that the run began in, or the faster one here.
    config = config if fabric else settled(config, data.size, path)
    fabric = fabric or make_fabric(config.precision)
    first = fabric.global_rank == 0
    trained, val = data.split("train"), data.split("val")
    check_batch(min(config.batch_size, len(trained)), config.copies, data.size, fabric.world_size)
    state = set_up(config, trained, fabric, resumed=(path / CHECKPOINT).exists())
    if compiled:
        check_compiler(fabric.device)
        state.model.module.compile()  # in place: the names of the weights stay the same
    busy = f"{path.name} is being trained by another process: waiting for it to end."
    with locked(path, busy) if first else nullcontext():
        fabric.barrier()
        claim_folder(path, config, data, write=first)
        load_checkpoint(state, path)
        done, total = state.epoch * state.steps + state.step, config.epochs * state.steps
        shown = {"desc": config.name[:40], "unit": "step", "disable": not (progress and first)}
        with tqdm(total=total, initial=done, **shown) as bar:
            try:
                while state.epoch < config.epochs:
                    train_epoch(state, trained, path, bar)
                    score = val_score(state.model, trained, val)
                    scores = {"val_precision_at_10": score}
                    if config.class_weights in CURRICULA:
                        logits = classify(state.model.module, encode(state.model, val))
                        scores |= f1_columns(logits.argmax(axis=1), val)
                    with unbroken(fabric):
                        close_epoch(state, scores, path)
                    bar.set_description(f"{config.name[:40]}, val {score:.3f}", refresh=False)
                    if on_epoch and first:
                        on_epoch(pd.DataFrame(state.history))
            except KeyboardInterrupt:
                raise KeyboardInterrupt(keep_progress(state, path)) from None
        fabric.barrier()
    return Run.load(path)


# --- set up -------------------------------------------------------------------------------


@dataclass
class State:
    """The state of a run."""

    config: TrainConfig
    fabric: Fabric
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    weights: Tensor | None  # class weights (classes,)
    contrast: ClassContrast | None  # what "ecl" trains beside the network
    steps: int  # per epoch
    epoch: int = 0
    step: int = 0
    totals: dict[str, float] = field(default_factory=dict)  # sums over the steps of this epoch
    history: list[dict[str, float]] = field(default_factory=list)  # a row for each epoch


def set_up(config: TrainConfig, trained: LesionDataset, fabric: Fabric, resumed: bool) -> State:
    """Make the network, optimizer and schedule of a new run, on the device.

    If a checkpoint will be loaded (``resumed``), the backbone's initial weights are not needed.
    """
    torch.manual_seed(config.seed)
    classes = len(trained.classes)
    if config.objective == "csq":
        hash_centres(config.bits, classes)  # raises InputError now if there are too few codes
    model = DermHash(
        config.backbone,
        config.bits,
        classes,
        config.attention,
        None if resumed else config.weights,
        config.sees_disc,
        detach_classifier=config.objective not in BY_CLASSIFIER,
        class_names=trained.classes,
        image_size=trained.size,
        gate_init=config.gate_init,
        normalise=trained_on(config.backbone, config.weights),
        bf16=config.precision == "bf16-mixed",
    ).to(memory_format=torch.channels_last)
    contrast = make_contrast(config, trained.labels, classes, fabric.device)
    steps = max(1, len(trained) // config.batch_size)  # an incomplete last batch is left out
    optimizer = make_optimizer(config, model, contrast)
    scheduler = make_scheduler(config, optimizer, steps)
    weights = class_weights(trained.labels.to(fabric.device), classes, config.class_weights)
    model, optimizer = fabric.setup(model, optimizer)
    return State(config, fabric, model, optimizer, scheduler, weights, contrast, steps)


# --- epoch and step -----------------------------------------------------------------------


def train_epoch(state: State, trained: LesionDataset, path: Path, bar: tqdm) -> None:
    """Do the remaining steps of an epoch, with a checkpoint every few minutes."""
    saved = time.monotonic()
    state.model.train()
    if state.config.class_weights in CURRICULA:
        weights = curriculum(state.config, trained.labels, trained.classes, state.history)
        state.weights = weights.to(state.fabric.device)
    while state.step < state.steps:
        with unbroken(state.fabric):
            train_step(state, trained)
        loss, rate = state.totals["loss"] / state.step, state.scheduler.get_last_lr()[0]
        bar.set_postfix(loss=f"{loss:.3f}", lr=f"{rate:.1e}", refresh=False)
        bar.update()
        # A checkpoint, if one is due by the first process's clock.
        if state.fabric.broadcast(time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS):
            save_checkpoint(state, path)
            saved = time.monotonic()
    check_weights(state)


def train_step(state: State, trained: LesionDataset) -> None:
    """Do one step of an epoch."""
    config, fabric = state.config, state.fabric
    rank, world = fabric.global_rank, fabric.world_size
    # 1. This process's share of a random batch, with random changes.
    chosen = batch_of(state, trained.labels)[rank::world]
    key = config.seed, state.epoch, state.step
    x = to_input(trained.images[chosen].to(fabric.device))
    x, strong = random_views(x, config, key, rank, world)
    y = trained.labels[chosen].to(fabric.device)
    # 2. Losses, gradients, and a step of the optimizer and the schedule.
    done = (state.epoch + state.step / state.steps) / config.epochs
    members = None  # of the orbit: all, unless the config draws some
    if 1 < config.copies < config.orbit:
        rng = generator(*key, "members")
        members = torch.randperm(config.orbit, generator=rng)[: config.copies]
    given = config, state.weights, done, fabric, members, state.contrast, strong
    losses = step_losses(state.model, x, y, *given)
    fabric.backward(losses["loss"])
    if state.contrast:
        state.contrast.proxies.collect()
    rate = state.optimizer.param_groups[0]["lr"]
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.scheduler.step()
    # 3. Sums over the epoch, for the history.
    add_losses(state, losses, trained)
    state.totals["lr"] = state.totals.get("lr", 0.0) + rate
    state.step += 1


def batch_of(state: State, labels: Tensor) -> Tensor:
    """Positions of this step's images among the N training images with these labels (N,)."""
    config = state.config
    order = order_of_images(labels, (config.seed, state.epoch), config.class_weights == "sampling")
    return order.split(config.batch_size)[state.step]


def add_losses(state: State, losses: dict[str, Tensor], trained: LesionDataset) -> None:
    """Add a step's losses to the epoch's sums; raise InputError if one is not finite."""
    for name, value in losses.items():
        number = float(value.detach())
        if not math.isfinite(number):
            images = trained.table["image"].iloc[batch_of(state, trained.labels).numpy()]
            raise InputError(
                f"The {name} is {number} in step {state.step + 1} of epoch {state.epoch + 1}: "
                f"check the images of the batch ({', '.join(images)}), or {REMEDY}"
            )
        state.totals[name] = state.totals.get(name, 0.0) + number


def step_losses(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    config: TrainConfig,
    weights: Tensor | None = None,
    share_done: float = 1.0,
    fabric: Fabric | None = None,
    members: Tensor | None = None,
    contrast: ClassContrast | None = None,
    strong: Tensor | None = None,
) -> dict[str, Tensor]:
    """Losses of one step: images (B, 3, S, S) in [-1, 1], labels (B,) -> named scalars.

    The whole orbit goes through the network in one batch, so that batch norm sees every copy once.
    ``members`` (orbit_sample,) are positions in the orbit; by default the step has all of it.
    ``strong`` (B, 3, S, S) are strong views of the images. With a ``fabric`` of several processes,
    x, y and strong are one process's share, and the losses those of the whole batch. For the rest
    see :func:`orbit_losses`.
    """
    copies = config.copies
    views = rotation_orbit(x, config.orbit if copies > 1 else 1)
    if members is not None:
        views = views[members]
    if strong is not None:
        views = torch.cat([views, strong[None]])
    out = model(views.flatten(0, 1).contiguous(memory_format=torch.channels_last))
    logits, codes = (each.float().unflatten(0, views.shape[:2]) for each in (out.logits, out.code))
    if fabric is not None and fabric.world_size > 1:
        logits, codes, y = whole_batch(fabric, logits, codes, y)
    strong_codes = None if strong is None else codes[copies]
    given = config, weights, share_done, contrast, strong_codes
    return orbit_losses(logits[:copies], codes[:copies], y, *given)


# --- validate and save --------------------------------------------------------------------


def val_score(model: nn.Module, trained: LesionDataset, val: LesionDataset) -> float:
    """Class-mean precision@10 when the val images search those that were trained on."""
    index = build_index(model, trained)
    hits = index.search(encode(model, val), k=10, radius=None)
    labels = val.labels.numpy()
    at_10 = class_means(precision(relevance(hits.ids, index.labels, labels)), labels)
    return sum(at_10.values()) / len(at_10)


def close_epoch(state: State, scores: dict[str, float], path: Path) -> None:
    """Step the proxies; write the model if it is the best so far, the history and the checkpoint.

    A run that is stopped before the checkpoint repeats the epoch, and writes all of these again.
    """
    if state.contrast:
        state.contrast.proxies.step(state.steps, state.config.proxy_update)
    means = {name: total / state.steps for name, total in state.totals.items()}
    state.history.append({"epoch": state.epoch + 1, **means, **scores})
    state.epoch, state.step, state.totals = state.epoch + 1, 0, {}
    if state.fabric.global_rank == 0:
        table = pd.DataFrame(state.history)
        if scores["val_precision_at_10"] == table["val_precision_at_10"].max():
            save_model(state.model.module, path / MODEL_FILE)
        write_atomically(path / "metrics.csv", lambda part: table.to_csv(part, index=False))
    save_checkpoint(state, path)
