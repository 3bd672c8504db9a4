"""Retrieval and classification metrics as pure functions: arrays in, floats out.

All metrics are based on **ranks**: the position, from 1, of the right answer among all candidates. One tie rule holds
everywhere: a wrong candidate with exactly the score of the right one is ranked before it. Hence a model whose features
collapsed to a constant scores 0 and never 100 %, and no score depends on the order of the data. Without ties, the
values are those of CLIP_benchmark, where ties depend on the order of ``torch.topk``.

No score depends on the order of the data, the block size, the number of threads or the device, to the last digit:
similarities of float32 features are **exact** (:mod:`bimodal_cl.metrics.similarities`), so equal features always tie,
and means are sums of integers or correctly rounded sums (``math.fsum``).
"""

from bimodal_cl.metrics.classification import class_ranks, mean_per_class_recall, topk_accuracy
from bimodal_cl.metrics.multilabel import average_precision, chance_average_precision, mean_average_precision
from bimodal_cl.metrics.ranking import RankedQueries, rank_queries
from bimodal_cl.metrics.retrieval import (
    chance_precision,
    chance_recall,
    mean_rank,
    median_rank,
    recall_sum,
    recalls_of_ranks,
    retrieval_ranks,
    retrieval_recall,
)

__all__ = [
    "RankedQueries",
    "average_precision",
    "chance_average_precision",
    "chance_precision",
    "chance_recall",
    "class_ranks",
    "mean_average_precision",
    "mean_per_class_recall",
    "mean_rank",
    "median_rank",
    "rank_queries",
    "recall_sum",
    "recalls_of_ranks",
    "retrieval_ranks",
    "retrieval_recall",
    "topk_accuracy",
]
