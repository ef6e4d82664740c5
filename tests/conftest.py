"""What every test starts from: no display, the same random examples each time, and a cache folder
inside the checkout."""

import os
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("DERM_HASH_HOME", str(ROOT / "build" / "cache"))
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")
