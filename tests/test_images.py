import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddpm import images

FILTERS = {
    "box": Image.BOX,
    "bilinear": Image.BILINEAR,
    "hamming": Image.HAMMING,
    "bicubic": Image.BICUBIC,
    "lanczos": Image.LANCZOS,
}


def noise(mode: str, width: int, height: int, seed: int = 0) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.frombytes(mode, (width, height), levels.tobytes())


def encoded(image: Image.Image, encoding: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, encoding, **options)
    return buffer.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.integers(8, 64),
    filter_name=st.sampled_from(sorted(FILTERS)),
    seed=st.integers(0, 99),
)
def test_recipe_is_the_central_square_resized_once_by_pillow(width, height, size, filter_name, seed):
    image = noise("RGB", width, height, seed)
    side, left, top = min(width, height), (width - min(width, height)) // 2, (height - min(width, height)) // 2
    pixels = np.asarray(image)[top : top + side, left : left + side]
    expected = np.asarray(Image.fromarray(pixels).resize((size, size), FILTERS[filter_name]))
    np.testing.assert_array_equal(images.resize_center_crop(image, size, filter_name), expected)


def test_resizing_is_antialiased():
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    small = images.resize_center_crop(Image.fromarray(board).convert("RGB"), 48, "bilinear")
    assert np.abs(small.astype(int) - 127).max() < 8


def test_every_level_survives_the_model_range():
    levels = np.arange(256, dtype=np.uint8).reshape(2, 8, 16, 1).repeat(3, axis=3)
    levels.flags.writeable = False  # as a memory map is
    x = images.to_model_range(levels)
    assert x.shape == (2, 3, 8, 16)
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(images.to_model_range(torch.tensor(levels)), x)
    np.testing.assert_array_equal(images.to_uint8(x), levels)


def test_values_out_of_range_are_clamped_and_others_rounded():
    x = torch.tensor([-3.0, -1.0, 0.0039, 0.9999, 3.0]).reshape(1, 1, 1, 5)
    assert images.to_uint8(x).ravel().tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    if mode == "CMYK":
        image = Image.new("CMYK", (20, 10), (255, 0, 255, 0))
        found = np.asarray(images.decode(encoded(image, "jpeg"))).astype(int)
        assert np.abs(found - (0, 255, 0)).max() < 3  # cyan and yellow ink make green
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
    found = images.decode(encoded(image, "png"))
    assert found.mode == "RGB"
    assert np.abs(np.asarray(found).astype(float) - expected).max() <= 1


@pytest.mark.parametrize("encoding", ["jpeg", "webp", "png", "bmp"])
def test_encodings_are_told_by_their_bytes(encoding):
    data = encoded(noise("RGB", 30, 20), encoding)
    assert images.encoding_of(data) == ("other" if encoding == "bmp" else encoding)
    assert images.decode(data).size == (30, 20)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no bytes"),
        (b"not an image at all", "known format"),
        (encoded(noise("RGB", 64, 64), "jpeg")[:2000], "truncated"),
        (encoded(noise("RGB", 64, 64), "webp")[:2000], "."),
        (encoded(noise("RGB", 64, 64), "png")[:2000], "truncated"),
        (encoded(Image.new("F", (4, 4)), "tiff"), "mode F"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "known format"),
    ],
)
def test_bad_bytes_have_a_short_reason(data, reason):
    with pytest.raises(images.BadImage, match=reason) as caught:
        images.decode(data)
    message = str(caught.value)
    assert 0 < len(message) < 100
    assert "0x" not in message


@given(data=st.binary(max_size=300), head=st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"RIFF\x20\0\0\0WEBPVP8 ", b"BM"]))
def test_no_bytes_crash_the_decoder(data, head):
    with pytest.raises(images.BadImage):
        images.decode(head + data)


@pytest.mark.parametrize("allowed", [300, 100])  # Pillow only warns up to twice its limit
def test_too_many_pixels_are_refused(monkeypatch, allowed):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", allowed)
    with pytest.raises(images.BadImage, match=f"more than {allowed} pixels"):
        images.decode(encoded(noise("RGB", 20, 20), "png"))


def test_grid_places_each_image_on_white():
    tiles = np.random.default_rng(0).integers(0, 255, (5, 4, 6, 3), dtype=np.uint8)
    grid = images.tile_grid(tiles, columns=3, padding=2, scale=2)
    assert grid.shape == (2 * (8 + 2) + 2, 3 * (12 + 2) + 2, 3)
    for index, tile in enumerate(tiles):
        top, left = 2 + index // 3 * 10, 2 + index % 3 * 14
        np.testing.assert_array_equal(grid[top : top + 8 : 2, left : left + 12 : 2], tile)
        np.testing.assert_array_equal(grid[top + 1 : top + 8 : 2, left + 1 : left + 12 : 2], tile)
        grid[top : top + 8, left : left + 12] = 255
    assert (grid == 255).all()
