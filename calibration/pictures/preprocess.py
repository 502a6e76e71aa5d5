"""Preprocessing: from an encoded picture to the network's input, for calibration, evaluation and test vectors.

Decoding uses the accurate integer DCT. Resizing is bilinear in float32. Scaling is (x / 127.5) - 1 in float32. EXIF
rotation is ignored, as in training.
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
_MAX_ASPECT = 16  # longer pictures are cut to this ratio of the sides before resizing
_JPEG = b"\xff\xd8\xff"
# Pillow's limit for decompression bombs. ImageNet's largest picture has 27 million pixels.
_MAX_PIXELS = 178_956_970


def decode(data: bytes, name: str) -> Array:
    """Decodes a picture to RGB, uint8 (height, width, 3).

    Args:
        data: the encoded picture, JPEG or PNG.
        name: name of the picture for error messages.

    Raises:
        InputError: the data is empty, truncated, too large or in an unknown format.
    """
    if not data:
        raise _unreadable(name, "a file of zero bytes")
    try:
        if data.startswith(_JPEG):
            import simplejpeg

            height, width, color_space, _ = simplejpeg.decode_jpeg_header(data)
            if height * width > _MAX_PIXELS:
                raise _unreadable(name, f"{width} x {height} pixels")
            if color_space in ("RGB", "YCbCr", "Gray", "GRAY"):
                with contextlib.suppress(ValueError):
                    # Strict decoding refuses truncated files, but also some that only have a few odd bytes. Pillow,
                    # below, decodes the latter.
                    pixels: Array = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, strict=True)
                    return pixels
        return _decode_any(data, name)
    except (ValueError, OSError, SyntaxError) as error:
        # Pillow raises SyntaxError for corrupt PNG chunks, OSError otherwise; simplejpeg raises ValueError.
        why = "unknown format" if "cannot identify" in str(error) else str(error)
        raise _unreadable(name, f"a file that cannot be decoded ({why})") from error


def _decode_any(data: bytes, name: str) -> Array:
    """Decodes everything but plain JPEG with Pillow: PNG (also if named .JPEG), CMYK, palettes."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Pillow warns from half of its limit on. Such pictures are accepted.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data))
        with opened as picture:
            if picture.mode.startswith("I;16"):
                # Pillow's conversion would clip 16-bit values. The upper byte is the 8-bit picture.
                return np.repeat((np.asarray(picture) >> 8).astype(np.uint8)[:, :, np.newaxis], 3, axis=2)
            return np.asarray(picture.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise _unreadable(name, str(error)) from error


def normalize(pixels: Array, preprocess: Preprocess, resolution: int) -> Array:
    """Crops, resizes and scales RGB pixels, uint8 (height, width, 3).

    Returns:
        float32 (1, resolution, resolution, 3), values -1..1.
    """
    crop = {"central-crop": _central_crop, "inception": _central_fraction, "squash": _resize}[preprocess.crop]
    return scaled(crop(pixels.astype(np.float32), resolution, resolution))[np.newaxis]


def scaled(levels: Array) -> Array:
    """Scales pixel values, float32 0..255, to the network's input values, -1..1."""
    values: Array = levels / np.float32(MOBILENET_V2.input_half_range) - np.float32(1)
    return values


def _central_crop(pixels: Array, height: int, width: int) -> Array:
    """Resizes the shorter side to 1 / 0.875 of the target, keeping the aspect ratio, and crops the center."""
    pixels = _shortened(pixels)
    scale = max(height, width) / CENTRAL_FRACTION / min(pixels.shape[:2])
    resized = _resize(pixels, *(max(round(side * scale), 1) for side in pixels.shape[:2]))
    top, left = (resized.shape[0] - height) // 2, (resized.shape[1] - width) // 2
    return resized[top : top + height, left : left + width]


def _central_fraction(pixels: Array, height: int, width: int) -> Array:
    """Resizes the central 87.5 % of each side, with margins rounded down as in `tf.image.central_crop`."""
    top, left = (int((size - size * CENTRAL_FRACTION) / 2) for size in pixels.shape[:2])
    return _resize(pixels[top : pixels.shape[0] - top, left : pixels.shape[1] - left], height, width)


def _shortened(pixels: Array) -> Array:
    """Crops a very long picture centrally, as enlarging for example a single row of 30,000 pixels would fill memory."""
    longest = _MAX_ASPECT * min(pixels.shape[:2])
    top, left = (max(0, size - longest) // 2 for size in pixels.shape[:2])
    return pixels[top : pixels.shape[0] - top, left : pixels.shape[1] - left]


def _resize(pixels: Array, height: int, width: int) -> Array:
    import cv2

    resized: Array = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def quantize_input(value: Array, scale: float, zero_point: int) -> Array:
    """Quantizes real values to int8, rounding half to even in float32. Every user of int8 inputs calls this."""
    levels: Array = np.rint(value / np.float32(scale)) + np.float32(zero_point)
    return np.asarray(np.clip(levels, -128, 127), np.int8)


def _unreadable(name: str, found: str) -> InputError:
    return InputError(
        expected=f"{name} to be a complete JPEG or PNG picture",
        found=found,
        next_step="replace or remove that picture, then run again",
    )
