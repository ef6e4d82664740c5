"""The explorers: turn a lesion by hand, see why a hit matched, vary the loss, guess first."""

try:
    import anywidget
except ImportError as error:
    raise ImportError(
        f"The explorers need {error.name}, which is not installed: "
        "run `make setup`, or `pip install 'derm-hash[lab]'`"
    ) from None

from derm_hash.explorers.heat import HeatmapExplorer
from derm_hash.explorers.plain import Guess, LossExplorer
from derm_hash.explorers.retrieval import RetrievalExplorer
