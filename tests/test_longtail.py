"""ECL's losses against sums over the set in plain Python, its proxies, and its curriculum."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import Stop, assert_same_run, checkpoint_of, color_data, tiny, train_quietly
from hypothesis import given, settings
from hypothesis import strategies as st

from derm_hash import training
from derm_hash.errors import InputError
from derm_hash.frozen import frozen_features, train_head
from derm_hash.longtail import (
    ClassContrast,
    ClassProxies,
    bhp_loss,
    bwce_weights,
    proxies_per_class,
)
from derm_hash.rivals import supcon

COUNTS = [84, 195, 69, 4023, 308, 659, 667]
"""Images of VASC, AKIEC, DF, NV, BCC, BKL, MEL in the authors' training part of ISIC 2018."""
COUNTS_2019 = [519, 1993, 1574, 143, 2712, 7725, 376, 151]


def unit_vectors(n, dim, generator):
    return F.normalize(torch.randn(n, dim, dtype=torch.float64, generator=generator), dim=1)


def random_set(seed, proxies=(3, 1, 2, 2)):
    """Features of two views, proxies, their labels, and labels of a batch."""
    rng = torch.Generator().manual_seed(seed)
    classes, dim = len(proxies), int(torch.randint(2, 9, (), generator=rng))
    labels = torch.randint(classes, (int(torch.randint(1, 12, (), generator=rng)),), generator=rng)
    features = unit_vectors(2 * len(labels), dim, rng).unflatten(0, (2, -1))
    proxy_labels = torch.repeat_interleave(torch.arange(classes), torch.tensor(proxies))
    return features, unit_vectors(len(proxy_labels), dim, rng), proxy_labels, labels


def bhp_by_hand(features, proxies, proxy_labels, labels, temperature):
    """The formula, written down again: every member an anchor."""
    z = [*features.flatten(0, 1).tolist(), *proxies.tolist()]
    y = [*labels.tolist() * len(features), *proxy_labels.tolist()]
    total, anchors = 0.0, 0
    for i, anchor in enumerate(z):
        others = [k for k in range(len(z)) if k != i]
        s = {k: sum(a * b for a, b in zip(anchor, z[k], strict=True)) / temperature for k in others}
        positives = [k for k in others if y[k] == y[i]]
        if not positives:
            continue
        denominator = 0.0
        for c in set(y):
            members = [k for k in others if y[k] == c]
            if members:
                denominator += sum(math.exp(s[k]) for k in members) / len(members)
        total -= sum(s[j] - math.log(denominator) for j in positives) / len(positives)
        anchors += 1
    return total / anchors


# --- the contrastive loss -------------------------------------------------------------------


def test_bhp_is_the_formula_on_100_random_batches():
    for seed in range(100):
        given_set = random_set(seed)
        temperature = [0.1, 0.5, 1.0][seed % 3]
        expected = bhp_by_hand(*given_set, temperature)
        assert bhp_loss(*given_set, temperature).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_equal_vectors_give_the_log_of_the_number_of_classes(classes):
    labels = torch.arange(classes).repeat(3)
    z = F.normalize(torch.ones(5, dtype=torch.float64), dim=0)
    value = bhp_loss(
        z.expand(2, len(labels), 5), z.expand(classes, 5), torch.arange(classes), labels
    )
    assert value.item() == pytest.approx(math.log(classes), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_orthogonal_classes_have_the_loss_of_the_formula(temperature):
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    corners = torch.eye(3, dtype=torch.float64)
    value = bhp_loss(corners[labels].expand(2, 6, 3), corners, torch.arange(3), labels, temperature)
    assert value.item() == pytest.approx(math.log(1 + 2 * math.exp(-1 / temperature)), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_order_and_names_of_the_classes_do_not_matter(seed):
    features, proxies, proxy_labels, labels = random_set(seed)
    rng = torch.Generator().manual_seed(seed)
    value = bhp_loss(features, proxies, proxy_labels, labels)
    images = torch.randperm(len(labels), generator=rng)
    own = torch.randperm(len(proxies), generator=rng)
    names = torch.randperm(4, generator=rng)
    again = bhp_loss(
        features[:, images].flip(0), proxies[own], names[proxy_labels[own]], names[labels[images]]
    )
    assert again.item() == pytest.approx(value.item(), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.1, 1.0]))
