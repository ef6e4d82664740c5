"""The explorers: turn a lesion by hand, see why a hit matched, vary the loss, guess first."""

from derm_hash.explorers.heat import HeatmapExplorer
from derm_hash.explorers.plain import Guess, LossExplorer
from derm_hash.explorers.retrieval import RetrievalExplorer
