"""Hash layers on frozen features: experiments in seconds.

The network's features of every image, rotated by 0, 90, 180 and 270 degrees, are computed once and
cached. A hash layer and a classifier on them train in seconds on a CPU, with any objective and any
penalty, so each experiment can have many seeds. Both become part of a whole ``DermHash``.
"""

import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from derm_hash.data.dataset import LesionDataset
from derm_hash.data.views import generator, order_of_images
from derm_hash.errors import InputError
from derm_hash.files import home, locked, write_atomically
from derm_hash.longtail import CURRICULA, curriculum, make_contrast
from derm_hash.losses import class_weights
from derm_hash.metrics.classification import f1_columns
from derm_hash.model import DermHash, HashOutput, encode
from derm_hash.objectives import BY_CLASSIFIER, orbit_losses
from derm_hash.optimizers import make_optimizer, make_scheduler
from derm_hash.runs import MODEL_FILE, Run, claim_folder, save_model
from derm_hash.settings import TrainConfig
from derm_hash.tensors import load_tensors, save_tensors
from derm_hash.training import val_score

QUARTERS = (0, 1, 2, 3)


class Features(nn.Module):
    """Returns a network's features where ``encode`` expects codes."""

    def __init__(self, model: DermHash):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> HashOutput:
        """Images (B, 3, S, S) in [-1, 1] -> features (B, F), twice."""
        features = self.model.features(x)
        return HashOutput(features, features)


