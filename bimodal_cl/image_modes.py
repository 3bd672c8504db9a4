"""A decoded image of any mode to RGB, as a viewer shows it."""

from __future__ import annotations

import numpy as np
from PIL import Image

WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a decoded image of any mode to RGB, transparency laid on white, 16 bits scaled to 8."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16-bit grey; a plain conversion would clip at 255
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    return image.convert("RGB")
