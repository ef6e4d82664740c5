"""The package's layout: imports run one way, and no file is too long to read."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "derm_hash"
LAYERS = (  # from the ground up; a module imports from its own layer or a lower one
    *("errors", "files precision tensors", "rotations backbones"),
    *("attention losses longtail rivals objectives settings", "optimizers data atlas", "model"),
    "devices metrics",
    *("retrieval runs", "training heatmaps faithfulness", "plots", "course", "frozen"),
    *("experiments explorers options", "commands", "app cli doctor lab"),
)
LAYER = {name: layer for layer, names in enumerate(LAYERS) for name in names.split()}
FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if not p.name.startswith("__")]


def imported(path):
    """The modules of the package that a file imports at its top level."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module == "derm_hash":
            yield from ((alias.name,) for alias in node.names if alias.name in LAYER)
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("derm_hash."):
            yield tuple(node.module.split(".")[1:])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_from_its_own_layer_or_lower_ones(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts
    for module in imported(path):
        assert LAYER[module[0]] <= LAYER[own[0]], f"{own} imports {module}"


def test_no_module_imports_itself_through_others():
    graph = {}
    for path in FILES:
        own = path.relative_to(PACKAGE).with_suffix("").parts
        graph[own] = {
            m for m in imported(path) if (PACKAGE.joinpath(*m)).with_suffix(".py").exists()
        }

    def visit(module, above):
        assert module not in above, " -> ".join(".".join(m) for m in (*above, module))
        for each in graph[module]:
            visit(each, (*above, module))

    for module in graph:
        visit(module, ())


def test_no_file_is_longer_than_a_reader_can_follow():
    long = {p.name: n for p in FILES if (n := len(p.read_text("utf-8").splitlines())) > 360}
    assert not long, long
