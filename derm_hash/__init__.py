"""derm-hash: rotation-invariant deep hashing of dermoscopic images, to teach and to reproduce.

The public names below are loaded when they are first used, so that
``import derm_hash`` is quick and ``derm-hash doctor`` runs where a package is broken.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "attention": "CBAM GATES HDCSA SE SpatialGate add_attention",
    "course": "course_data course_pair course_query course_run",
    "data": "LesionDataset read_manifest split_by_image split_by_lesion",
    "errors": "InputError",
    "experiments": "compare read_experiment read_results run_grid score_model score_table",
    "faithfulness": "road_curve",
    "heatmaps": "BitTarget ClassTarget MatchTarget gate_maps grad_cam",
    "longtail": "ClassProxies bhp_loss bwce_weights",
    "losses": "CauchyRotationLoss OrbitPenalty",
    "metrics": "bootstrap_interval code_quality evaluate_retrieval flipped_bits "
    "paired_test query_scores rotation_report rotation_scores",
    "model": "DermHash HashOutput OrbitMean encode",
    "objectives": "OBJECTIVES",
    "rivals": "hash_centres",
    "plots": "overlay",
    "retrieval": "HashIndex Hits build_index",
    "rotations": "rotate_quarters rotate rotation_orbit",
    "atlas": "draw_lesion make_atlas",
    "settings": "TrainConfig",
    "runs": "Run load_model save_model",
    "training": "train",
    "explorers": "Guess HeatmapExplorer LossExplorer RetrievalExplorer",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str):
    if name not in _HOME_OF:
        raise AttributeError(f"module 'derm_hash' has no attribute {name!r}")
    return getattr(import_module(f"derm_hash.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
