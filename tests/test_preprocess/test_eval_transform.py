"""The evaluation transform: exactly open_clip's pixels, and the other options."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image

from bimodal_cl.data.images.decode import decode_image
from bimodal_cl.errors import UserError
from bimodal_cl.preprocess import EvalTransform

# Square, odd, smaller than the crop, one pixel, long.
SIZES = [(64, 64), (500, 375), (375, 501), (20, 33), (33, 21), (225, 224), (1, 1), (300, 31), (7, 150)]


def noise(width: int, height: int) -> Image.Image:
    """Pixels that show every difference."""
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [31, 32, 224])
def test_pixels_are_open_clips(size: tuple[int, int], side: int) -> None:
    image = noise(*size)
    modes, filters = ("shortest", "longest", "squash"), ("bicubic", "bilinear")
    for mode, interpolation, fill in itertools.product(modes, filters, (0, 128)):
        options = {"resize_mode": mode, "interpolation": interpolation, "fill_color": fill}
        theirs = image_transform(side, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), **options)(image)
        ours = EvalTransform(side, **options)(image)
        assert ours.dtype == torch.uint8
        assert torch.equal(ours.float() / 255, theirs), options


def test_the_default_is_clips() -> None:
    assert torch.equal(EvalTransform(32)(noise(50, 70)), EvalTransform(32, "shortest", 32, "bicubic")(noise(50, 70)))


def test_what_is_resized_may_be_larger_than_the_crop() -> None:
    image = noise(80, 60)
    resized = np.array(image.resize((53, 40), Image.Resampling.LANCZOS))
    # Of 21 pixels too many, 10 go left; of 8, 4 go above.
    expected = torch.from_numpy(resized[4:36, 10:42]).permute(2, 0, 1)
    assert torch.equal(EvalTransform(32, "shortest", 40, "lanczos")(image), expected)


@pytest.mark.parametrize(("convention", "left"), [("open_clip", 4), ("transformers", 3)])
def test_odd_margins_are_halved_as_the_convention_says(convention: str, left: int) -> None:
    image = noise(39, 32)
    expected = torch.from_numpy(np.array(image)[:, left : left + 32]).permute(2, 0, 1)
    assert torch.equal(EvalTransform(32, "none", convention=convention)(image), expected)


def test_an_image_that_keeps_its_size_is_padded_with_the_colour() -> None:
    pixels = EvalTransform(6, "none", fill_color=(10, 20, 30))(Image.new("RGB", (3, 2), "white"))
    assert (pixels == 255).all(0).int().tolist() == [
        *[[0] * 6] * 2,
        *[[0, 1, 1, 1, 0, 0]] * 2,
        *[[0] * 6] * 2,
    ]
    assert pixels[:, 0, 0].tolist() == [10, 20, 30]


def test_the_long_side_is_limited_as_transformers_does() -> None:
    transform = EvalTransform(32, "shortest", 32, max_long_side=50)
    assert transform.resized(300, 40) == (50, 7)  # 50 * 40 / 300 = 6.67
    assert transform.resized(40, 30) == (42, 32)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_images_of_any_mode_are_taken(mode: str) -> None:
    grey = Image.fromarray(np.full((9, 7), 128, np.uint8))
    image = Image.fromarray(np.full((9, 7), 128 * 257, np.uint16)) if mode == "I;16" else grey.convert(mode)
    pixels = EvalTransform(4)(image)
    assert pixels.shape == (3, 4, 4)
    assert pixels.float().mean().item() == pytest.approx(128, abs=3 if mode != "1" else 128)


def test_a_rotated_photo_is_upright_here_as_in_the_stream() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise
    file = io.BytesIO()
    noise(40, 24).save(file, "PNG", exif=exif)
    opened = Image.open(io.BytesIO(file.getvalue()))
    assert opened.size == (40, 24)
    expected = EvalTransform(16)(noise(40, 24).transpose(Image.Transpose.ROTATE_270))
    assert torch.equal(EvalTransform(16)(opened), expected)
    assert torch.equal(EvalTransform(16)(decode_image(file.getvalue())), expected)


def test_an_extreme_aspect_costs_no_memory() -> None:
    for size in ((60_000, 1), (1, 60_000)):  # resized whole, it would have 3 billion pixels
        pixels = EvalTransform(224)(Image.new("RGB", size, "red")).float()
        assert pixels.mean(dim=(1, 2)).tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(1000, 30), (500, 375), (301, 200)])
def test_cropping_before_resampling_gives_the_same_square(size: tuple[int, int], monkeypatch) -> None:
    image = noise(*size)
    expected = EvalTransform(32)(image)
    monkeypatch.setattr("bimodal_cl.preprocess._MOST_PIXELS", 0)
    assert (EvalTransform(32)(image).int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"resize_size": 2.5}, r"resize_size must be a whole number of at least 1, got 2\.5"),
        ({"resize_mode": "shortes"}, "resize_mode 'shortes' is unknown; did you mean 'shortest'"),
        ({"interpolation": "bicubc"}, "interpolation 'bicubc' is unknown; did you mean 'bicubic'"),
        ({"convention": "torch"}, "convention 'torch' is unknown"),
        ({"fill_color": 256}, "fill_color must be one or three integers from 0 to 255, got 256"),
        ({"fill_color": (1, 2)}, r"fill_color must be one or three integers from 0 to 255, got \(1, 2\)"),
        ({"resize_mode": "squash", "max_long_side": 9}, "max_long_side has no effect with resize_mode 'squash'"),
    ],
)
def test_values_out_of_range_are_refused(options: dict, match: str) -> None:
    with pytest.raises(UserError, match=match):
        EvalTransform(**{"image_size": 32, **options})
