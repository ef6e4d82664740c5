"""Images of every kind: read as they look, or refused in one sentence; cut, and scaled."""

import io
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
import torch
from helpers import encoded, noise, one_sentence, png_chunk, png_that_claims
from PIL import Image

from derm_hash.data.images import (
    from_input,
    open_image,
    read_mask,
    square,
    square_pixels,
    to_input,
)
from derm_hash.errors import InputError

# Pillow warns of odd metadata in damaged files that it can read all the same.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")

GRADIENT = np.arange(0, 240, 5, dtype=np.uint8).reshape(6, 8)


def opened(content):
    image = open_image(io.BytesIO(content), "the file")
    assert image.mode == "RGB"
    return np.asarray(image)


def picture(seed=0):
    return noise(seed, 40, 30)


def as_rgb(grey):
    return np.repeat(np.asarray(grey)[..., None], 3, axis=2)


# --- odd modes: the pixels are known ------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "PPM"])
def test_grey_gets_three_equal_channels(kind):
    assert np.array_equal(opened(encoded(Image.fromarray(GRADIENT), kind)), as_rgb(GRADIENT))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP", "PPM"])
def test_colours_come_back_exactly(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(opened(encoded(picture(), kind, **options)), np.asarray(picture()))


def image(pixels, mode=None, dtype=np.uint8):
    return Image.fromarray(np.array([pixels], dtype), mode)


def with_palette(indices, colours):
    found = image(indices).convert("P")
    found.putdata(indices)
    found.putpalette(bytes(np.array(colours, np.uint8)))
    return found


BLACK_WITH_OPACITY = image([[10, 0, 0, 0], [0, 0, 0, 51], [10, 0, 0, 255]])
ON_WHITE = [[255, 255, 255], [204, 204, 204], [10, 0, 0]]
RED = with_palette([0, 1, 0], [[200, 10, 30], [1, 2, 3]])
INKS = image([[0, 0, 0, 0], [0, 0, 0, 255], [255, 0, 0, 0]], "CMYK")


@pytest.mark.parametrize(
    ("picture", "kind", "options", "expected"),
    [
        (BLACK_WITH_OPACITY, "PNG", {}, ON_WHITE),
        (BLACK_WITH_OPACITY, "TIFF", {}, ON_WHITE),
        (image([[100, 255], [100, 0]], "LA"), "PNG", {}, [[100] * 3, [255] * 3]),
        (RED, "PNG", {}, [[200, 10, 30], [1, 2, 3], [200, 10, 30]]),
        (RED, "PNG", {"transparency": 1}, [[200, 10, 30], [255] * 3, [200, 10, 30]]),
        (image([0, 1, 1], dtype=bool), "PNG", {}, [[0] * 3, [255] * 3, [255] * 3]),
        (INKS, "TIFF", {}, [[255, 255, 255], [0, 0, 0], [0, 255, 255]]),
    ],
)
def test_transparency_palettes_and_inks_are_read_as_they_look(picture, kind, options, expected):
    assert opened(encoded(picture, kind, **options)).tolist() == [expected]


def test_inks_of_a_jpeg_are_not_inverted():
    plain = Image.new("CMYK", (16, 16), (0, 128, 0, 0))
    jpeg = opened(encoded(plain, "JPEG", quality=95))
    assert np.abs(jpeg.astype(int) - [255, 127, 255]).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_uses_its_full_range(kind):
    values = np.array([[0, 257, 25700, 65535], [128, 129, 65406, 65407]], np.uint16)
    expected = as_rgb([[0, 1, 100, 255], [0, 1, 254, 255]])
    content = encoded(Image.fromarray(values), kind)
    assert np.abs(opened(content).astype(int) - expected).max() <= (kind == "PPM")


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 0.5, 1], np.float32, [0, 128, 255]),
        ([0, 99.6, 255], np.float32, [0, 100, 255]),
        ([-1, 0, 1], np.float32, [0, 128, 255]),
        ([1000, 1500, 2000], np.float32, [0, 128, 255]),
        ([7, 7, 7], np.float32, [7, 7, 7]),
        ([-5, -5, -5], np.float32, [0, 0, 0]),
        ([0, 25700, 65535], np.int32, [0, 100, 255]),
        ([0, 10**6, 2 * 10**6], np.int32, [0, 128, 255]),
    ],
)
def test_numbers_are_scaled_as_documented(values, dtype, expected):
    grey = opened(encoded(image(values, dtype=dtype), "TIFF"))
    assert grey.tolist() == as_rgb([expected]).tolist()