def test_bhp_is_finite_and_falls_along_its_gradient(seed, temperature):
    features, proxies, proxy_labels, labels = random_set(seed)
    features.requires_grad_()
    proxies.requires_grad_()
    value = bhp_loss(features, proxies, proxy_labels, labels, temperature)
    value.backward()
    slope = features.grad.square().sum() + proxies.grad.square().sum()
    assert value.isfinite() and slope.isfinite() and value > -1e-9
    step = 1e-6 / max(1.0, slope.sqrt().item())
    with torch.no_grad():
        moved = features - step * features.grad, proxies - step * proxies.grad
        assert bhp_loss(*moved, proxy_labels, labels, temperature) <= value + 1e-12


def test_the_gradient_is_that_of_finite_differences():
    features, proxies, proxy_labels, labels = random_set(3)
    inputs = features.requires_grad_(), proxies.requires_grad_()
    assert torch.autograd.gradcheck(lambda f, p: bhp_loss(f, p, proxy_labels, labels), inputs)


def test_a_proxy_without_company_is_left_out_and_stays_a_negative():
    rng = torch.Generator().manual_seed(0)
    features, proxies = unit_vectors(4, 5, rng)[None], unit_vectors(3, 5, rng)
    labels, proxy_labels = torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 1])
    proxies.requires_grad_()
    value = bhp_loss(features, proxies, proxy_labels, labels)  # NaN in the published code
    value.backward()
    assert value.isfinite() and proxies.grad.isfinite().all() and proxies.grad[2].abs().sum() > 0
    alone = bhp_loss(features[:, :0], proxies[[0, 2]], torch.tensor([0, 1]), labels[:0])
    assert alone.item() == 0


def test_supervised_contrastive_learning_is_its_double_loop():
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(7, 5, dtype=torch.float64, generator=generator)
    labels, weights = torch.tensor([0, 0, 0, 1, 1, 2, 1]), torch.tensor([1.0, 2.0, 5.0])
    z = F.normalize(2 * codes - 1, dim=1)
    for w in (torch.ones(3), weights):
        total, share = 0.0, 0.0
        for i in range(7):
            others = [k for k in range(7) if k != i]
            positives = [k for k in others if labels[k] == labels[i]]
            s = {k: float(z[i] @ z[k]) / 0.1 for k in others}
            below = math.log(sum(float(w[labels[k]]) * math.exp(s[k]) for k in others))
            if positives:
                loss = sum(below - s[j] for j in positives) / len(positives)
                total += float(w[labels[i]]) * loss
                share += float(w[labels[i]])
        value = supcon(codes, torch.zeros(7, 3), labels, None if w is not weights else weights)
        assert value.item() == pytest.approx(total / share, rel=1e-9)


# --- proxies ----------------------------------------------------------------------------------


def test_the_numbers_of_proxies_are_those_of_the_paper():
    assert proxies_per_class(torch.tensor(COUNTS)).tolist() == [6, 4, 7, 1, 3, 2, 2]
    assert proxies_per_class(torch.tensor(COUNTS_2019)).tolist() == [3, 2, 2, 7, 2, 1, 4, 7]
    assert proxies_per_class(torch.tensor([5, 0, 5])).tolist() == [1, 0, 1]


def test_proxies_start_xavier_uniform_and_are_used_at_unit_length():
    torch.manual_seed(0)
    proxies = ClassProxies([600, 40, 10], 32)
    count = 1 + 3 + 8
    assert proxies.labels.tolist() == [0] + [1] * 3 + [2] * 8
    bound = math.sqrt(6 / (count + 32))
    assert proxies.vectors.abs().max() <= bound and proxies.vectors.std() > bound / 2
    assert torch.allclose(proxies().norm(dim=1), torch.ones(count))


