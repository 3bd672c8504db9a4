"""Image-text contrastive pretraining with adaptive and individualized temperatures."""

__version__ = "0.1.0"
