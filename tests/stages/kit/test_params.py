"""Values as `params.yaml` and options have them."""

import pytest

from ddpm.config import ConfigError
from stages.kit.params import Params, read_params, read_value


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


def test_a_misspelt_key_of_a_model_is_named() -> None:
    values = read_params().values
    tiny = {**values["models"]["tiny"], "log_snr_shfit": -3.0}
    with pytest.raises(ConfigError, match=r"models\.tiny.*log_snr_shfit"):
        Params({**values, "models": {"tiny": tiny}}).model()


def test_a_missing_entry_is_named_beside_one_whose_name_is_a_number() -> None:
    values = read_params().values
    with pytest.raises(ConfigError, match=r"sources\.demo: not there; sources has 2024"):
        Params({**values, "sources": {2024: {}}, "data": "demo"}).source()
