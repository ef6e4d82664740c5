"""Devices and precision, and how processes share a batch."""

import pytest
import torch

from derm_hash import devices
from derm_hash.errors import InputError


def test_a_batch_is_shared_equally_and_gives_batch_norm_two_values():
    for images, copies, size, processes in ((64, 4, 32, 4), (1, 1, 33, 1), (1, 2, 32, 1)):
        devices.check_batch(images, copies, size, processes)
    with pytest.raises(InputError, match="3 processes cannot share a batch of 64 images equally"):
        devices.check_batch(64, copies=4, size=32, processes=3)
    with pytest.raises(InputError, match="a single image of 32 px, which batch norm cannot"):
        devices.check_batch(1, copies=1, size=32)


def test_fabric_run_launches_its_processes_itself(monkeypatch):
    chosen = {"CLI_USED": "1", "DEVICES": "1", "NUM_NODES": "1", "ACCELERATOR": "cpu"}
    for name, value in chosen.items():
        monkeypatch.setenv(f"LT_{name}", value)
    assert devices.make_fabric("32-true").world_size == 1  # a second launch is an error


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_card_that_only_emulates_bfloat16_trains_in_32_bits(native, precision, monkeypatch):
    def supported(including_emulation=True):
        return including_emulation or native

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert devices.best_precision() == precision
