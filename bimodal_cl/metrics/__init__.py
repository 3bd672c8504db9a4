"""Recall at K, top-k accuracy, recall averaged over classes, median rank, average precision: arrays in, floats out.

Everything is built on **ranks**: the place, from 1, of the right answer among all candidates. One tie rule holds
everywhere: a wrong candidate that scores exactly as high as the right one stands before it. So a model whose
features collapsed to a constant scores 0, never 100 %, and no score depends on the order of the data. Where no two
candidates tie, the values are those of CLIP_benchmark, whose tool leaves ties to the order of ``torch.topk``.

No score depends on the order of the data, the size of a block, the number of threads or the device, to the last digit:
similarities of float32 features are **exact** (:mod:`bimodal_cl.metrics.similarities`), so equal features tie wherever
they stand, and means are sums of whole numbers or correctly rounded sums (``math.fsum``).
"""

from bimodal_cl.metrics.classification import class_ranks, mean_per_class_recall, topk_accuracy
from bimodal_cl.metrics.multilabel import average_precision, chance_average_precision, mean_average_precision
from bimodal_cl.metrics.retrieval import chance_recall, median_rank, recalls_of_ranks, retrieval_ranks, retrieval_recall

__all__ = [
    "average_precision",
    "chance_average_precision",
    "chance_recall",
    "class_ranks",
    "mean_average_precision",
    "mean_per_class_recall",
    "median_rank",
    "recalls_of_ranks",
    "retrieval_ranks",
    "retrieval_recall",
    "topk_accuracy",
]
