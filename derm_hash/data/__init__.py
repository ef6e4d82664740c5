"""Reads images: strangers' files, the manifest, the splits, and the data set in memory."""

from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import from_input, open_image, read_mask, square, to_input
from derm_hash.data.manifest import read_manifest, write_manifest
from derm_hash.data.splits import split_by_image, split_by_lesion
from derm_hash.data.tables import read_table
