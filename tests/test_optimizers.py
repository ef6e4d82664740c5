"""Optimizer and schedule."""

import pytest
import torch
from torch import nn

from derm_hash.optimizers import make_optimizer, make_scheduler
from derm_hash.settings import TrainConfig


@pytest.mark.parametrize("schedule", ["steps", "onecycle"])
def test_the_released_optimizer_and_schedules_are_torchs(schedule):
    config = TrainConfig.preset("released", schedule=schedule, epochs=100)
    model = nn.Linear(2, 2)
    optimizer = make_optimizer(config, model)
    group = optimizer.param_groups[0]
    assert isinstance(optimizer, torch.optim.SGD)
    scheduler = make_scheduler(config, optimizer, steps=3)
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 5e-4, False)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        for _ in range(3):
            optimizer.step()
            scheduler.step()
    if schedule == "steps":
        expected = [0.01] * 40 + [0.001] * 20 + [1e-4] * 20 + [1e-5] * 20
        assert rates == pytest.approx(expected)
    else:
        assert max(rates) == pytest.approx(0.01, rel=0.01)
        assert rates[0] < 0.001
        assert rates[-1] < 1e-5
        assert rates.index(max(rates)) in range(28, 33)  # it rises for three tenths
    assert group["momentum"] == 0.9  # the schedule moves the learning rate alone
