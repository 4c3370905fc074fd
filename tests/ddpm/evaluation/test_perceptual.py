"""LPIPS as vectors and nearest neighbours by it, held to the `lpips` package pair by pair and to reference numbers."""

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import REPOSITORY
from torch import Tensor

from ddpm.evaluation.neighbours import nearest
from ddpm.evaluation.perceptual import (
    Metric,
    distance_sums,
    embed,
    load_lpips,
    pair_distances,
    pooled_features,
    squared_distances,
)
from ddpm.images import to_model_range, to_uint8
from ddpm.rng import normal, numpy_stream
from stages.shared.files.formats import ArrayFile
from stages.weights import stage as weights


@pytest.fixture(scope="module")
def model(backbone: dict[str, Tensor]) -> lpips.LPIPS:
    return load_lpips(backbone, "alex")


def pictures(count: int, seed: int) -> Tensor:
    """Random images with structure at several scales, `[count, 3, 48, 48]` in [-1, 1]."""
    generator = numpy_stream(seed, "test pictures")
    scales = [normal(generator, (count, 3, size, size)) for size in (3, 8, 48)]
    return sum((F.interpolate(scale, 48, mode="bilinear") for scale in scales), torch.zeros(())).tanh()


def by_the_package(model: lpips.LPIPS, a: Tensor, b: Tensor) -> Tensor:
    """LPIPS of each pair (a[i], b[i]), `[B]`, as `lpips` computes it."""
    found: Tensor = model(a, b)
    return found.flatten()


def test_the_backbone_is_alexnet(backbone: dict[str, Tensor]):
    total = hashlib.sha256()
    for layer in (0, 3, 6, 8, 10):
        for kind in ("weight", "bias"):
            total.update(backbone[f"features.{layer}.{kind}"].numpy().astype("<f4").tobytes())
    assert total.hexdigest() == "2b566cc3a4d6f0a7343701af22f461f1ac3dcd03a3ac28cce10968a1d3c85fdc"


def test_reference_distances(model: lpips.LPIPS):
    c, y, x = torch.meshgrid(torch.arange(3), torch.arange(48), torch.arange(48), indexing="ij")
    a = ((x * (c + 1) + 3 * y) % 48 / 23.5 - 1)[None]
    b = ((3 * x + y * (c + 1)) % 48 / 23.5 - 1)[None]
    assert pair_distances(model, a, b).item() == pytest.approx(0.124593, abs=1e-6)
    assert pair_distances(model, a, -a).item() == pytest.approx(0.111562, abs=1e-6)
    assert by_the_package(model, a, b).item() == pytest.approx(0.124593, abs=1e-6)


def test_loading_draws_nothing_from_the_global_generator(backbone: dict[str, Tensor]):
    before = torch.get_rng_state()
    load_lpips(backbone, "alex")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [32, 48, 64])
def test_embedding_distance_is_lpips(model: lpips.LPIPS, size: int):
    a, b = (F.interpolate(pictures(9, seed), size) for seed in (0, 1))
    distances = squared_distances(embed(model, a), embed(model, b))
    expected = torch.stack([by_the_package(model, image.expand_as(b), b) for image in a])
    assert (distances - expected).abs().max() < 1e-6
    assert (pair_distances(model, a, b, at_once=4) - expected.diagonal()).abs().max() < 1e-6
    assert expected.min() > 0.05, "the images are too alike to show anything"


