"""The page as one file to send."""

import base64
import re
import subprocess
import sys

import pytest
from page_inputs import build_page
from support import REPOSITORY


@pytest.fixture
def reports(write_params, tmp_path):
    """A page with all that lies beside it."""
    write_params({})
    return build_page(tmp_path)


def single_page(folder, *arguments):
    command = [sys.executable, "-m", "tools.single_page", *map(str, arguments)]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_one_file_holds_every_picture_and_refers_to_none(reports, tmp_path):
    done = single_page(tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"out/ddpm-church.html: \d\.\d MB, needs no other file\n", done.stdout)
    text = (tmp_path / "out" / "ddpm-church.html").read_text()
    references = re.findall(r"""(?:src|href|srcset)="([^"#]+)|url\(([^)]*)""", text)
    assert len(references) > 15
    assert all("".join(reference).startswith("data:") for reference in references)
    held = [base64.b64decode(data) for data in re.findall(r"data:image/[\w+]+;base64,([\w+/=]+)", text)]
    assert "the repository" in text
    assert {path.read_bytes() for path in (reports / "figures").iterdir()} == set(held)


def test_a_missing_picture_is_one_line_and_nothing_is_written(reports, tmp_path):
    (reports / "figures" / "samples.png").unlink()
    done = single_page(tmp_path, "reports/index.html", "--output", "one.html")
    assert done.returncode == 1
    assert re.fullmatch(r"single_page: error: .*samples.png'\n", done.stderr)
    assert not (tmp_path / "one.html").exists()
