"""What the tests of the explorers share: small databases, and readers of charts."""

import re

import pytest

from derm_hash.retrieval import build_index

SIZE, CLASSES = 32, ("MEL", "NV", "BCC", "BKL")


def few(dataset, model, n):
    """Queries, and a database of n images with its index: what an explorer is made of."""
    database = dataset.split("database").select(range(n))
    return model, build_index(model, database), dataset.split("query"), database


def points_of(chart):
    """Angle -> correlation, of the points of a chart."""
    found = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', chart)
    return {
        round((float(x) - 44) / 294 * 360): pytest.approx((130 - float(y)) / 52 - 1, abs=0.01)
        for x, y in found
    }
