import numpy as np
import torch

from ddpm import images


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


def test_grid_places_each_image_on_nothing():
    tiles = np.random.default_rng(0).integers(0, 255, (5, 4, 6, 3), dtype=np.uint8)
    grid = images.tile_grid(tiles, columns=3, padding=2, scale=2)
    assert grid.shape == (2 * (8 + 2) + 2, 3 * (12 + 2) + 2, 4)
    for index, tile in enumerate(tiles):
        top, left = 2 + index // 3 * 10, 2 + index % 3 * 14
        np.testing.assert_array_equal(grid[top : top + 8 : 2, left : left + 12 : 2, :3], tile)
        np.testing.assert_array_equal(grid[top + 1 : top + 8 : 2, left + 1 : left + 12 : 2, :3], tile)
        assert (grid[top : top + 8, left : left + 12, 3] == 255).all()
        grid[top : top + 8, left : left + 12] = 0
    assert (grid == 0).all()
    np.testing.assert_array_equal(images.tile_grid(tiles, columns=8), images.tile_grid(tiles, columns=5))
