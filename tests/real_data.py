"""Where real images lie beside the checkout, if there are any."""

import os
from pathlib import Path

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
SHARED = Path(os.environ.get("DERM_HASH_SHARED", BESIDE)).resolve()
