"""LPIPS as vectors, held to the `lpips` package and to reference numbers; exact nearest neighbours."""

import hashlib

import lpips
import pytest
import torch
import torch.nn.functional as F
from conftest import REPOSITORY
from torch import Tensor

from ddpm.perceptual import embed, load_lpips, nearest, pair_distances, pooled_features, random_pairs, squared_distances
from ddpm.rng import normal, numpy_stream
from stages import weights


@pytest.fixture(scope="module")
def model(trunk: dict[str, Tensor]) -> lpips.LPIPS:
    return load_lpips(trunk, "alex")


def pictures(count: int, seed: int) -> Tensor:
    """Random images with structure at several scales, `[count, 3, 48, 48]` in [-1, 1]."""
    generator = numpy_stream(seed, "test pictures")
    scales = [normal(generator, (count, 3, size, size)) for size in (3, 8, 48)]
    return sum((F.interpolate(scale, 48, mode="bilinear") for scale in scales), torch.zeros(())).tanh()


def test_the_trunk_is_alexnet(trunk: dict[str, Tensor]):
    total = hashlib.sha256()
    for layer in (0, 3, 6, 8, 10):
        for kind in ("weight", "bias"):
            total.update(trunk[f"features.{layer}.{kind}"].numpy().astype("<f4").tobytes())
    assert total.hexdigest() == "2b566cc3a4d6f0a7343701af22f461f1ac3dcd03a3ac28cce10968a1d3c85fdc"


def test_reference_distances(model: lpips.LPIPS):
    c, y, x = torch.meshgrid(torch.arange(3), torch.arange(48), torch.arange(48), indexing="ij")
    a = ((x * (c + 1) + 3 * y) % 48 / 23.5 - 1)[None]
    b = ((3 * x + y * (c + 1)) % 48 / 23.5 - 1)[None]
    assert pair_distances(model, a, b).item() == pytest.approx(0.124593, abs=1e-6)
    assert pair_distances(model, a, -a).item() == pytest.approx(0.111562, abs=1e-6)


def test_loading_draws_nothing_from_the_global_generator(trunk: dict[str, Tensor]):
    before = torch.get_rng_state()
    load_lpips(trunk, "alex")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [32, 48, 64])
def test_embedding_distance_is_lpips(model: lpips.LPIPS, size: int):
    a, b = (F.interpolate(pictures(9, seed), size) for seed in (0, 1))
    distances = squared_distances(embed(model, a), embed(model, b))
    expected = torch.stack([pair_distances(model, image.expand_as(b), b) for image in a])
    assert (distances - expected).abs().max() < 1e-6
    assert expected.min() > 0.05, "the images are too alike to show anything"


def test_embedding_distance_is_lpips_for_vgg(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DVC_ROOT", str(REPOSITORY))
    if not (weights.download_folder() / weights.ARCHIVE).exists():
        pytest.skip("VGG16 would be one more download here: the trunk came from another file")
    model = load_lpips(weights.obtain("vgg"), "vgg")
    a, b = pictures(2, 0), pictures(2, 1)
    distances = squared_distances(embed(model, a), embed(model, b)).diagonal()
    assert (distances - pair_distances(model, a, b)).abs().max() < 1e-6


def test_size_of_features(model: lpips.LPIPS):
    images = pictures(3, 0)
    assert embed(model, images).shape == (3, 10_278)
    pooled = pooled_features(model, images)
    assert pooled.shape == (3, 1152)
    assert 0 < pooled.square().mean() <= 1


def test_nearest_is_brute_force_for_any_chunks(model: lpips.LPIPS):
    queries, reference = pictures(5, 0), pictures(300, 1)
    reference[200] = queries[3]
    brute = torch.stack([pair_distances(model, query.expand_as(reference), reference) for query in queries])
    expected = brute.sort(dim=1, stable=True)
    results = [nearest(model, queries, reference.split(chunk), 3) for chunk in (1, 7, 128, 300)]
    distances, rows = results[0]
    assert torch.equal(rows, expected.indices[:, :3])
    assert (distances - expected.values[:, :3]).abs().max() < 1e-6
    assert (rows[3, 0], distances[3, 0]) == (200, 0), "the planted copy"
    for others in results[1:]:
        assert torch.equal(others[0], distances)
        assert torch.equal(others[1], rows)


def test_of_equal_neighbours_the_first_comes_first(model: lpips.LPIPS):
    queries, reference = pictures(2, 0), pictures(260, 1)
    reference[[250, 3, 140]] = queries[0]
    distances, rows = nearest(model, queries, reference.split(64), 3)
    assert rows[0].tolist() == [3, 140, 250]
    assert distances[0].tolist() == [0, 0, 0]


def test_too_few_images_are_refused(model: lpips.LPIPS):
    with pytest.raises(ValueError, match="3 neighbours asked for among 2 images"):
        nearest(model, pictures(1, 0), [pictures(2, 1)], 3)


def test_random_pairs_are_pairs():
    pairs = random_pairs(3, 2000, numpy_stream(0, "test"))
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert {tuple(pair) for pair in pairs.tolist()} == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}
