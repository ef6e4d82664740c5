"""The search in the browser finds what HashIndex.search finds, in its order."""

import base64

import numpy as np
import pytest

from derm_hash.explorers.frontend import module
from derm_hash.retrieval import METRICS, HashIndex

pytestmark = pytest.mark.browser
# In the page: search for every query, and return positions and distances.
SEARCH = """([codes, queries, bits, options]) => {
    const floats = text => new Float32Array(
        Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
    const index = new Index(floats(codes), bits), all = floats(queries);
    return options.map((each, i) => {
        const found = index.search(all.subarray(i * bits, (i + 1) * bits), each);
        return [found.ids, found.hamming, found.distance, found.within];
    });
}"""


@pytest.fixture(scope="module")
def blank(browser):
    """A page with the front end and nothing else."""
    page = browser.new_page()
    page.set_content(f'<script type="module">{module()}\nwindow.Index = Index;</script>')
    page.wait_for_function("() => Boolean(window.Index)")
    yield page
    page.close()


def text(array):
    return base64.b64encode(np.ascontiguousarray(array, dtype=np.float32).tobytes()).decode()


def soft_codes(rng, n, bits, levels):
    """Codes with few values have many ties; eighths are exact in every order of adding them."""
    return (rng.integers(0, levels + 1, (n, bits)) / levels).astype(np.float32)


@pytest.mark.parametrize(("bits", "levels"), [(16, 2), (16, 8), (5, 2), (40, 8), (136, 8)])
def test_a_thousand_queries_with_ties(blank, bits, levels):
    rng = np.random.default_rng(bits + levels)
    codes, queries = soft_codes(rng, 400, bits, levels), soft_codes(rng, 200, bits, levels)
    codes[:3] = queries[:2] = 0  # a code of zeros is near another one alone
    index = HashIndex.build(codes, np.zeros(400, int), range(400))
    options = [
        {
            "k": int(rng.integers(1, 21)),
            "radius": None if rng.random() < 0.2 else int(rng.integers(0, bits)),
            "rank": METRICS[i % 4],
        }
        for i in range(200)
    ]
    found = blank.evaluate(SEARCH, [text(codes), text(queries), bits, options])
    for query, each, (ids, hamming, distance, within) in zip(queries, options, found, strict=True):
        expected = index.search(query[None], **each)
        n = int((expected.ids[0] >= 0).sum())
        assert ids == expected.ids[0, :n].tolist(), each
        assert hamming == expected.hamming[0, :n].tolist()
        np.testing.assert_array_equal(np.float32(distance), expected.distance[0, :n])
        radius = bits if each["radius"] is None else each["radius"]
        assert within == index.within(query[None], radius)[0]


def test_trained_codes_that_nearly_agree(blank):
    """Close to 0 and 1, where distances differ in the last digits of 32 bits."""
    rng = np.random.default_rng(3)
    logits = rng.choice([-12, 12], (500, 16)) + rng.normal(0, 3, (500, 16))
    codes = (1 / (1 + np.exp(-logits))).astype(np.float32)
    codes[250:] = codes[:250]
    index = HashIndex.build(codes, np.zeros(500, int), range(500))
    options = [{"k": 10, "radius": 6, "rank": "cosine"}] * 200
    found = blank.evaluate(SEARCH, [text(codes), text(codes[:200]), 16, options])
    expected = index.search(codes[:200], 10, 6)
    for (ids, *_), row in zip(found, expected.ids, strict=True):
        assert ids == row[row >= 0].tolist()
