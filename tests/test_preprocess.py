"""From pictures to inputs: decoding, cropping, scaling and quantization."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from calibration.pictures import procedural
from calibration.pictures.preprocess import decode, normalize, quantize_input
from recreate_model.recipe import Preprocess
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError
from tests import pictures


def _save(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_a_jpeg_decodes_as_pillow_decodes_it() -> None:
    """The fast decoder and Pillow both use the accurate DCT and agree in every pixel."""
    data = pictures.jpeg(1)
    assert np.array_equal(decode(data, "x"), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize(
    ("mode", "form"), [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("RGB", "PNG")]
)
def test_every_kind_of_picture_becomes_rgb(mode: str, form: str) -> None:
    """Gray, CMYK, palette and transparent pictures all give the three channels of the original."""
    original = Image.fromarray(procedural.picture(1, 1, 64))
    pixels = decode(_save(original.convert(mode), form), "x")
    assert (pixels.shape, pixels.dtype) == ((64, 64, 3), np.uint8)
    meant = np.asarray(original.convert("L").convert("RGB") if mode == "L" else original)
    # Coarse, as JPEG and palettes lose detail. CMYK inverted, as some decoders return it, is about 100 levels off.
    assert np.abs(pixels.astype(int) - meant).mean() < 20


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}, {"subsampling": 2}])
def test_a_jpeg_decodes_as_tensorflow_decodes_it(options: dict[str, object]) -> None:
    """Baseline, progressive, gray, CMYK and subsampled: TensorFlow's accurate DCT gives the same pixels."""
    import tensorflow as tf

    image = Image.fromarray(procedural.picture(1, 2, 96)).convert(str(options.get("mode", "RGB")))
    data = _save(image, "JPEG", quality=90, **{name: value for name, value in options.items() if name != "mode"})
    theirs = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True).numpy()
    assert np.array_equal(decode(data, "x"), theirs)


def test_a_png_named_jpeg_is_read() -> None:
    """ImageNet has such files; the content decides the format."""
    assert decode(pictures.png(1), "n02105855_2933.JPEG").shape == (120, 100, 3)


