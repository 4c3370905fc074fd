"""Values as `params.yaml` and options have them."""

import pytest

from stages.kit.params import read_value


@pytest.mark.parametrize(
    ("text", "listed", "value"),
    [
        ("ddim", False, "ddim"),
        ("1e-3", False, 0.001),
        ("true", False, True),
        ("", False, None),
        ("slerp", True, ["slerp"]),
        ("[lerp, slerp]", True, ["lerp", "slerp"]),
    ],
)
def test_an_option_is_read_as_params_yaml_would_be(text: str, listed: bool, value: object) -> None:
    assert read_value(text, "--option", listed=listed) == value