def network(backbone: str, weights: str | None, **options) -> DermHash:
    """Make a network whose backbone is always the same, even if its weights are random."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DermHash(backbone, attention=None, weights=weights, **options)


@lru_cache(maxsize=1)
def frozen_features(
    backbone: str, weights: str | None, data: LesionDataset, progress: bool = True
) -> np.ndarray:
    """The features of every image under quarter turns, computed once and cached on disk.

    Each of the four rotations has a file of its own, so that a stopped computation can continue.

    Parameters
    ----------
    backbone, weights
        As in :class:`DermHash`.
    data : LesionDataset of N images
    progress : bool
        Show a progress bar.

    Returns
    -------
    (4, N, F) float16 array
        Member k belongs to the images rotated by 90 k degrees, counter-clockwise.
    """
    model = network(backbone, weights)
    model.eval().to(memory_format=torch.channels_last)
    key = zlib.crc32(data.images.contiguous().numpy())
    for tensor in model.backbone.state_dict().values():
        key = zlib.crc32(tensor.contiguous().numpy(), key)
    rotations = []
    for k in QUARTERS:
        path = home() / f"features-{Path(backbone).name}-{key:08x}-{90 * k}.safetensors"
        if not path.exists():
            busy = f"Another process computes features in {path.parent}: waiting for it to end."
            with locked(path.parent, busy):
                if not path.exists():  # the other process may have computed the same
                    images = torch.rot90(data.images, k, dims=(-2, -1))
                    values = encode(Features(model), images, progress=progress)
                    tensors = {"features": torch.from_numpy(values).half()}
                    save_tensors(path, tensors, {"features": f'"{backbone}"'})
        tensors, _ = load_tensors(path, "features", "a file of features", "delete it")
        rotations.append(tensors["features"].numpy())
    return np.stack(rotations)


def train_head(
    config: TrainConfig, data: LesionDataset, features: np.ndarray, progress: bool = False
) -> tuple[nn.Linear, nn.Linear, list[dict[str, float]]]:
    """Train a hash layer and a classifier on frozen features.

    The settings mean the same as in :func:`derm_hash.training.train`, which trains a whole network.

    Parameters
    ----------
    config : TrainConfig
        The config of a frozen run. Rotation is the only augmentation.
    data : LesionDataset of N images, with splits
        Trains on ``train`` (or on ``database``, where there is no such part). No epoch is chosen,
        so ``val`` is used only by class weights that depend on it ("bwce").
    features : (4, N, F) array
    progress : bool
        Show a progress bar over the epochs.

    Returns
    -------
    hash layer (F -> bits) on the features as they are, classifier (bits -> classes), and the
    losses of each epoch (and the F1 scores on val that class weights depend on)
    """
    rows, classes = data.positions("train"), len(data.classes)
    x, y = torch.from_numpy(features[:, rows]).float(), data.labels[rows]
    mean, std = x.mean(dim=(0, 1)), x.std(dim=(0, 1)).clamp(min=1e-3)
    x = (x - mean) / std
    if config.class_weights in CURRICULA:
        x_val = (torch.from_numpy(features[0, data.positions("val")]).float() - mean) / std
    torch.manual_seed(config.seed)
    head = nn.Sequential(nn.Linear(x.shape[-1], config.bits), nn.Linear(config.bits, classes))
    contrast = make_contrast(config, y, classes)
    steps = max(1, len(y) // config.batch_size)
    optimizer = make_optimizer(config, head, contrast)
    scheduler = make_scheduler(config, optimizer, steps)
    weights, history = class_weights(y, classes, config.class_weights), []
    for epoch in tqdm(range(config.epochs), "head", disable=not progress, leave=False):
        order = order_of_images(y, (config.seed, epoch), config.class_weights == "sampling")
        if config.class_weights in CURRICULA:
            weights = curriculum(config, y, data.classes, history)
        total = 0.0
        for step in range(steps):
            chosen = order[step * config.batch_size : (step + 1) * config.batch_size]
            quarters = drawn_quarters(config, len(chosen), (config.seed, epoch, step))
            codes = torch.sigmoid(head[0](x[quarters, chosen]))
            logits = head[1](codes if config.objective in BY_CLASSIFIER else codes.detach())
            done = (epoch + step / steps) / config.epochs
            loss = orbit_losses(logits, codes, y[chosen], config, weights, done, contrast)["loss"]
            optimizer.zero_grad()
            loss.backward()
            if contrast:
                contrast.proxies.collect()
            optimizer.step()
            scheduler.step()
            total += float(loss.detach())
        if contrast:
            contrast.proxies.step(steps, config.proxy_update)
        history.append({"epoch": epoch + 1, "loss": total / steps})
        if config.class_weights in CURRICULA:
            with torch.no_grad():
                predicted = head[1](head[0](x_val).sigmoid()).argmax(dim=1).numpy()
            history[-1] |= f1_columns(predicted, data.split("val"))
    with torch.no_grad():  # fold the standardisation into the hash layer
        head[0].weight /= std
        head[0].bias -= head[0].weight @ mean
    return head[0], head[1], history


def drawn_quarters(config: TrainConfig, images: int, key: tuple[int, ...]) -> Tensor:
    """The quarter turns (copies, images) in 0..3 of each image's copies in a step."""
    members = torch.arange(0, 4, 4 // config.orbit) if config.copies > 1 else torch.zeros(1).long()
    if config.copies < len(members):
        drawn = torch.randperm(len(members), generator=generator(*key, "members"))
        members = members[drawn[: config.copies]]
    start = torch.zeros(images).long()
    if config.random_rotations:
        start = torch.randint(4, (images,), generator=generator(*key, "turns"))
    return (members[:, None] + start) % 4


def train_frozen(
    config: TrainConfig, data: LesionDataset, root: str | Path = "runs", progress: bool = True
) -> Run:
    """Train a run whose backbone keeps its initial weights.

    Arguments and result are those of :func:`derm_hash.training.train`, but the model is that of the
    last epoch. InputError if the config is not that of a frozen run.
    """
    if not config.frozen:
        raise InputError("train_frozen trains only a hash layer: set frozen, or call train")
    path = Path(root) / config.name
    with locked(path, f"{path.name} is being trained by another process: waiting for it to end."):
        claim_folder(path, config, data)
        features = frozen_features(config.backbone, config.weights, data, progress)
        hash_layer, classifier, history = train_head(config, data, features, progress)
        about = {"class_names": data.classes, "image_size": data.size, "bits": config.bits}
        model = network(config.backbone, config.weights, classes=len(data.classes), **about)
        model.hash_layer, model.classifier = hash_layer, classifier
        table = pd.DataFrame(history)
        score = val_score(model, data.split("train"), data.split("val"))
        table.loc[table.index[-1], "val_precision_at_10"] = score
        save_model(model, path / MODEL_FILE)
        write_atomically(path / "metrics.csv", lambda part: table.to_csv(part, index=False))
    return Run.load(path)


def head_codes(hash_layer: nn.Linear, features: np.ndarray, orbit_mean: bool) -> np.ndarray:
    """Soft codes (4, N, bits) of features (4, N, F); with ``orbit_mean``, their mean, repeated."""
    with torch.no_grad():
        codes = torch.sigmoid(hash_layer(torch.from_numpy(features).float())).numpy()
    return np.repeat(codes.mean(axis=0)[None], len(codes), axis=0) if orbit_mean else codes
