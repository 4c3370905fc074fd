"""Pictures whose pixels are whole and whose metadata are not."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from ddpm.pictures.codec import BadImage, decode

KINDS = ["iCCP", "eXIf", "tEXt", "zTXt", "iTXt", "pHYs", "gAMA", "cHRM", "sRGB", "tIME", "bKGD", "acTL", "fcTL", "prVt"]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((40, 20))
JUNK = (b"", b"\xfe\1junk\0\xff\xff", b"\0" * 40, b"Key\0\5\6x", b"ICC_PROFILE\0\1", b"Adobe", b"JFIF\0")
EXIF = b"Exif\0\0MM\0*" + (8).to_bytes(4) + bytes([0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0]) + bytes(4)  # turned


def encoded(encoding: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, encoding, **options)
    return buffer.getvalue()


def same(data: bytes, whole: bytes) -> None:
    np.testing.assert_array_equal(decode(data).pixels, decode(whole).pixels)


def chunk(kind: bytes, body: bytes, *, wrong: bool = False) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


@pytest.mark.parametrize(
    "kind",
    ["iCCP", "eXIf", "tEXt", "zTXt", "iTXt", "pHYs", "gAMA", "cHRM", "sRGB", "tIME", "bKGD", "acTL", "fcTL", "prVt"],
)
@pytest.mark.parametrize("where", [33, -12])  # behind the header, before the end
def test_png_chunks(kind, where):
    whole = encoded("png")
    for body in JUNK:
        for wrong in (False, True):
            same(whole[:where] + chunk(kind.encode(), body, wrong=wrong) + whole[where:], whole)


def test_png_with_large_texts_and_profiles():
    whole = encoded("png")
    for lengths in ([2_000_000], [20_000_000], [1_000_000] * 70):
        texts = PngImagePlugin.PngInfo()
        for index, length in enumerate(lengths):
            texts.add_text(f"workflow {index}", "x" * length, zip=True)
        same(encoded("png", pnginfo=texts), whole)
    same(encoded("png", icc_profile=bytes(1_500_000)), whole)
    same(whole[:-12], whole)  # without an end


def test_what_is_damaged_leaves_the_orientation():
    turned = encoded("png", exif=EXIF)
    assert decode(turned).pixels.shape == (40, 20, 3)
    same(turned[:33] + chunk(b"pHYs", b"") + turned[33:], turned)
    turned = encoded("jpeg", exif=EXIF)
    same(turned[:2] + b"\xff\xed\0\x16Photoshop 3.0\x008BIM\x03\xed" + turned[2:], turned)
    turned = encoded("webp", exif=EXIF, xmp=b"<x/>" * 20)
    same(turned[:-20], turned)


def test_damage_to_pixels_stays_damage():
    whole = encoded("png")
    for data in (whole[:-40], whole[:33] + chunk(b"pHYs", b"") + whole[33:-40], whole.replace(b"IDAT", b"iDAT")):
        with pytest.raises(BadImage):
            decode(data)
    with pytest.raises(BadImage):
        decode(encoded("webp", lossless=True)[:-30])


@pytest.mark.parametrize("marker", [*range(0xE0, 0xF0), 0xFE])
def test_jpeg_segments(marker):
    whole = encoded("jpeg")
    for body in (*JUNK, b"Photoshop 3.0\x008BIM\x03\xed", b"MPF\0II*\0\x08\0\0\0", b"Exif\0\0"):
        same(whole[:2] + bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body + whole[2:], whole)


@pytest.mark.parametrize("encoding", ["jpeg", "png", "webp"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0junk not tiff", b"Exif\0\0II", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif" + bytes(9000)]
)
def test_exif_that_is_none(encoding, exif):
    same(encoded(encoding, exif=b"Exif\0\0" + exif), encoded(encoding))


def test_png_text_of_exif_that_is_none():
    whole = encoded("png")
    same(whole[:33] + chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nzzzz\n") + whole[33:], whole)


def test_webp_cut_in_its_metadata_or_with_another_length():
    for options in ({"lossless": True}, {"quality": 80}):
        whole = encoded("webp", **options)
        full = encoded("webp", exif=b"Exif\0\0" + bytes(50), xmp=b"<x/>" * 30, **options)
        for cut in (20, 100, 140, 180):
            same(full[:-cut], whole)
        for length in (0, 10**6):
            same(whole[:4] + struct.pack("<I", length) + whole[8:], whole)


def test_gif_extensions():
    whole = encoded("gif")
    start = 13 + (6 << (whole[10] & 7))
    assert whole[start : start + 1] == b","
    for extension in (
        b"\xff\x0bNETSCAPE2.0\0",
        b"\xff\0",
        b"\xff\2NE\0",
        b"\xf9\0",
        b"\xf9\1\1\0",
        b"\xfe\2\xff\xfe\0",
    ):
        same(whole[:start] + b"!" + extension + whole[start:], whole)
    same(whole[:-1], whole)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_tiff_tags(compression):
    whole = encoded("tiff", compression=compression)
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag in (270, 271, 305, 306, 315):
        info[tag] = "a text of some length"
    data = encoded("tiff", compression=compression, tiffinfo=info)
    start = struct.unpack_from("<I", data, 4)[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        if struct.unpack_from("<H", data, entry)[0] in info:
            for kind, count, value in ((2, 22, 2**31), (2, 2**31, 8), (99, 1, 0), (5, 1, 2**32 - 1), (13, 9, 1)):
                same(data[: entry + 2] + struct.pack("<HII", kind, count, value) + data[entry + 12 :], whole)


def test_a_png_with_damaged_pixels_is_bad_and_one_with_a_damaged_sum_is_not():
    whole = encoded("png")
    place = whole.index(b"IDAT") + 300
    for damaged in (
        whole[:place] + bytes([whole[place] ^ 85]) + whole[place + 1 :],
        whole[:place] + bytes(100) + whole[place + 100 :],
        whole[:place] + whole[place + 100 :],
    ):
        with pytest.raises(BadImage):
            decode(damaged)
    end = whole.index(b"IEND") - 8
    same(whole[:end] + bytes(4) + whole[end + 4 :], whole)


@pytest.mark.parametrize("cut", [1, 30, 60])
def test_a_tiff_whose_pixels_end_behind_the_file_is_bad(cut):
    whole = encoded("tiff")
    with Image.open(io.BytesIO(whole)) as image:
        (place,), (length,) = image.tag_v2[273], image.tag_v2[279]
    assert place + length == len(whole)  # Pillow puts pixels last
    with pytest.raises(BadImage, match="truncated"):
        decode(whole[:-cut])


@pytest.mark.parametrize("encoding", ["avif", "heif"])
def test_avif_and_heic_metadata(encoding):
    exif = Image.Exif()
    exif[271] = "maker"
    data = encoded(encoding, exif=exif)
    assert b"Exif" in data
    same(re.sub(rb"MM\0\*", b"junk", data), encoded(encoding))
    same(encoded(encoding, icc_profile=b"no profile"), encoded(encoding))
