"""Devices and precision, and how processes share a batch."""

from unittest.mock import Mock

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


def test_torchrun_says_how_many_devices_and_machines_there_are(monkeypatch):
    asked = {}
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(
        "lightning_fabric.Fabric", lambda **options: asked.update(options) or Mock()
    )
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", "8")
    devices.make_fabric("32-true", "cpu")
    assert (asked["devices"], asked["num_nodes"]) == (4, 2)


def test_processes_that_share_a_gpu_talk_through_gloo(monkeypatch):
    asked = {}
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        "lightning_fabric.Fabric", lambda **options: asked.update(options) or Mock()
    )
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    devices.make_fabric("32-true")
    assert asked["devices"] == 1  # of the machine, which has no more
    assert asked["strategy"].parallel_devices == [torch.device("cuda", 0)] * 2
    assert asked["strategy"]._process_group_backend == "gloo"


def test_the_batch_of_two_processes_is_whole_again():
    class Two:
        def all_gather(self, share, sync_grads=False):
            return torch.stack([share, share + 10])

    y, codes = torch.arange(3), torch.arange(12.0).view(2, 3, 2)
    _, whole, labels = devices.whole_batch(Two(), codes, codes, y)
    assert labels.tolist() == [0, 1, 2, 10, 11, 12]
    assert torch.equal(whole, torch.cat([codes, codes + 10], dim=1))


def test_the_cpu_is_used_on_request_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: True)
    assert devices.make_fabric(device="cpu").device.type == "cpu"
    assert [devices.check_device(name) for name in devices.DEVICES] == ["cuda", "cpu", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.check_device("auto") == "cpu"
    with pytest.raises(InputError, match="leave out --device cuda"):
        devices.make_fabric(device="cuda")
