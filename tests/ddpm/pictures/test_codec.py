import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ddpm.pictures import codec
from ddpm.pictures.encodings import HEAD, encoding_of


def noise(mode: str, width: int, height: int, seed: int = 0) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.frombytes(mode, (width, height), levels.tobytes())


def soft(width: int, height: int) -> Image.Image:
    return noise("RGB", 9, 7).resize((width, height), Image.BICUBIC)


def encoded(image: Image.Image, encoding: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "heif" if encoding == "heic" else encoding, **options)
    return buffer.getvalue()


def with_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    if mode == "CMYK":
        image = Image.new("CMYK", (20, 10), (255, 0, 255, 0))
        found = codec.decode(encoded(image, "jpeg"))
        assert found.mode == "CMYK"
        assert np.abs(found.pixels.astype(int) - (0, 255, 0)).max() < 3  # cyan and yellow ink make green
        return
    if mode == "I;16":
        image = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
        expected = np.array([[[0] * 3, [1] * 3, [255] * 3]])
    elif mode in ("LA", "RGBA"):
        image = noise(mode, 20, 10)
        values = np.asarray(image).astype(float)
        alpha = values[..., -1:] / 255
        expected = np.broadcast_to(values[..., :-1] * alpha + 255 * (1 - alpha), (10, 20, 3))
    else:
        image = noise("L", 20, 10).convert(mode)
        expected = np.asarray(image.convert("RGB"))
    found = codec.decode(encoded(image, "png"))
    assert found.mode == mode
    assert found.pixels.dtype == np.uint8
    assert np.abs(found.pixels.astype(float) - expected).max() <= 1


def test_a_png_of_16_bits_a_channel_keeps_the_upper_8():
    rows = b"".join(b"\0" + bytes([200, 7, 100, 7, 50, 7]) * 3 for _ in range(2))  # big-endian words 200 * 256 + 7, ...
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)
        for kind, body in (
            (b"IHDR", (3).to_bytes(4) + (2).to_bytes(4) + bytes([16, 2, 0, 0, 0])),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
    )
    assert (codec.decode(png).pixels == (200, 100, 50)).all()


@pytest.mark.parametrize("greatest", [300, 4095, 65535])
def test_a_pgm_of_two_bytes_a_level_is_scaled_by_its_greatest(greatest):
    levels = np.linspace(0, greatest, 256).round().astype(">u2")
    pgm = f"P5 16 16 {greatest}\n".encode() + levels.tobytes()
    assert np.abs(codec.decode(pgm).pixels.reshape(256, 3) - np.arange(256)[:, None]).max() <= 1


@pytest.mark.parametrize("encoding", ["jpeg", "webp", "png", "bmp", "gif", "tiff", "avif", "ppm", "heic"])
def test_encodings_are_told_by_their_bytes(encoding):
    data = encoded(noise("RGB", 30, 20), encoding)
    assert encoding_of(data[:HEAD]) == encoding
    assert codec.decode(data).pixels.shape == (20, 30, 3)


@pytest.mark.parametrize("text", [b"BMW and other makes", b"P5 is a station", b"Python", b"", b"\0\0\0\x18ftypmp42"])
def test_other_files_are_told_from_pictures(text):
    assert encoding_of(text) == "other"


