"""The settings of a run: the presets are what they say, and nonsense is refused."""

import math
import re

import pytest

from derm_hash.errors import InputError
from derm_hash.settings import TrainConfig


def test_the_recommended_preset_is_the_default():
    assert TrainConfig.preset("recommended") == TrainConfig()


def test_the_released_preset_is_the_recipe_of_the_released_code():
    config = TrainConfig.preset("released", bits=32)
    expected = {
        "name": "released",
        "backbone": "resnet18",
        "bits": 32,
        "attention": "hdcsa",
        "gate_init": "released",
        "objective": "classification",
        "invariance": "cauchy",
        "invariance_weight": 0.5,
        "invariance_rise": 0,
        "gamma": 0.5,
        "orbit": 4,
        "classify": "upright",
        "class_weights": "released",
        "augment": False,
        "random_rotations": False,
        "disc": False,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "steps",
        "milestones": (40, 60, 80, 100),
        "epochs": 120,
        "batch_size": 64,
    }
    assert {name: getattr(config, name) for name in expected} == expected


def test_the_paper_preset_is_the_released_recipe_with_sound_class_weights():
    released = TrainConfig.preset("released", class_weights="inverse", name="paper")
    assert TrainConfig.preset("paper") == released


@pytest.mark.parametrize(
    ("preset", "changes", "said"),
    [
        ("fast", {}, "'fast': choose one of recommended, released"),
        ("released", {"bit": 8}, "no 'bit'"),
        ("recommended", {"gate_init": "zero"}, "gate_init must be one of pytorch, released"),
        ("recommended", {"optimizer": "adam"}, "optimizer must be one of adamw, sgd, not 'adam'"),
        ("recommended", {"invariance": "huber"}, "invariance must be one of None, cauchy, l1"),
        ("recommended", {"classify": "both"}, "classify must be one of orbit, upright"),
        ("recommended", {"objective": "triplet"}, "objective must be one of classification, dpsh"),
        ("recommended", {"schedule": "cosine"}, "schedule must be one of onecycle, steps"),
        ("recommended", {"bits": 0}, "bits must be greater than 0, not 0"),
        ("recommended", {"epochs": -1}, "epochs must be greater than 0"),
        ("recommended", {"gamma": math.nan}, "gamma must be greater than 0"),
        ("recommended", {"invariance_rise": -0.5}, "invariance_rise must be 0 or more, not -0.5"),
        ("recommended", {"weight_decay": -1}, "weight_decay must be 0 or more"),
        ("recommended", {"bits": 10**15}, "bits must be at most 65536, not 1000000000000000"),
        ("recommended", {"seed": -1}, "seed must be 0 or more, not -1"),
        ("recommended", {"seed": 2**63}, "seed must be at most 9223372036854775807"),
        ("recommended", {"precision": "fp16"}, "precision must be one of auto, 32-true, bf16-mix"),
        ("recommended", {"epochs": "1"}, "epochs must be a whole number, not '1'"),
        ("recommended", {"epochs": 1.5}, "epochs must be a whole number, not 1.5"),
        ("recommended", {"bits": True}, "bits must be a whole number, not True"),
        ("recommended", {"gamma": "wide"}, "gamma must be a number, not 'wide'"),
        ("recommended", {"disc": "yes"}, "disc must be true or false, not 'yes'"),
        ("recommended", {"attention": 5}, "attention must be text or none, not 5"),
        ("recommended", {"schedule": ["steps"]}, "schedule must be text, not ['steps']"),
        ("recommended", {"milestones": 3}, "milestones must be whole numbers, not 3"),
        ("recommended", {"milestones": "abc"}, "milestones must be whole numbers, not 'abc'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(preset, changes, said):
    with pytest.raises(InputError, match=re.escape(said)):
        TrainConfig.preset(preset, **changes)
