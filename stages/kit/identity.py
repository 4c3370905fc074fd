"""What the bytes of a long computation depend on beside data and parameters: code, packages and processor."""

import ast
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.kit.files import digest
from stages.kit.runtime import cpuinfo, is_portable

PLUMBING = ("stages.kit.", "ddpm.config")
"""Modules that can't change an output: they are no dependency in `dvc.yaml`, and no part of what a state belongs to."""
TRAINING = (
    "ddpm.autoencoder.", "ddpm.devices.", "ddpm.diffusion.", "ddpm.gan.", "ddpm.images", "ddpm.rng", "ddpm.training.",
    "ddpm.tuning.",
)  # fmt: skip
"""The code that computes a training step. Stages only hand it values, which the identity of a run has anyway."""


def code_digests(packages: Sequence[str] = ("ddpm.", "stages.")) -> dict[str, str]:
    """sha256 of what every loaded module of `packages` computes, by the module's name."""
    ours = {
        name: module.__file__
        for name, module in sorted(sys.modules.items())
        if name.startswith(tuple(packages)) and not name.startswith(PLUMBING)
    }
    return {
        name: hashlib.sha256(computing(Path(file).read_text(encoding="utf-8")).encode()).hexdigest()
        for name, file in ours.items()
        if file and not file.endswith("__init__.py")
    }


def computing(source: str) -> str:
    """The source code of a module without what can't change a number: comments, layout, docstrings and errors."""
    return ast.unparse(_Computing().visit(ast.parse(source)))


class _Computing(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise()

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST | None:
        return None if node.name.endswith("Error") else self.generic_visit(node)


def run_of(
    settings: Mapping[str, Any], device: torch.device, precision: torch.dtype, inputs: Sequence[Path]
) -> dict[str, Any]:
    """What the bytes of a computation on these files depend on."""
    platform = {**platform_of(device), "precision": str(precision)}
    return {
        "inputs": [digest(file) for file in inputs],
        "settings": dict(settings),
        "code": code_digests(),
        "platform": platform,
    }


def platform_of(device: torch.device) -> dict[str, Any]:
    """What decides how sums are rounded, beside the settings and the code.

    Of the processor, only where it computes: on CUDA it only prepares batches.
    """
    packages = {"torch": torch.__version__, "numpy": np.__version__, "device": device.type}
    if device.type != "cpu":
        return packages
    return {
        **packages,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        # MKL multiplies matrices in another way on processors of another maker.
        **({} if is_portable() else {"maker": cpuinfo("vendor_id")}),
    }
