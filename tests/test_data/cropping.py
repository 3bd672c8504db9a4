"""What ``TrainTransform.apply`` does, from a decoded image: every pixel is decoded, then cropped by Pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from bimodal_cl.data.images.decode import align_box
from bimodal_cl.data.images.transforms import TrainTransform, resize
from bimodal_cl.data.order.draws import Purpose, draw_uniform


def crop_decoded(transform: TrainTransform, image: Image.Image, seed: int, epoch: int, image_id: int) -> Tensor:
    """The crop of an RGB image that is drawn by three integers, uint8 ``[3, side, side]``."""
    draws = draw_uniform(Purpose.AUGMENTATION, seed, epoch, image_id, np.arange(23))
    box, _ = align_box(transform.crop_box(*image.size, draws), image.size, transform.image_size)
    pixels = resize(np.array(image.crop(box)), transform.image_size)
    return pixels.flip(2) if transform.flip and draws[0] < 0.5 else pixels
