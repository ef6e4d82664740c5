"""The explorers: turn a lesion and watch its bits, see why a hit matched, vary the loss."""

from derm_hash.explorers.widgets import HeatmapExplorer, LossExplorer, RetrievalExplorer
