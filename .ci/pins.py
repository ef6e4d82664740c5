"""Print constraints.txt, changed so that an installed torch may stay: `make setup` runs this.

A torch or torchvision in .venv that pyproject.toml accepts may be a build that the user chose, such
as the small CPU one. It is kept, and pip chooses what that build requires exactly.
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement  # a new environment has pip alone

PAIR = ("torch", "torchvision")


def pins(root):
    """The pins for the environment that runs this, as lines, from the project in folder `root`."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    accepted = {need.name: need.specifier for need in map(Requirement, project["dependencies"])}
    lines = (root / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {line.partition("==")[0]: line for line in lines if "==" in line}
    kept, free = [], set()
    for name in PAIR:
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        pin = f"{name}=={installed.version}"
        if pin != pinned[name] and installed.version in accepted[name]:
            print(f"keeping {name} {installed.version}, which is in .venv", file=sys.stderr)
            needs = map(Requirement, installed.requires or ())
            kept.append(pin)
            free |= {*PAIR, *(need.name for need in needs if "==" in str(need.specifier))}
    return sorted([pin for name, pin in pinned.items() if name not in free] + kept)


if __name__ == "__main__":
    print("\n".join(pins(Path(__file__).resolve().parent.parent)))