def test_exif_rotation_is_ignored() -> None:
    """Training ignored it, so a picture marked as rotated keeps its width and height."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _save(Image.fromarray(procedural.picture(1, 1, 64)).resize((64, 32)), "JPEG", exif=exif)
    assert decode(data, "x").shape == (32, 64, 3)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xd8\xff", b"GIF87a", b"<html>not found</html>", pictures.jpeg(1)[:600], pictures.png(1)[:200]],
    ids=["empty", "header only", "cut GIF", "HTML", "cut JPEG", "cut PNG"],
)
def test_a_file_that_is_not_a_complete_picture_is_refused(data: bytes) -> None:
    """Empty, truncated and other files give an error that names the picture."""
    with pytest.raises(InputError, match=r"expected n01440764/a\.JPEG to be a complete JPEG or PNG picture"):
        decode(data, "n01440764/a.JPEG")


def test_a_16_bit_picture_keeps_its_levels() -> None:
    """The upper byte of each level is the 8-bit picture."""
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    assert np.array_equal(decode(_save(Image.fromarray(ramp), "PNG"), "x")[:, :, 1], (ramp >> 8).astype(np.uint8))


def test_extra_bytes_before_the_end_of_a_jpeg_are_accepted() -> None:
    """Some cameras write such files, and libjpeg only warns about them."""
    data = pictures.jpeg(1)
    odd = data[:-2] + bytes(12) + data[-2:]
    assert np.array_equal(decode(odd, "x"), decode(data, "x"))


def test_a_large_picture_is_read_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    """Pillow warns from half of the number of pixels that it refuses, and the warning would reach the terminal."""
    assert decode(_save(Image.new("1", (10_000, 9_000)), "PNG"), "large.png").shape == (9_000, 10_000, 3)
    assert [str(warning.message) for warning in recwarn] == []


def test_a_decompression_bomb_is_refused() -> None:
    """20,000 x 20,000 pixels in a small file are not decoded."""
    bomb = Image.new("1", (20_000, 20_000))
    with pytest.raises(InputError, match=r"expected bomb\.png to be a complete.*400000000 pixels"):
        decode(_save(bomb, "PNG"), "bomb.png")
    data = pictures.jpeg(1, (64, 48))
    size = data.index(b"\xff\xc0") + 5  # height and width in the frame header
    huge = data[:size] + (20_000).to_bytes(2, "big") * 2 + data[size + 4 :]
    with pytest.raises(InputError, match=r"expected bomb\.jpg to be a complete.*20000 x 20000 pixels"):
        decode(huge, "bomb.jpg")


def test_a_picture_of_one_pixel_fills_the_input() -> None:
    """A JPEG or PNG of 1 x 1 gives an input of one color."""
    for data in (pictures.jpeg(1, (1, 1)), pictures.png(1, (1, 1))):
        for crop in Preprocess.CROPS:
            value = normalize(decode(data, "x"), Preprocess(crop), 96)
            # Resizing rounds: 1.2e-7 was seen. One level of a picture is 8e-3.
            assert np.ptp(value.reshape(-1, 3), axis=0).max() < 1e-4


@pytest.mark.parametrize("crop", Preprocess.CROPS)
@pytest.mark.parametrize("size", [(1, 1, 3), (5, 400, 3), (375, 500, 3), (1, 30_000, 3), (30_000, 1, 3)])
def test_every_picture_fills_the_input(crop: str, size: tuple[int, int, int]) -> None:
    """From one pixel to a panorama, the result is float32 in -1..1 at the resolution of the network."""
    pixels = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    value = normalize(pixels, Preprocess(crop), 224)
    assert (value.shape, value.dtype) == ((1, 224, 224, 3), np.float32)
    assert -1 <= value.min() <= value.max() <= 1


def test_the_central_crop_keeps_the_aspect_ratio_and_removes_the_border() -> None:
    """A disc stays a whole disc; a border narrower than a sixteenth disappears."""
    y, x = np.ogrid[:256, :512]
    disc = ((y - 128) ** 2 + (x - 256) ** 2 < 80**2).astype(np.uint8) * 255
    disc[:8] = disc[-8:] = 255
    value = normalize(np.repeat(disc[:, :, None], 3, axis=2), Preprocess("central-crop"), 224)[0, :, :, 0] > 0
    assert abs(int(value.any(axis=0).sum()) - int(value.any(axis=1).sum())) <= 1
    assert value.any(axis=0).sum() == pytest.approx(160, abs=2)


@pytest.mark.parametrize("size", [(375, 500), (1, 1), (7, 9), (224, 224), (1000, 33)])
def test_the_inception_crop_equals_tensorflows_central_crop(size: tuple[int, int]) -> None:
    """It keeps 87.5 % of each side as tf.image.central_crop does, and resizes as tf.image.resize does."""
    import tensorflow as tf

    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    theirs = tf.image.resize(tf.image.central_crop(tf.cast(pixels, tf.float32), 0.875), (224, 224)) / 127.5 - 1
    ours = normalize(pixels, Preprocess("inception"), 224)
    # The two compute positions in float32 by different formulas. The largest difference seen is 1.2e-4, a 65th of a
    # level (OpenCV with Intel's library for SSE4.2, AVX2 and AVX-512, and without it). Aligned corners give 0.17.
    assert np.abs(ours[0] - theirs.numpy()).max() < 1 / 127.5 / 4


def test_squash_keeps_the_whole_picture() -> None:
    """The corners of the picture are the corners of the input."""
    pixels = np.zeros((300, 500, 3), np.uint8)
    pixels[:20, :20] = 255
    value = normalize(pixels, Preprocess("squash"), 224)[0, :, :, 0]
    assert value[0, 0] == 1
    assert value[-1, -1] == -1


def test_all_256_levels_quantize_as_documented() -> None:
    """With the published scale every level is halfway between two values; all 256 round to even, in float32."""
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(256, 0).repeat(3, 2)
    value = normalize(levels, Preprocess("squash"), 256)[0, 0, :, 0]
    scale, zero_point = np.float32(0.007843137718737125), -1
    expected = np.clip(
        np.rint((np.arange(256, dtype=np.float32) / np.float32(127.5) - 1) / scale) + zero_point, -128, 127
    )
    assert np.array_equal(quantize_input(value, float(scale), zero_point), expected.astype(np.int8))


def test_dequantized_values_are_within_half_a_step() -> None:
    """Inside the range, dequantizing gives the input within half a scale."""
    value = np.linspace(-0.9, 0.9, 1001, dtype=np.float32)
    back = (quantize_input(value, 1 / 128, 3).astype(np.float64) - 3) / 128
    assert np.abs(back - value).max() <= 1 / 256 + 1e-6


def test_out_of_range_values_saturate() -> None:
    """Values outside of the range become -128 or 127 and do not wrap around."""
    assert quantize_input(np.array([-9.0, 9.0], np.float32), 1 / 128, 0).tolist() == [-128, 127]


def test_procedural_pictures_have_the_recorded_pixels() -> None:
    """The first two pictures of seed 0 have the recorded digests; another seed gives other pictures."""
    digests = [digest_bytes(procedural.picture(0, index).tobytes()) for index in (0, 1)]
    assert digests == [
        "2927222c69efa163fe7148694170798bc55a07a58221eb5c9b618e6bd232ded2",
        "c876d12d0355eb093621120982e2e21d3fff598b45cf9b71cde1977891372459",
    ]
    assert digest_bytes(procedural.picture(1, 0).tobytes()) not in digests


def test_procedural_pictures_have_the_contrast_of_photographs() -> None:
    """Their means spread over the middle of the range, and their standard deviations are tens of levels."""
    series = np.stack([procedural.picture(0, index) for index in range(20)]).astype(np.float64)
    means, deviations = series.mean(axis=(1, 2, 3)), series.std(axis=(1, 2, 3))
    assert 60 < means.min() < means.max() < 220
    assert np.ptp(means) > 40
    assert 15 < deviations.min() < deviations.max() < 90
