"""Levels of chance of the scores of a result."""

from __future__ import annotations

from .members import ResultFile


def chance_levels(file: ResultFile) -> dict[str, float]:
    """Return the scores of a random order by metric: those that a result records, or those of its kept outcomes."""
    recorded = file.provenance.get("chance")
    if isinstance(recorded, dict):
        return {name: float(value) for name, value in recorded.items() if isinstance(value, (int, float))}
    counts = file.provenance.get("counts")
    resampled = file.resampled
    arrays = {} if resampled is None or resampled.outcomes is None else resampled.outcomes.arrays
    if "image_of_text" not in arrays or not isinstance(counts, dict) or "num_images" not in counts:
        return {}
    import numpy as np

    from bimodal_cl.metrics import chance_recall
    from bimodal_cl.scoring.retrieval import RETRIEVAL_KS

    captions = np.bincount(arrays["image_of_text"].astype(np.int64))
    one = np.ones(1, dtype=np.int64)
    levels = {}
    for k in RETRIEVAL_KS:
        levels[f"image_retrieval_recall@{k}"] = chance_recall(int(counts["num_images"]), one, k)
        levels[f"text_retrieval_recall@{k}"] = chance_recall(len(arrays["image_of_text"]), captions[captions > 0], k)
    return {**levels, "rsum": sum(levels.values())}
