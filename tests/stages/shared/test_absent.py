"""Folders that a stage fills anew."""

import importlib
from pathlib import Path

import pytest
from support import WriteParams

from stages.kit.errors import StageError
from stages.shared.files.absent import emptied, leave_absent


def test_a_folder_with_what_no_stage_writes_is_left_as_it_is(tmp_path: Path) -> None:
    for name in ("a.npy", "diary.txt"):
        (tmp_path / name).touch()
    with pytest.raises(StageError, match=r"diary\.txt: no stage writes this"):
        emptied(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("stage", "folder"), [("sample", "reverse"), ("interpolate", "interpolation_real")])
def test_it_is_refused_before_the_work(tmp_path: Path, write_params: WriteParams, stage: str, folder: str) -> None:
    """Which would begin with weights: there are none."""
    write_params({})
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "diary.txt").touch()
    main = importlib.import_module(f"stages.{stage}.stage").main
    with pytest.raises(StageError, match=r"diary\.txt: no stage writes this"):
        main(Path("none.safetensors"), changes={}, samples=tmp_path, figures=tmp_path / "figures")


def test_outputs_and_the_note_are_removed(tmp_path: Path) -> None:
    for name in ("a.npy", "b.png", "c.safetensors", "noise_loss.svg", "d.webp", ".a.npy.part"):  # the last: of a kill
        (tmp_path / name).touch()
    leave_absent(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["absent.txt"]
    assert list(emptied(tmp_path).iterdir()) == []
