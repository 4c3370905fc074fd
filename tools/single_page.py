"""The page as one file to send: every picture that lies beside it is put into it.

`python -m tools.single_page`, or with the page and the file to write: `python -m tools.single_page PAGE --output FILE`
"""

import argparse
import base64
import mimetypes
import re
import sys
from pathlib import Path

from stages.kit.files import write_text

REFERENCE = re.compile(r"""(?:(?<=src=")|(?<=href="))(figures/[^"]+)(?=")|(?<=url\()(figures/[^)]+)(?=\))""")
LINK = re.compile(r"""<a href="\.\./[^"]*">(.*?)</a>""")
"""A link into the repository, which leads nowhere from a file that was sent."""


def single_page(page: Path) -> str:
    """The text of the page with its pictures as data URIs, and links into the repository as words.

    Raises:
        OSError: a picture is missing.
    """

    def inlined(match: re.Match[str]) -> str:
        picture = page.parent / match[0]
        kind = mimetypes.guess_type(picture.name, strict=False)[0]  # Python 3.11 calls WebP non-standard
        return f"data:{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"

    return REFERENCE.sub(inlined, LINK.sub(r"\1", page.read_text(encoding="utf-8")))


def main() -> None:
    """Write the page that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tools.single_page", description=main.__doc__)
    parser.add_argument("page", type=Path, nargs="?", default=Path("reports/index.html"), help="(%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("out/ddpm-church.html"), help="(%(default)s)")
    arguments = parser.parse_args()
    try:
        text = single_page(arguments.page)
        write_text(arguments.output, text)
    except OSError as error:
        sys.exit(f"single_page: error: {error}")
    print(f"{arguments.output}: {len(text) / 1e6:.1f} MB, needs no other file")


if __name__ == "__main__":
    main()
