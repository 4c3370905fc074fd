"""Too few images are refused before training, with the parameters to change."""

import pytest
from support import WriteParams

from stages.kit.enough import require_enough
from stages.kit.errors import StageError
from stages.kit.params import read_params


@pytest.mark.parametrize(
    ("train", "held_out", "message"),
    [
        (27, 3, r"^params\.yaml: 3 held-out images are too few: interpolate\.pairs = 8 takes 16, "
                r"evaluate\.neighbourhood = 3 takes 4; raise sources\.folder\.val_fraction = 0\.1"),
        (9, 1, r"1 held-out image is too few: interpolate\.pairs = 8 takes 16"),
        (90, 15, r"15 held-out images are too few: interpolate\.pairs = 8 takes 16; lower this"),
        (7, 16, r"7 training images are too few: evaluate\.neighbourhood = 3 takes 8; lower this, or lower "
                r"sources\.folder\.val_fraction"),
        (5, 16, r"evaluate\.neighbourhood = 3 takes 8; lower sources\.folder\.val_fraction = 0\.1, or add images$"),
    ],
)  # fmt: skip
def test_too_few_images_are_refused_with_what_to_change(
    write_params: WriteParams, train: int, held_out: int, message: str
) -> None:
    write_params({"data": "folder"})
    require_enough(read_params(), 8, 16)
    with pytest.raises(StageError, match=message):
        require_enough(read_params(), train, held_out)


def test_the_number_of_drawn_images_is_named(write_params: WriteParams) -> None:
    write_params({"data": "smoke", "evaluate.neighbourhood": "3"})  # no number: `evaluate` says so
    with pytest.raises(StageError, match=r"or raise sources\.smoke\.val_images = 32, or add images"):
        require_enough(read_params(), 96, 15)
