"""The front end: the modules of ``static/`` as the one ES module that a page takes."""

import re
from pathlib import Path

STATIC = Path(__file__).with_name("static")
STYLE = (STATIC / "style.css").read_text("utf-8")
# Each module imports only from those before it, so they can stand one after the other in one file.
MODULES = ("search", "parts", "source", "stage", "panel", "export", "explorer")
MODULES += ("loss", "heat", "guess", "main")


def module() -> str:
    """All modules as one, which imports nothing and has main's default export alone."""
    source = "\n".join((STATIC / f"{name}.js").read_text("utf-8") for name in MODULES)
    return re.sub(r"^(import .*\n|export (?!default))", "", source, flags=re.M)