def test_embedding_distance_is_lpips_for_vgg(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DVC_ROOT", str(REPOSITORY))
    if not (weights.download_folder() / weights.ARCHIVE).exists():
        pytest.skip("VGG16 would be one more download here: the backbone came from another file")
    model = load_lpips(weights.obtain("vgg"), "vgg")
    a, b = pictures(2, 0), pictures(2, 1)
    distances = squared_distances(embed(model, a), embed(model, b)).diagonal()
    assert (distances - by_the_package(model, a, b)).abs().max() < 1e-6
    queries, reference = to_uint8(a), to_uint8(b)
    found = nearest(Metric(model), queries, reference, 2)
    exact = Metric(model).pair_distances(queries[[0, 0, 1, 1]], reference[found.rows.ravel()])
    assert np.abs(found.distances.ravel() - exact.numpy()).max() < 1e-6


EMBED = """
import hashlib, lpips, torch
from ddpm.evaluation.perceptual import embed, pooled_features
torch.manual_seed(0)
model, images = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval(), torch.rand(40, 3, 48, 48) * 2 - 1
print(*(hashlib.sha256(made(model, images).numpy().tobytes()).hexdigest() for made in (embed, pooled_features)))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="an x86-64 processor is needed")
def test_nothing_that_rounds_by_the_maker_of_the_processor_is_in_an_embedding():
    """MKL, which has other instructions for each maker, has no part in it: so none that it is told to take counts."""
    commands = [sys.executable, "-W", "ignore", "-c", EMBED]
    ways = [{"MKL_CBWR": "COMPATIBLE"}, {}]
    fixed = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    found = {
        subprocess.run(commands, cwd=REPOSITORY, env=fixed | way, capture_output=True, text=True, check=True).stdout
        for way in ways
    }
    assert len(found) == 1


def test_size_of_features(model: lpips.LPIPS):
    images = pictures(3, 0)
    assert embed(model, images).shape == (3, 10_278)
    pooled = pooled_features(model, images)
    assert pooled.shape == (3, 1152)
    assert 0 < pooled.square().mean() <= 1
    first = lpips.normalize_tensor(model.net(model.scaling_layer(images))[0])  # of 64 channels
    assert torch.allclose(pooled[:, :64], first.mean((2, 3)) * 8, atol=1e-5)


def test_stored_images_are_resized_before(model: lpips.LPIPS):
    images = to_uint8(pictures(3, 0))
    assert torch.equal(Metric(model).embed(images), embed(model, to_model_range(images)))
    larger = F.interpolate(to_model_range(images), (64, 64), mode="bilinear")
    distances = Metric(model, 64).pair_distances(images, images[::-1])
    assert (distances - by_the_package(model, larger, larger.flip(0))).abs().max() < 1e-6
    assert (distances - Metric(model).pair_distances(images, images[::-1])).abs().max() > 1e-3


def stored(count: int, seed: int) -> np.ndarray:
    return to_uint8(pictures(count, seed))


def by_hand(metric: Metric, queries: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """LPIPS of each query to each image as it is and mirrored, `[Q, N, 2]`."""
    sides = [reference, reference[:, :, ::-1]]
    found = [
        [metric.pair_distances(np.broadcast_to(query, side.shape), side).numpy() for side in sides] for query in queries
    ]
    return np.moveaxis(np.array(found), 1, 2)


@pytest.mark.parametrize(("size", "mirror"), [(None, True), (None, False), (64, True)])
def test_nearest_is_brute_force(model: lpips.LPIPS, size: int | None, mirror: bool):
    metric, queries, reference = Metric(model, size), stored(5, 0), stored(150, 1)
    reference[130], reference[20] = queries[3], queries[4][:, ::-1]
    found = nearest(metric, queries, reference, 3, mirror=mirror)
    brute = by_hand(metric, queries, reference)[..., : 1 + mirror]
    order = brute.min(axis=2).argsort(axis=1, kind="stable")[:, :3]
    assert np.array_equal(found.rows, order)
    nearer = np.take_along_axis(brute, order[..., None], axis=1)
    assert np.abs(found.distances - nearer.min(axis=2)).max() < 1e-6
    assert np.array_equal(found.mirrored, nearer.argmin(axis=2) == 1)
    assert (found.rows[3, 0], found.distances[3, 0]) == (130, 0), "the planted copy"
    assert (found.rows[4, 0] == 20 and found.distances[4, 0] == 0 and found.mirrored[4, 0]) == mirror, "mirrored"


def test_nearest_are_the_same_whatever_is_in_memory_at_once(
    model: lpips.LPIPS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    metric, queries, reference = Metric(model), stored(9, 0), stored(300, 1)
    np.save(tmp_path / "reference.npy", reference)
    whole, calls = nearest(metric, queries, reference, 3, mirror=True), []
    for queries_at_once, block in ((4, 128), (9, 7), (2, 64)):
        monkeypatch.setattr("ddpm.evaluation.neighbours.QUERY_BYTES", queries_at_once * 4 * 10_278)
        monkeypatch.setattr("ddpm.evaluation.neighbours.BLOCK_BYTES", block * 4 * 10_278)
        images = ArrayFile(tmp_path / "reference.npy")
        parts = nearest(metric, queries, images, 3, mirror=True, on_block=lambda *counts: calls.append(counts))
        assert np.array_equal(parts.distances, whole.distances)
        assert np.array_equal(parts.rows, whole.rows)
        assert np.array_equal(parts.mirrored, whole.mirrored)
        assert sum(images for images, _ in calls) == calls[-1][1] > 300 * -(-9 // queries_at_once)
        calls.clear()


def test_images_that_are_left_out_are_no_neighbours_of_their_own(model: lpips.LPIPS):
    metric, reference = Metric(model), stored(140, 1)
    reference[7] = reference[7][:, ::-1] // 2 + reference[7] // 2  # almost its own mirror image
    own = np.array([7, 130, -1])
    found = nearest(metric, reference[own], reference, 2, mirror=True, left_out=own)
    brute = by_hand(metric, reference[own], reference).min(axis=2)
    brute[[0, 1], own[:2]] = np.inf
    assert np.array_equal(found.rows, brute.argsort(axis=1, kind="stable")[:, :2])
    assert found.rows[2, 0] == 139, "-1 is no row: nothing is left out"


def test_of_equal_neighbours_the_first_comes_first(model: lpips.LPIPS):
    queries, reference = stored(2, 0), stored(260, 1)
    reference[[250, 3, 140]] = queries[0]
    found = nearest(Metric(model), queries, reference, 3)
    assert found.rows[0].tolist() == [3, 140, 250]
    assert found.distances[0].tolist() == [0, 0, 0]


def test_too_few_images_are_refused(model: lpips.LPIPS):
    images = stored(3, 1)
    with pytest.raises(ValueError, match="4 neighbours asked for among 3 images"):
        nearest(Metric(model), images, images, 4)
    with pytest.raises(ValueError, match="3 neighbours asked for among 2 images"):
        nearest(Metric(model), images, images, 3, left_out=np.arange(3))


def test_distances_are_exact_whatever_products_may_round_to():
    """Where the processor has bfloat16, torch takes it for products of float32 at the precision "medium"."""
    rows = normal(numpy_stream(0, "test rows"), (300, 512))
    exact = squared_distances(rows, rows)
    torch.set_float32_matmul_precision("medium")
    try:
        assert squared_distances(rows, rows).equal(exact)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_sums_of_distances_are_those_of_all_pairs_however_many_rows_come_at_once():
    rows = normal(numpy_stream(0, "test rows"), (10, 5))
    expected = torch.cdist(rows.double(), rows.double()).square().sum(1)
    for size in (1, 4, 10):
        torch.testing.assert_close(distance_sums(lambda size=size: rows.split(size)), expected)
