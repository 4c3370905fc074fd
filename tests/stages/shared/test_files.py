"""Files that stages hand on: what is read must be what it should, and what others have put beside it stays."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support import REPOSITORY

from stages.kit.errors import StageError
from stages.shared.files.formats import read_backbone, write_npy, write_safetensors
from stages.shared.files.latents import open_latents
from stages.shared.training.jobs import write_weights


def test_what_is_no_backbone_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    with pytest.raises(StageError, match=r"README\.md: no file of weights"):
        read_backbone(REPOSITORY / "README.md")
    write_safetensors(file, {"a": torch.zeros(1)}, {})
    with pytest.raises(StageError, match="not the weights behind LPIPS"):
        read_backbone(file)


@pytest.mark.parametrize("other", [(4, 48, "48-center"), (5, 64, "48-center"), (5, 48, "48-squash")])
def test_latents_of_other_images_are_refused(tmp_path: Path, other: tuple[int, int, str]) -> None:
    write_npy(tmp_path / "train.npy", np.zeros((5, 2, 4, 12, 12), np.float32))
    made = {"size": 48, "image_recipe": "48-center"}
    write_safetensors(tmp_path / "autoencoder.safetensors", {"a": torch.zeros(1)}, made)
    assert open_latents(tmp_path, 5, 48, "48-center").array.shape == (5, 2, 4, 12, 12)
    with pytest.raises(StageError, match=r"latents of 5 images of 48 px \(48-center\), not of "):
        open_latents(tmp_path, *other)


def test_new_weights_replace_averages_alone(tmp_path: Path) -> None:
    """Not what `tools.import_diffusers` or a user has put there."""
    for name in ("theirs", "ema_0.5"):
        (tmp_path / f"{name}.safetensors").touch()
    write_weights(tmp_path, {0.0: torch.nn.Linear(1, 1)}, {})
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["raw", "theirs"]
