"""Images of more than 8 bits, and TIFF layouts: the known picture, or a refusal."""

import io
import struct
import zlib

import numpy as np
import pytest
from helpers import encoded
from PIL import Image

from derm_hash.data.images import open_image, read_mask
from derm_hash.errors import InputError

DOWN, ACROSS = np.mgrid[0:30, 0:40]
GREY = (DOWN + ACROSS) / 68  # 0..1
COLOURS = np.stack([DOWN / 29, ACROSS / 39, GREY], axis=-1)
RAW, DEFLATE, PACKBITS = 1, 8, 32773


def tiff(values, order="<", planes=False, compression=RAW, white_is_0=False, predictor=1):
    """A TIFF file with one strip for each plane: values (H, W) or (H, W, channels)."""
    height, width, channels = np.atleast_3d(values).shape
    kind, bits = "uif".index(values.dtype.kind) + 1, 8 * values.dtype.itemsize
    strips = np.moveaxis(values, -1, 0) if planes else [values]
    strips = [np.ascontiguousarray(s).astype(s.dtype.newbyteorder(order)).tobytes() for s in strips]
    if compression == DEFLATE:
        strips = [zlib.compress(strip) for strip in strips]
    if compression == PACKBITS:  # runs of up to 128 bytes that are not packed
        runs = [[s[i : i + 128] for i in range(0, len(s), 128)] for s in strips]
        strips = [b"".join(bytes([len(run) - 1]) + run for run in parts) for parts in runs]
    colour = 2 if channels >= 3 else 0 if white_is_0 else 1
    tags = {256: [width], 257: [height], 258: [bits] * channels, 259: [compression], 262: [colour]}
    tags |= {273: [0] * len(strips), 277: [channels], 278: [height]}
    tags |= {279: [len(strip) for strip in strips], 284: [2 if planes else 1], 317: [predictor]}
    tags |= {338: [2]} if channels in (2, 4) else {}
    tags |= {339: [kind] * channels}
    longs = {tag: np.array(v).astype(f"{order}u4").tobytes() for tag, v in tags.items()}
    start = 8 + 2 + 12 * len(tags) + 4
    tail = start + sum(len(text) for text in longs.values() if len(text) > 4)
    offsets = [tail + sum(map(len, strips[:i])) for i in range(len(strips))]
    longs[273] = np.array(offsets).astype(f"{order}u4").tobytes()
    entries, far = b"", b""
    for tag, text in longs.items():
        place = text if len(text) == 4 else struct.pack(f"{order}I", start + len(far))
        far += text if len(text) > 4 else b""
        entries += struct.pack(f"{order}HHI", tag, 4, len(text) // 4) + place
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return io.BytesIO(head + entries + bytes(4) + far + b"".join(strips))


def deep(picture, bits=16):
    return np.rint(picture * (2**bits - 1)).astype(f"u{max(bits, 16) // 8}")


def read_error(file, expected):
    """The mean difference of the picture that is read from the known one, of 255 levels."""
    expected = expected if expected.ndim == 3 else np.stack([expected] * 3, axis=-1)
    return np.abs(np.asarray(open_image(file)) - 255 * expected).mean()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "layout",
    [
        {"values": deep(COLOURS)},
        {"values": deep(COLOURS), "compression": DEFLATE},
        {"values": deep(COLOURS), "compression": DEFLATE, "planes": True},
        {"values": np.rint(COLOURS * 255).astype(np.uint8), "planes": True},
        {"values": deep(GREY)},
        {"values": deep(GREY), "compression": PACKBITS},
        {"values": GREY.astype(np.float32)},
        {"values": np.rint(255 - GREY * 255).astype(np.uint8), "white_is_0": True},
    ],
)
def test_a_layout_that_is_read_gives_the_known_picture(layout, order):
    expected = COLOURS if layout["values"].ndim == 3 else GREY
    assert read_error(tiff(order=order, **layout), expected) < 1


OPAQUE = np.ones_like(GREY)
MISREAD = {
    "planes of 16 bits": {"values": deep(COLOURS), "planes": True},
    "planes of 16 bits with alpha": {"values": deep(np.dstack([COLOURS, OPAQUE])), "planes": True},
    "big planes": {"values": deep(COLOURS), "planes": True, "order": ">"},
    "a plane of transparency": {
        "values": np.rint(np.dstack([GREY, OPAQUE]) * 255).astype(np.uint8),
        "planes": True,
        "compression": DEFLATE,
    },
    "white as 0": {"values": deep(1 - GREY), "white_is_0": True},
    "signed bytes": {"values": np.rint(GREY * 255 - 128).astype(np.int8)},
    "large numbers": {"values": deep(GREY, 32)},
    "high byte first": {"values": GREY.astype(np.float32), "compression": DEFLATE, "order": ">"},
    "predictor": {"values": deep(GREY), "compression": PACKBITS, "predictor": 2},
}


@pytest.mark.parametrize("layout", MISREAD.values(), ids=MISREAD)
@pytest.mark.parametrize("read", [open_image, read_mask])
def test_a_layout_that_the_decoder_misreads_is_refused_with_a_remedy(layout, read):
    with pytest.raises(InputError, match=r"scan\.tif is a TIFF file with .*: save it as PNG"):
        read(tiff(**layout), "scan.tif")


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_fewer_bits_in_a_16_bit_file_is_as_bright_as_it_should_be(bits, kind):
    values = np.rint(GREY * (2**bits - 1)).astype(np.uint16)
    file = io.BytesIO(encoded(Image.fromarray(values), kind))
    with pytest.warns(UserWarning, match=f"0 to {2**bits - 1} only.* of {bits} bits"):
        assert read_error(file, GREY) < 1


def test_grey_of_16_bits_and_black_need_no_warning(recwarn):
    for values in (deep(GREY), np.zeros((4, 4), np.uint16)):
        file = io.BytesIO(encoded(Image.fromarray(values), "PNG"))
        assert read_error(file, values / 65535) < 1
    assert not recwarn.list


def test_colours_of_12_bits_in_a_16_bit_file_are_refused():
    with pytest.raises(InputError, match="no value above 4095: scale its values"):
        open_image(tiff(np.rint(COLOURS * 4095).astype(np.uint16)), "cam.tif")
    assert read_error(tiff(deep(COLOURS / 8)), COLOURS / 8) < 1  # dark, and not of 12 bits
