"""Arrays of images as PNG files and back, without a change of a byte."""

from pathlib import Path

import numpy as np
import pytest
from drawn import churches
from PIL import Image
from support import WriteParams

from stages.extract.config import ExtractConfig
from stages.kit.errors import StageError
from stages.kit.params import read_params
from stages.shared.files.images import image_set, open_images, read_index
from tools import images


@pytest.fixture
def samples(tmp_path: Path, write_params: WriteParams) -> Path:
    """Twelve drawn churches."""
    write_params({})
    np.save(tmp_path / "samples.npy", churches()[:12])
    return tmp_path / "samples.npy"


def test_there_and_back(samples: Path) -> None:
    (Path("png")).mkdir()  # an empty folder is as good as none
    images.main(samples, Path("png"))
    assert sorted(path.name for path in Path("png").iterdir())[::11] == ["000000.png", "000011.png"]
    with Image.open("png/000007.png") as image:
        assert image.mode == "RGB"
        assert np.array_equal(np.array(image), churches()[7])
    Path("png/notes.txt").write_text("passed over")
    images.main(Path("png"), Path("back"))
    assert Path("back/samples.npy").read_bytes() == samples.read_bytes()
    array, table = image_set(Path("back"), "samples")
    opened = open_images(array, table)
    assert opened.preprocessing == read_params().section(ExtractConfig, "extract").name
    assert read_index(table)["file"][3] == "000003.png"


def test_nothing_is_overwritten_or_left_half_done(samples: Path) -> None:
    images.main(samples, Path("png"))
    before = sorted(Path("png").iterdir())
    with pytest.raises(StageError, match="png isn't empty"):
        images.main(samples, Path("png"))
    Path("png/000011.png").write_bytes(b"no image")
    with pytest.raises(StageError, match=r"000011\.png: no image in a known format"):
        images.main(Path("png"), Path("back"))
    assert sorted(Path("png").iterdir()) == before
    assert {path.name for path in Path().iterdir()} == {"params.yaml", "samples.npy", "png"}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 8, 8, 3), np.uint8), r"uint8 \[2, 3, 8, 8, 3\]; must be one array of uint8"),
        (np.zeros((2, 8, 8, 3)), r"float64 \[2, 8, 8, 3\]; must be"),
        (np.array([{}]), "no array in NumPy's format"),
    ],
)
def test_what_is_no_array_of_images_is_named(samples: Path, array: np.ndarray, message: str) -> None:
    np.save("other.npy", array)
    with pytest.raises(StageError, match=message):
        images.main(Path("other.npy"), Path("png"))
    assert not Path("png").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04"])
def test_a_file_that_was_cut_off_is_named(samples: Path, content: bytes) -> None:
    samples.write_bytes(content)
    with pytest.raises(StageError, match=r"samples\.npy: no array in NumPy's format"):
        images.main(samples, Path("png"))


def test_a_folder_that_can_not_be_compared_is_named(samples: Path) -> None:
    Path("theirs").mkdir()
    with pytest.raises(StageError, match="theirs: no PNG files"):
        images.main(Path("theirs"), Path("back"))
    Image.new("RGB", (64, 32)).save("theirs/a.png")
    with pytest.raises(StageError, match=r"a\.png: 64 x 32 pixels; params\.yaml has extract\.size = 48"):
        images.main(Path("theirs"), Path("back"))
