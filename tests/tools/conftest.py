"""Weights for the tests of export and import."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from exporting import SIZE, STEPS, network
from support import WriteParams

from stages.kit.params import read_params
from stages.shared.files.formats import write_safetensors


@pytest.fixture
def written(write_params: WriteParams, tmp_path: Path) -> Any:
    """Write random weights of a network, and give the file."""
    write_params({"model": "smoke", "extract.size": SIZE})

    def write(target: str = "x0", schedule: str = "linear", latents: Any = None, **changes: Any) -> Path:
        made = network(*(latents["shape"][:2] if latents else (3, SIZE)), **changes)
        settings = {
            "network": asdict(made.config),
            "recipe": {"target": target},
            "diffusion": {"steps": STEPS, "schedule": schedule, "beta_start": 1e-4, "beta_end": 0.02},
            "size": SIZE,
            "image_recipe": "any",
            "classes": ["church", "tower", "bridge"],
            "sampling": read_params().mapping("models", "smoke", "sampling"),
            **({"latents": latents} if latents else {}),
        }
        write_safetensors(tmp_path / "weights.safetensors", made.state_dict(), settings)
        return tmp_path / "weights.safetensors"

    return write
