"""From a picture to the network's input: one definition for calibration, evaluation and test vectors.

Decoding uses the accurate integer DCT, resizing is bilinear in float32, and scaling is (x / 127.5) - 1, in that order
and in float32. EXIF rotation is left alone, as in training.
"""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np

from recreate_model.network.spec import MOBILENET_V2
from recreate_model.recipe import Preprocess
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError

CENTRAL_FRACTION = 0.875
_LONGEST_STRIP = 16  # times as long as it is wide
_JPEG = b"\xff\xd8\xff"
# ImageNet's largest picture has 27 million pixels; this is Pillow's own bound for decompression bombs.
_MAX_PIXELS = 178_956_970


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
                with contextlib.suppress(ValueError):
                    # Strict, or a cut file would pass; Pillow tells one from a file with a few odd bytes.
                    pixels: Array = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, strict=True)
                    return pixels
        return _decode_any(data, name)
    except (ValueError, OSError, SyntaxError) as error:
        # Pillow raises SyntaxError for broken PNG chunks, OSError otherwise; simplejpeg raises ValueError.
        why = "of no known format" if "cannot identify" in str(error) else str(error)
        raise _unreadable(name, f"one that is not ({why})") from error


def _decode_any(data: bytes, name: str) -> Array:
    """Everything that is not a plain JPEG: PNG under a JPEG's name, CMYK, palettes."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Pillow warns at half of what it refuses; such a picture is taken like any other.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data))
        with opened as picture:
            if picture.mode.startswith("I;16"):
                # Converting would clip; the upper byte is the 8-bit picture.
                return np.repeat((np.asarray(picture) >> 8).astype(np.uint8)[:, :, np.newaxis], 3, axis=2)
            return np.asarray(picture.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise _unreadable(name, str(error)) from error


def normalise(pixels: Array, preprocess: Preprocess, resolution: int) -> Array:
    """Crops, resizes and scales RGB pixels: float32, shape (1, resolution, resolution, 3), values -1..1."""
    crop = {"central-crop": _central_crop, "inception": _central_fraction, "squash": _resize}[preprocess.crop]
    return scaled(crop(pixels.astype(np.float32), resolution, resolution))[np.newaxis]


def scaled(levels: Array) -> Array:
    """Levels of a picture, float32 0..255, as the network's values, -1..1."""
    values: Array = levels / np.float32(MOBILENET_V2.input_half_range) - np.float32(1)
    return values


def _central_crop(pixels: Array, height: int, width: int) -> Array:
    """Resizes the shorter side to 1 / 0.875 of the target, keeping the aspect, and cuts the target from the middle."""
    pixels = _shortened(pixels)
    scale = max(height, width) / CENTRAL_FRACTION / min(pixels.shape[:2])
    resized = _resize(pixels, *(max(round(side * scale), 1) for side in pixels.shape[:2]))
    top, left = (resized.shape[0] - height) // 2, (resized.shape[1] - width) // 2
    return resized[top : top + height, left : left + width]


def _central_fraction(pixels: Array, height: int, width: int) -> Array:
    """Resizes the middle 87.5 % of each side, with margins rounded down as `tf.image.central_crop` does."""
    top, left = (int((size - size * CENTRAL_FRACTION) / 2) for size in pixels.shape[:2])
    return _resize(pixels[top : pixels.shape[0] - top, left : pixels.shape[1] - left], height, width)


def _shortened(pixels: Array) -> Array:
    """Cuts what no crop can reach off a strip: one row of 30,000 pixels, enlarged whole, would fill the memory."""
    bound = _LONGEST_STRIP * min(pixels.shape[:2])
    top, left = (max(0, size - bound) // 2 for size in pixels.shape[:2])
    return pixels[top : pixels.shape[0] - top, left : pixels.shape[1] - left]


def _resize(pixels: Array, height: int, width: int) -> Array:
    import cv2

    resized: Array = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def quantize_input(value: Array, scale: float, zero_point: int) -> Array:
    """Real values as int8, rounded to even in float32: the one expression for every user of int8 inputs."""
    levels: Array = np.rint(value / np.float32(scale)) + np.float32(zero_point)
    return np.asarray(np.clip(levels, -128, 127), np.int8)


def _unreadable(name: str, found: str) -> InputError:
    return InputError(
        expected=f"{name} to be a whole JPEG or PNG picture",
        found=found,
        next_step="replace or remove that picture, then run again",
    )
