"""From a picture to the network's input: one definition for calibration, evaluation and test vectors.

Decoding uses the accurate integer DCT, resizing is bilinear in float32, and scaling is (x / 127.5) - 1, in that order
and in float32. EXIF rotation is left alone, as in training.
"""

from __future__ import annotations

import io

import numpy as np

from recreate_model.errors import InputError
from recreate_model.network import Array
from recreate_model.recipe import Preprocess

CENTRAL_FRACTION = 0.875
_JPEG = b"\xff\xd8\xff"
# ImageNet's largest picture has 27 million pixels; a decompression bomb has more.
_MAX_PIXELS = 200_000_000


def decode(data: bytes, name: str) -> Array:
    """An encoded picture as RGB: uint8, shape (height, width, 3).

    Raises:
        InputError: empty, cut short, too large or of no known format.
    """
    if not data:
        raise _unreadable(name, "a file of zero bytes")
    try:
        if data.startswith(_JPEG):
            import simplejpeg

            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if height * width > _MAX_PIXELS:
                raise _unreadable(name, f"{width} x {height} pixels")
            if colours in ("RGB", "YCbCr", "Gray", "GRAY"):
                pixels: Array = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, strict=True)
                return pixels
        from PIL import Image

        # Everything that is not a plain JPEG: PNG under a JPEG's name, CMYK, palettes.
        with Image.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                raise _unreadable(name, f"{picture.width} x {picture.height} pixels")
            return np.asarray(picture.convert("RGB"))
    except (ValueError, OSError, SyntaxError) as error:
        # Pillow raises SyntaxError for broken PNG chunks, OSError otherwise; simplejpeg raises ValueError.
        raise _unreadable(name, f"one that is not ({error})") from error


def normalise(pixels: Array, preprocess: Preprocess, resolution: int) -> Array:
    """Crops, resizes and scales RGB pixels: float32, shape (1, resolution, resolution, 3), values -1..1."""
    import cv2

    cropped = _central(pixels) if preprocess.crop == "central-crop" else pixels
    resized = cv2.resize(cropped.astype(np.float32), (resolution, resolution), interpolation=cv2.INTER_LINEAR)
    scaled: Array = resized / np.float32(127.5) - np.float32(1)
    return scaled[np.newaxis]


def quantize_input(value: Array, scale: float, zero_point: int) -> Array:
    """Real values as int8, rounded to even in float32: the one expression for every user of int8 inputs."""
    levels = np.rint(value / np.float32(scale)) + np.float32(zero_point)
    return np.clip(levels, -128, 127).astype(np.int8)


def _central(pixels: Array) -> Array:
    height, width = pixels.shape[:2]
    # The same rounding as tf.image.central_crop: the margin is cut to whole pixels, the same on both sides.
    top, left = (int((size - size * CENTRAL_FRACTION) / 2) for size in (height, width))
    return pixels[top : height - top, left : width - left]


def _unreadable(name: str, found: str) -> InputError:
    return InputError(
        expected=f"{name} to be a whole JPEG or PNG picture",
        found=found,
        next_step="replace or remove that picture, then run again",
    )