def test_heic_and_avif_are_told_apart():
    assert encoding_of(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") == "heic"
    assert encoding_of(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic") == "heic"
    assert encoding_of(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf") == "avif"


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    encoding=st.sampled_from(
        [
            ("jpeg", {"quality": 75}),
            ("jpeg", {"quality": 95, "subsampling": 0, "progressive": True}),
            ("jpeg", {"keep_rgb": True}),
            ("webp", {"quality": 75}),
            ("webp", {"lossless": True}),
        ]
    ),
)
def test_the_fast_decoders_give_pillows_pixels(size, encoding):
    data = encoded(soft(*size), encoding[0], **encoding[1])
    np.testing.assert_array_equal(codec.decode(data).pixels, with_pillow(data))


def outcome(data: bytes) -> np.ndarray | str:
    try:
        return codec.decode(data).pixels
    except codec.BadImage as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(encoding=st.sampled_from(["jpeg", "webp"]), data=st.data())
def test_damaged_bytes_end_as_pillow_says(encoding, data):
    """Cut off anywhere or with a few bytes changed: the same pixels, or bad either way."""
    whole = encoded(soft(40, 30), encoding)
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        damaged = bytearray(whole)
        for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
            damaged[place] = data.draw(st.integers(0, 255))
    fast = outcome(bytes(damaged))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "FAST", {})
        slow = outcome(bytes(damaged))
    if isinstance(slow, str):
        assert fast == slow
    else:
        np.testing.assert_array_equal(fast, slow)


def test_an_animation_is_its_first_frame():
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    for encoding in ("webp", "gif", "png"):
        data = encoded(frames[0], encoding, save_all=True, append_images=frames[1:])
        pixels = codec.decode(data).pixels.astype(int)
        assert np.abs(pixels - (255, 0, 0)).max() < 4, encoding


@pytest.mark.parametrize("encoding", ["jpeg", "webp", "png", "tiff", "tiff_lzw", "avif"])
@pytest.mark.parametrize("orientation", range(10))
def test_an_orientation_is_applied(encoding, orientation):
    exif = Image.Exif()
    exif[codec.ORIENTATION] = orientation  # 0 and 9 mean nothing
    if encoding == "tiff_lzw":
        if not orientation or orientation == 9:
            return  # which libtiff doesn't write
        data = encoded(soft(40, 20), "tiff", exif=exif, compression=encoding)
    else:
        data = encoded(soft(40, 20), encoding, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(codec.decode(data).pixels, expected)


@pytest.mark.parametrize("orientation", codec.UPRIGHT)
def test_heic_is_turned_as_its_container_says_and_not_once_more_by_exif(orientation):
    exif = Image.Exif()
    exif[codec.ORIENTATION] = orientation
    upright = np.asarray(soft(40, 20).transpose(codec.UPRIGHT[orientation])).astype(int)
    pixels = codec.decode(encoded(soft(40, 20), "heic", exif=exif.tobytes(), quality=-1, chroma=444)).pixels
    assert pixels.shape == upright.shape
    assert np.abs(pixels - upright).max() < 3


def test_odd_exif_tags_do_no_harm():
    exif = b"Exif\0\0MM\0*" + (8).to_bytes(4) + (2).to_bytes(2)
    exif += bytes([1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0])  # orientation, a short
    exif += bytes([1, 0x1A, 0, 2, 0, 0, 0, 4]) + b"odd\0" + bytes(4)  # a resolution in letters
    assert codec.decode(encoded(soft(40, 20), "jpeg", exif=exif)).pixels.shape == (40, 20, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no bytes"),
        (b"not an image at all", "known format"),
        (encoded(noise("RGB", 64, 64), "jpeg")[:2000], "truncated"),
        (encoded(noise("RGB", 64, 64), "webp")[:2000], "."),
        (encoded(noise("RGB", 64, 64), "png")[:2000], "truncated"),
        (encoded(Image.new("F", (4, 4)), "tiff"), "mode F"),
        (encoded(noise("RGB", 64, 64), "jpeg")[:20], "JPEG of an unsupported kind, or with a damaged header"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "known format"),
    ],
)
def test_bad_bytes_have_a_short_reason(data, reason):
    with pytest.raises(codec.BadImage, match=reason) as caught:
        codec.decode(data)
    message = str(caught.value)
    assert 0 < len(message) < 100
    assert "0x" not in message


@settings(deadline=None)
@given(data=st.binary(max_size=300), head=st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"RIFF\x20\0\0\0WEBPVP8 ", b"BM"]))
def test_no_bytes_crash_the_decoder(data, head):
    with pytest.raises(codec.BadImage):
        codec.decode(head + data)


@pytest.mark.parametrize("encoding", ["png", "jpeg", "webp", "avif", "heic"])
@pytest.mark.parametrize("allowed", [300, 100])  # Pillow only warns up to twice its limit
def test_too_many_pixels_are_refused(allowed, encoding):
    data = encoded(noise("RGB", 20, 20), encoding)
    with pytest.raises(codec.BadImage, match=f"more than {allowed} pixels"):
        codec.decode(data, max_pixels=allowed)
    assert codec.decode(data, max_pixels=400).pixels.shape == (20, 20, 3)
    assert Image.MAX_IMAGE_PIXELS == codec.MAX_PIXELS


def test_pillows_limit_can_be_raised():
    data = encoded(Image.new("1", (10_000, 9_000)), "png")
    with pytest.raises(codec.BadImage, match="more than 89478485 pixels"):
        codec.decode(data)
    assert codec.decode(data, max_pixels=90_000_000).pixels.shape == (9_000, 10_000, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_is_taken_by_parameter_if_all_pixels_are_there(progressive):
    whole = encoded(soft(80, 60), "jpeg", progressive=progressive)
    for cut in (1, 2):
        with pytest.raises(codec.BadImage, match="truncated"):
            codec.decode(whole[:-cut])
        np.testing.assert_array_equal(codec.decode(whole[:-cut], truncated="use").pixels, with_pillow(whole))
    for cut in (6, 20, len(whole) // 2):
        with pytest.raises(codec.BadImage, match="truncated"):
            codec.decode(whole[:-cut], truncated="use")
