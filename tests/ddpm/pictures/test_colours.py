"""Colour profiles, and modes that need more than Pillow's conversion."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from ddpm.pictures.codec import decode
from ddpm.pictures.colours import BadImage

# Colorants of the primaries, adapted to D50 by the Bradford method; computed from the chromaticities below.
CHROMATICITIES = {
    "srgb": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    "p3": ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
    "adobe": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)),
}
D65, D50 = (0.3127, 0.329), (0.3457, 0.3585)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def xyz(chromaticity):
    x, y = chromaticity
    return np.array([x / y, 1, (1 - x - y) / y])


def matrix(name):
    """RGB to XYZ under D50."""
    primaries = np.stack([xyz(each) for each in CHROMATICITIES[name]], 1)
    scaled = primaries * np.linalg.solve(primaries, xyz(D65))
    gains = (BRADFORD @ xyz(D50)) / (BRADFORD @ xyz(D65))
    return np.linalg.inv(BRADFORD) @ np.diag(gains) @ BRADFORD @ scaled


def profile(tags, space):
    """A colour profile of version 2 for a display."""
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"", 0x02400000, b"mntr", space, b"XYZ ") + bytes(12) + b"acsp"
    white = struct.pack(">3i", *(round(value * 65536) for value in xyz(D50)))
    return (head + bytes(28) + white).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def point(values):
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def gamma(value):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def rgb_profile(name):
    colorants = {b"%cXYZ" % letter: point(column) for letter, column in zip(b"rgb", matrix(name).T, strict=True)}
    return profile(
        {b"wtpt": point(xyz(D50)), **colorants, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma(2.2))}, b"RGB "
    )


def expected(levels, name):
    light = (np.asarray(levels) / 255) ** (563 / 256) @ (np.linalg.inv(matrix("srgb")) @ matrix(name)).T
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def encoded(image, encoding, **options):
    buffer = io.BytesIO()
    image.save(buffer, encoding, **options)
    return buffer.getvalue()


COLOURS = Image.fromarray(np.random.default_rng(0).integers(60, 200, (6, 8, 3), dtype=np.uint8))
LOSSLESS = {
    "png": {}, "webp": {"lossless": True}, "tiff": {}, "avif": {"quality": 100, "subsampling": "4:4:4"},
    "heif": {"quality": -1, "chroma": 444},
}  # fmt: skip


@pytest.mark.parametrize("name", ["p3", "adobe"])
@pytest.mark.parametrize("encoding", [*LOSSLESS, "jpeg"])
def test_colours_are_converted_to_srgb(encoding, name):
    options = LOSSLESS.get(encoding, {"quality": 100, "subsampling": 0})
    plain = decode(encoded(COLOURS, encoding, **options)).pixels
    found = decode(encoded(COLOURS, encoding, icc_profile=rgb_profile(name), **options)).pixels
    assert np.abs(found - expected(plain, name)).max() < 3
    assert np.abs(found.astype(int) - plain).max() > 10


def test_what_is_srgb_or_no_profile_keeps_its_pixels():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = profile({b"wtpt": point(xyz(D50)), b"kTRC": gamma(1.0)}, b"GRAY")
    for encoding in ("png", "jpeg", "webp", "tiff"):
        plain = decode(encoded(COLOURS, encoding)).pixels
        for odd in (srgb, b"no profile", srgb[:300], rgb_profile("p3")[:200], grey, bytes(100_000)):
            np.testing.assert_array_equal(decode(encoded(COLOURS, encoding, icc_profile=odd)).pixels, plain)


def test_transparency_and_palettes_have_profiles_too():
    opaque = decode(encoded(COLOURS, "png", icc_profile=rgb_profile("p3"))).pixels
    clear = COLOURS.convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    found = decode(encoded(clear, "png", icc_profile=rgb_profile("p3"))).pixels
    assert (found[0, 0] == 255).all()
    np.testing.assert_array_equal(found[1:], opaque[1:])
    palette = COLOURS.quantize(48)
    found = decode(encoded(palette, "png", icc_profile=rgb_profile("p3"))).pixels
    assert np.abs(found - expected(palette.convert("RGB"), "p3")).max() < 3


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_with_a_profile(mode):
    levels = np.arange(48, dtype=np.uint8).reshape(6, 8) * 4 + 60
    image = Image.fromarray(levels.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(levels).convert(mode)
    printed = profile({b"wtpt": point(xyz(D50)), b"kTRC": gamma(1.5)}, b"GRAY")
    found = decode(encoded(image, "png", icc_profile=printed)).pixels
    light = (levels / 255) ** 1.5
    srgb = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(found - srgb[..., None]).max() < 3


def test_16_bit_grey_with_one_transparent_level():
    levels = np.array([[300, 301, 65535]], np.uint16)
    found = decode(encoded(Image.fromarray(levels), "png", transparency=300)).pixels
    assert found[0, :, 0].tolist() == [255, 1, 255]


def test_16_bit_grey_where_0_is_white():
    data = bytearray(encoded(Image.fromarray(np.array([[0, 257, 65535]], np.uint16)), "tiff"))
    data[data.index(struct.pack("<HHI", 262, 3, 1)) + 8] = 0
    assert decode(bytes(data)).pixels[0, :, 0].tolist() == [255, 254, 0]


def twelve_bits(levels):
    """A TIFF of one strip."""
    packed = int("".join(f"{level:012b}" for level in levels), 2).to_bytes(len(levels) * 12 // 8)
    fields = {256: len(levels), 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in fields.items())
    return (
        struct.pack("<2sHI", b"II", 42, 8 + len(packed)) + packed + struct.pack("<H", len(fields)) + entries + bytes(4)
    )


def test_grey_of_12_bits():
    assert decode(twelve_bits([0, 16, 2056, 4095])).pixels[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_tiff_in_ycbcr_with_a_profile():
    stored = COLOURS.convert("YCbCr")
    found = decode(encoded(stored, "tiff", icc_profile=rgb_profile("adobe")))
    assert found.mode == "YCbCr"
    assert np.abs(found.pixels - expected(stored.convert("RGB"), "adobe")).max() < 3


def test_a_bmp_whose_fourth_byte_is_unused():
    colours = COLOURS.convert("RGBA")
    colours.putalpha(0)
    body = colours.transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGRA")
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", 108, 8, 6, 1, 32, 3, len(body), 0, 0, 0, 0) + (masks + b"BGRs").ljust(68, b"\0")
    data = struct.pack("<2sIHHI", b"BM", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body
    np.testing.assert_array_equal(decode(data).pixels, np.asarray(COLOURS))


@pytest.mark.parametrize("encoding", ["png", "heif", "avif"])
@pytest.mark.parametrize("transfer", [16, 18])
def test_a_high_dynamic_range_is_bad(encoding, transfer):
    plain = encoded(COLOURS, encoding)
    if encoding == "png":
        chunk = b"cICP" + bytes([9, transfer, 0, 1])
        hdr = plain[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[33:]
        ordinary = hdr.replace(chunk[4:], bytes([1, 13, 0, 1]))
    else:
        place = plain.index(b"colrnclx") + 8
        hdr = plain[: place + 2] + struct.pack(">H", transfer) + plain[place + 4 :]
        ordinary = hdr + plain[place - 8 : place + 7]  # a second picture in an ordinary range
    with pytest.raises(BadImage, match="high dynamic range"):
        decode(hdr)
    assert decode(ordinary).pixels.shape == (6, 8, 3)
