"""The file of Inception's weights that `evaluate.inception` names, looked at before any work is done."""

from pathlib import Path

from stages.kit.errors import StageError
from stages.kit.files import digest, path_given
from stages.kit.params import Params

BYTES = 95_628_359
DIGEST = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""SHA-256 of Inception's weights as torch-fidelity converted them from those that FID was first computed with."""


def inception_checked(params: Params) -> Params:
    """PARAMS as they are, once the file that `evaluate.inception` names, if any, is known to be the right one.

    Raises:
        StageError: as `inception_weights`.
    """
    given = params.mapping("evaluate").get("inception")
    if given:
        inception_weights(given)
    return params


def inception_weights(given: str | Path) -> Path:
    """The file at GIVEN, as `path_given` reads it, if it is the one with `DIGEST`.

    Raises:
        StageError: there is no such file, or it is another.
    """
    path = path_given(str(given))
    if not path.is_file():
        wrong = f"no such file (looked for {path.resolve()})"
    elif path.stat().st_size != BYTES:
        wrong = f"{path.stat().st_size:,} bytes, not {BYTES:,}"
    elif (found := digest(path)) != DIGEST:
        wrong = f"its SHA-256 is {found}, not {DIGEST}"
    else:
        return path
    raise StageError(
        f"params.yaml: evaluate.inception = {given}: {wrong}; "
        "take weights-inception-2015-12-05-6726825d.pth, of torch-fidelity's release v0.2.0"
    )
