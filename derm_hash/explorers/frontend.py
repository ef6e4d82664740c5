"""The front end: the modules of ``static/`` as the one ES module that a page takes."""

import re
from functools import cache
from pathlib import Path

STATIC = Path(__file__).with_name("static")
# Each module imports only from those before it, so they can stand one after the other in one file.
MODULES = ("search", "parts", "source", "stage", "panel", "export", "explorer")
MODULES += ("loss", "heat", "guess", "main")


@cache
def module() -> str:
    """All modules as one: their imports go, and only the last one exports."""
    sources = [(STATIC / f"{name}.js").read_text("utf-8") for name in MODULES]
    *inner, main = [re.sub(r"^import .*?;\n", "", text, flags=re.M) for text in sources]
    inner = [re.sub(r"^export (?=\w)", "", text, flags=re.M) for text in inner]
    main = re.sub(r"^export \{.*\} from .*\n", "", main, flags=re.M)
    return "\n".join([*inner, main])


@cache
def style() -> str:
    """The style sheet."""
    return (STATIC / "style.css").read_text("utf-8")