@pytest.mark.parametrize(("update", "rate"), [("sum", 0.002), ("mean", 0.2 / 5)])
def test_the_proxies_step_once_an_epoch_by_the_sum_of_the_batches_gradients(update, rate):
    torch.manual_seed(0)
    contrast = ClassContrast([30, 20, 10], bits=6)
    proxies = contrast.proxies
    start, summed = proxies.vectors.detach().clone(), 0.0
    for _ in range(5):
        codes, labels = torch.rand(2, 8, 6), torch.randint(3, (8,))
        (alone,) = torch.autograd.grad(contrast(codes, labels), proxies.vectors)
        summed = summed + alone
        contrast(codes, labels).backward()
        proxies.collect()
        assert torch.equal(proxies.vectors, start)
    torch.testing.assert_close(proxies.gradient, summed)
    proxies.step(5, update)
    torch.testing.assert_close(proxies.vectors.detach(), start - rate * summed)
    assert (proxies.gradient == 0).all()
    proxies.step(5, update)  # momentum alone
    torch.testing.assert_close(proxies.vectors.detach(), start - 1.9 * rate * summed)


# --- the curriculum ---------------------------------------------------------------------------

F1 = [0.8, 0.4, 0.2, 0.9, 0.6, 0.5, 0.5]


def test_the_weights_of_the_curriculum_by_hand():
    by_size = 7 / np.array(COUNTS) / (1 / np.array(COUNTS)).sum()
    by_f1 = 7 / np.array(F1) / (1 / np.array(F1)).sum()
    expected = {0: 1, 20: 1, 35: by_size**0.5, 50: by_size, 75: by_f1**0.5, 100: by_f1}
    for epoch, weights in expected.items():
        got = bwce_weights(COUNTS, F1, epoch, 20, 50, 100).numpy()
        assert got == pytest.approx(np.broadcast_to(weights, 7), rel=1e-5), epoch
    assert by_size[2] == pytest.approx(2.67, abs=0.005)  # DF


def test_after_the_second_turn_the_published_weights_jump_and_the_smooth_ones_do_not():
    before, after = (bwce_weights(COUNTS, F1, epoch, 20, 50, 100) for epoch in (50, 50.001))
    assert before[2] > 2.6 and after[2] == pytest.approx(1, abs=1e-3)
    smooth = bwce_weights(COUNTS, F1, 50.001, 20, 50, 100, smooth=True)
    torch.testing.assert_close(smooth, before, rtol=1e-3, atol=1e-3)
    end = bwce_weights(COUNTS, F1, 100, 20, 50, 100, smooth=True)
    torch.testing.assert_close(end, bwce_weights(COUNTS, F1, 100, 20, 50, 100))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 10_000), min_size=2, max_size=8).filter(any),
    st.floats(0, 100),
    st.booleans(),
    st.data(),
)
def test_every_weight_is_finite_whatever_is_found_of_a_class(counts, epoch, smooth, data):
    of_class = st.one_of(st.just(0.0), st.just(math.nan), st.floats(0, 1))
    f1 = data.draw(st.lists(of_class, min_size=len(counts), max_size=len(counts)))
    weights = bwce_weights(counts, f1, epoch, 20, 50, 100, smooth)
    assert weights.isfinite().all() and (weights >= 0).all() and weights.sum() > 0


def test_a_class_that_is_never_found_counts_most_but_not_alone():
    weights = bwce_weights([100, 100, 100], [0.0, 0.9, math.nan], 100, 20, 50, 100)
    assert weights[0] > weights[2] > weights[1] > 0.05
    assert weights.mean().item() == pytest.approx(1)


# --- in training ------------------------------------------------------------------------------

SPLITS = ["database"] * 40 + ["val"] * 10 + ["query"] * 10
LONG_TAIL = [0, 1, 1, 1, 2, 1, 1, 1, 1, 1] * 6


@pytest.fixture(scope="module")
def data():
    return color_data(splits=SPLITS, labels=LONG_TAIL)


