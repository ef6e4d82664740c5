"""The optimizer of a training, and the schedule of its learning rate."""

import torch
from torch import nn

from derm_hash.longtail import ClassContrast
from derm_hash.settings import TrainConfig


def make_optimizer(
    config: TrainConfig, model: nn.Module, contrast: ClassContrast | None = None
) -> torch.optim.Optimizer:
    """SGD or AdamW, as the config says, for the network and the projection head of "ecl", if any.

    It leaves out the class proxies of "ecl", which step once an epoch by a rule of their own.
    """
    rate, decay = config.learning_rate, config.weight_decay
    parameters = [*model.parameters(), *(contrast.head.parameters() if contrast else ())]
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, config.momentum, weight_decay=decay)
    return torch.optim.AdamW(parameters, rate, weight_decay=decay)


def make_scheduler(config: TrainConfig, optimizer, steps: int):
    """The schedule of the learning rate, advanced after every step."""
    if config.schedule == "steps":
        milestones = [epoch * steps for epoch in config.milestones]
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.learning_rate,
        total_steps=config.epochs * steps + 1,  # else the last step would have a rate of almost 0
        cycle_momentum=config.optimizer == "adamw",  # it would overwrite the momentum of SGD
    )
