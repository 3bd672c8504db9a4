"""Score a dual encoder on image-text pairs and on labelled images, during training and after it.

Everything here runs on one process, in batches, without gradients and in evaluation mode, and leaves every module in
the mode in which it was found. Models and data are duck-typed: see ``bimodal_cl.models`` and ``bimodal_cl.data``.

Scores depend on the model and the data alone, to the last digit: not on the batch size, the number of worker
processes or threads, nor the order of images, captions or classes. ``bimodal_cl.scoring.encode_once`` states how far
this holds for features and what was measured; from the features on (``bimodal_cl.metrics.similarities``, the metrics,
``classifier``) it holds by arithmetic.
"""