ECL = {"objective": "ecl", "class_weights": "bwce", "epochs": 5}
VARIANTS = {
    "orbit": {"attention": "hdcsa", "bits": 16},
    "weak-strong": {"views": "weak-strong", "invariance": None, "classify": "upright"},
    "with the rotation loss": {"views": "weak-strong", "proxy_update": "sum"},
    "projection": {"projection": 32, "attention": None},
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_kill_in_the_middle_of_an_epoch_resumes_to_the_bit(data, tmp_path, monkeypatch, variant):
    config = tiny(**ECL | {"epochs": 3} | VARIANTS[variant])
    whole = train_quietly(config, data, tmp_path / "whole")
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    step_losses, calls = training.step_losses, []

    def stopping(*given):
        calls.append(1)
        if len(calls) == 9:  # the fourth of five steps of epoch 2
            raise Stop
        return step_losses(*given)

    monkeypatch.setattr(training, "step_losses", stopping)
    with pytest.raises(Stop):
        train_quietly(config, data, tmp_path / "stopped")
    stopped = checkpoint_of(tmp_path / "stopped" / "tiny")
    assert stopped["step"] == 3 and stopped["contrast"]["proxies.gradient"].abs().sum() > 0
    resumed = train_quietly(config, data, tmp_path / "stopped")
    assert_same_run(resumed, whole)
    proxies = [checkpoint_of(run.path)["contrast"]["proxies.vectors"] for run in (whole, resumed)]
    assert torch.equal(*proxies) and not torch.equal(
        proxies[0], stopped["contrast"]["proxies.vectors"]
    )


@pytest.mark.usefixtures("one_thread")
def test_ecl_learns_an_easy_problem_and_writes_its_f1_scores(data, tmp_path):
    run = train_quietly(tiny(**ECL | {"epochs": 15}, learning_rate=0.03), data, tmp_path)
    assert run.history["hashing"].iloc[-1] < 0.7 * run.history["hashing"].iloc[0]
    assert run.history["val_f1_MEL"].iloc[-1] > 0.9
    best = (1 + 0.4 + 0.4) / 3  # two classes have 4 images in the database
    assert run.history["val_precision_at_10"].max() == pytest.approx(best)


@pytest.mark.parametrize("class_weights", ["bwce", "bwce-smooth"])
def test_the_curriculum_of_a_run_follows_its_epochs_and_val(
    data, tmp_path, monkeypatch, class_weights
):
    step_losses, seen = training.step_losses, []

    def spy(model, x, y, config, weights, *more):
        seen.append(weights)
        return step_losses(model, x, y, config, weights, *more)

    monkeypatch.setattr(training, "step_losses", spy)
    run = train_quietly(tiny(class_weights=class_weights, epochs=10), data, tmp_path)
    counts = torch.bincount(data.split("database").labels)
    for epoch in range(1, 11):
        row = run.history.iloc[epoch - 2] if epoch > 1 else None
        f1 = None if row is None else [row[f"val_f1_{name}"] for name in data.classes]
        smooth = class_weights == "bwce-smooth"
        expected = bwce_weights(counts, f1, epoch, 2, 5, 10, smooth)
        torch.testing.assert_close(seen[5 * (epoch - 1)], expected)


def test_sampling_shows_every_class_equally_often(data, tmp_path, monkeypatch):
    step_losses, seen = training.step_losses, []

    def spy(model, x, y, *more):
        seen.extend(y.tolist())
        return step_losses(model, x, y, *more)

    monkeypatch.setattr(training, "step_losses", spy)
    train_quietly(tiny(class_weights="sampling", epochs=12, attention=None), data, tmp_path)
    assert np.bincount(seen) == pytest.approx(
        160, abs=35
    )  # of 480; a third of 40 would be 4, 32, 4


@pytest.mark.parametrize("class_weights", ["logit-adjusted", "focal", "sampling", "bwce"])
@pytest.mark.parametrize("objective", ["classification", "ecl", "supcon"])
def test_heads_on_frozen_features_train_with_every_balance(
    data, tmp_path, monkeypatch, objective, class_weights
):
    monkeypatch.setenv("DERM_HASH_HOME", str(tmp_path))
    features = frozen_features("pocket", None, data, progress=False)
    what = {"objective": objective, "class_weights": class_weights}
    config = tiny(frozen=True, attention=None, epochs=6, learning_rate=0.02, **what)
    heads = [train_head(config, data, features) for _ in range(2)]
    assert torch.equal(heads[0][0].weight, heads[1][0].weight)
    assert heads[0][2][-1]["loss"] < heads[0][2][0]["loss"] or class_weights == "bwce"


def test_a_config_says_what_ecl_cannot_do():
    with pytest.raises(InputError, match="have no strong view"):
        tiny(frozen=True, attention=None, views="weak-strong")
    with pytest.raises(InputError, match="use another precision"):
        tiny(objective="ecl", precision="16-mixed")
