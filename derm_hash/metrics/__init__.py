"""Metrics: how good is retrieval, how stable are codes and hits, and how sure is a difference?"""

from derm_hash.metrics.codes import code_quality
from derm_hash.metrics.intervals import bootstrap_interval, compare_runs, holm, paired_test
from derm_hash.metrics.overlap import iou_at_mask_area, mask_energy, pointing_game
from derm_hash.metrics.ranking import (
    average_precision,
    ndcg,
    precision,
    precision_at_recall,
    recall,
    reciprocal_rank,
    relevance,
)
from derm_hash.metrics.scores import (
    SCORES,
    class_means,
    evaluate_retrieval,
    mean_scores,
    paper_scores,
    query_scores,
)
from derm_hash.metrics.stability import (
    expected_overlap,
    flipped_bits,
    hit_chances,
    rotation_report,
    rotation_scores,
)
