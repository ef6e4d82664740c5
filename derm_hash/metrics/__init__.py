"""Metrics: how good is retrieval, how stable are codes and hits, and how sure is a difference?"""

from derm_hash.metrics.codes import code_quality
from derm_hash.metrics.intervals import bootstrap_interval, paired_test
from derm_hash.metrics.overlap import iou_at_mask_area, mask_energy, pointing_game
from derm_hash.metrics.ranking import average_precision
from derm_hash.metrics.scores import evaluate_retrieval, mean_scores, query_scores
from derm_hash.metrics.stability import flipped_bits, rotation_report, rotation_scores