@pytest.mark.parametrize("read", [open_image, read_mask])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_numbers_are_refused(read, value):
    content = encoded(image([0, value, 1], dtype=np.float32), "TIFF")
    with pytest.raises(InputError, match="the file has pixels that are not finite"):
        read(io.BytesIO(content), "the file")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    # The turn that each value asks for, from the EXIF standard, in numpy's terms.
    upright = [
        lambda a: a,
        np.fliplr,
        lambda a: np.rot90(a, 2),
        np.flipud,
        lambda a: np.swapaxes(a, 0, 1),
        lambda a: np.rot90(a, -1),
        lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
        lambda a: np.rot90(a, 1),
    ][orientation - 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(picture(), "PNG", exif=exif)
    assert np.array_equal(opened(content), upright(np.asarray(picture())))


def test_an_animation_gives_its_first_frame():
    frames = [Image.fromarray(GRADIENT + 5 * i) for i in range(3)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.array_equal(opened(content), as_rgb(GRADIENT))


def test_the_suffix_does_not_matter(tmp_path):
    path = tmp_path / "really.jpg"
    path.write_bytes(encoded(picture(), "PNG"))
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(picture()))


# --- what cannot be read is named -----------------------------------------------------


@pytest.mark.parametrize("side", [9000, 12000, 60000, 2**31 - 1])
def test_decompression_bombs_are_refused_unread(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(side, side))
    for action in ("ignore", "error"):
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            with pytest.raises(InputError, match=r"bomb\.png .*million"):
                open_image(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.png does not exist"):
        open_image(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match=str(tmp_path)):
        open_image(tmp_path)


def assert_named(path, content):
    """The file is refused in one sentence that names it."""
    path.write_bytes(content)
    with one_sentence(path):
        open_image(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"GIF89a", b"<svg/>", b"%PDF-1.7\n%EOF"])
def test_what_is_not_an_image_is_named(tmp_path, content):
    assert_named(tmp_path / "odd.jpg", content)


KINDS = ["JPEG", "PNG", "TIFF", "BMP", "GIF", "PPM"]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_is_named(tmp_path, kind, share):
    content = encoded(picture(), kind)
    assert_named(tmp_path / f"cut.{kind.lower()}", content[: int(len(content) * share)])


def test_damage_between_the_parts_of_the_pixels_is_noticed():
    # Pillow reports this one, while it decodes, as a SyntaxError.
    rows = np.random.default_rng(0).integers(0, 256, (8, 1 + 3 * 8), dtype=np.uint8)
    rows[:, 0] = 0  # PNG's filter "none"
    pixels = zlib.compress(rows.tobytes())
    first, second = png_chunk(b"IDAT", pixels[:50]), png_chunk(b"IDAT", pixels[50:])
    assert open_image(io.BytesIO(png_that_claims(8, 8, first + second))).size == (8, 8)
    second = second.replace(b"IDAT", b"\0\0\0\0")
    with pytest.raises(InputError, match="is damaged or cut short"):
        open_image(io.BytesIO(png_that_claims(8, 8, first + second)))


# --- geometry and scaling ---------------------------------------------------------


@pytest.mark.parametrize("size", [48, 72, 150, 300])
def test_square_resizes_the_short_side_and_cuts_out_the_centre(size):
    # At these sizes the cut falls between pixels, so that resizing everything first and
    # cutting then is the same.
    long, cut = size * 4 // 3, size // 6
    for image, shape, box in (
        (noise(0, 200, 150), (long, size), (cut, 0, cut + size, size)),
        (noise(1, 150, 200), (size, long), (0, cut, size, cut + size)),
    ):
        expected = image.resize(shape, Image.Resampling.BICUBIC).crop(box)
        difference = np.asarray(square(image, size)).astype(int) - np.asarray(expected)
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("size", [1, 32, 99, 100, 128, 224])
def test_a_square_is_resized_as_pillow_does_it_up_to_two_grey_levels(size):
    """The hardest picture: noise of black and white, whose overshoots are clipped."""
    pixels = np.random.default_rng(size).choice([0, 255], (100, 100, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    found = np.asarray(square(image, size))
    expected = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    assert np.abs(found.astype(int) - expected).max() <= 2
    assert np.array_equal(found, square_pixels(pixels[None], size)[0])


def test_resized_squares_have_the_same_bytes_on_every_processor():
    """Or a run could not go on elsewhere: its data would have another fingerprint."""
    pixels = (np.arange(256 * 256 * 3, dtype=np.int64) ** 2 // 97 % 256).astype(np.uint8)
    found = [square_pixels(pixels.reshape(1, 256, 256, 3), size) for size in (224, 64, 300)]
    assert [zlib.crc32(each.tobytes()) for each in found] == [1055014770, 2215464087, 666099018]


def mask_of(image, kind, **options):
    mask = read_mask(io.BytesIO(encoded(image, kind, **options)), "the mask")
    assert mask.mode == "L"
    return (np.asarray(mask).astype(int) / 255).tolist()


@pytest.mark.parametrize(
    ("kind", "dtype", "lesion"),
    [
        *(("PNG", np.uint8, n) for n in (1, 255)),
        *(("PNG", np.uint16, n) for n in (1, 255, 4095, 65535)),
        ("PPM", np.uint16, 1),
        *(("TIFF", np.int32, n) for n in (1, 255, 10**6)),
        *(("TIFF", np.float32, n) for n in (1, 255, 65535)),
    ],
)
def test_masks_become_binary_whatever_stands_for_lesion(kind, dtype, lesion):
    for expected in ([0, 1], [1, 1], [0, 0]):
        values = image([n * lesion for n in expected], dtype=dtype)
        assert mask_of(values, kind) == [expected]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 127, 128, 255], np.uint8, [0, 0, 1, 1]),
        ([0, 3, 2], np.uint8, [0, 0, 0]),  # the noise of an empty mask that was a JPEG
        ([0, 32767, 32768, 65535], np.uint16, [0, 0, 1, 1]),
        ([0, 32767, 32768, 65535], np.int32, [0, 0, 1, 1]),
        ([0, 0.49, 0.5, 1], np.float32, [0, 0, 1, 1]),
        ([0, 127, 128, 255], np.float32, [0, 0, 1, 1]),
    ],
)
def test_grey_borders_of_masks_are_cut_at_half_the_level(values, dtype, expected):
    assert mask_of(image(values, dtype=dtype), "TIFF") == [expected]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_colours_of_a_palette_are_classes_and_the_first_one_is_background(kind):
    voc = [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert mask_of(with_palette([0, 1, 2], voc), kind) == [[0, 1, 1]]
    assert mask_of(with_palette([0, 0, 0], voc), kind) == [[0, 0, 0]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_greys_of_a_palette_are_levels_in_any_order(kind):
    greys = [[255] * 3, [0] * 3, [100] * 3, [200] * 3]
    assert mask_of(with_palette([0, 1, 2, 3], greys), kind) == [[1, 0, 0, 1]]


VOC = with_palette([0, 1, 2], [[0, 0, 0], [128, 0, 0], [0, 128, 0]])
CLEAR = np.array([[255] * 4, [255, 255, 255, 0], [0, 0, 0, 255], [0] * 4])
ONES = np.array([[1, 1, 1, 255], [0, 0, 0, 255]])


@pytest.mark.parametrize(
    ("mask", "options", "expected"),
    [
        (image(CLEAR), {}, [1, 0, 0, 0]),
        (image(CLEAR[:, 2:]), {}, [1, 0, 0, 0]),  # grey
        (image([[255, 0], [255, 127], [255, 128]]), {}, [0, 0, 1]),
        (VOC, {"transparency": 0}, [0, 1, 1]),
        (VOC, {"transparency": 2}, [0, 1, 0]),
        (image([0, 255, 7]), {"transparency": 0}, [0, 1, 0]),
        (image(ONES), {}, [1, 0]),  # zeros and ones
        (image(ONES[:, :3]), {}, [1, 0]),
        (image(ONES[:, 0], dtype=bool), {}, [1, 0]),
    ],
)
def test_transparent_pixels_of_masks_are_background(mask, options, expected):
    assert mask_of(mask, "PNG", **options) == [expected]


def test_a_mask_that_was_a_jpeg_keeps_its_lesion():
    lesion = np.zeros((32, 32), np.uint8)
    lesion[8:24, 8:24] = 255
    found = np.array(mask_of(Image.fromarray(lesion), "JPEG", quality=50))
    assert np.array_equal(found, lesion / 255)


def test_scaling_goes_to_plus_minus_one_and_back_exactly():
    levels = torch.arange(256, dtype=torch.uint8).expand(2, 3, 16, 256)
    x = to_input(levels)
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(from_input(x), levels)
    assert from_input(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_a_deep_image_is_read_in_strips_that_fit_each_other_and_the_memory(tmp_path):
    values = np.arange(1000 * 2000, dtype=np.uint32).reshape(1000, 2000) % 65536
    path = tmp_path / "deep.png"
    Image.fromarray(values.astype(np.uint16)).save(path)
    tracemalloc.start()
    grey = np.asarray(open_image(path))[..., 0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(grey, np.rint(values / 257))
    assert peak < 8 * values.size  # as many bytes as the numbers in 64 bits alone would take
