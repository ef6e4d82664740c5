"""What the tests of the explorers share: small databases, and questions of the page."""

from derm_hash.retrieval import build_index

SIZE, CLASSES = 32, ("MEL", "NV", "BCC", "BKL")


def few(dataset, model, n):
    """Queries, and a database of n images with its index: what an explorer is made of."""
    database = dataset.split("database").select(range(n))
    return model, build_index(model, database), dataset.split("query"), database


def ask(explorer, kind, buffers=(), **content):
    """Send a message as the page does."""
    explorer._handle_custom_msg({"kind": kind, **content}, list(buffers))
