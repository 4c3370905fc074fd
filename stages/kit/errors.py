"""The error that a user can mend, and what a message never shows."""

import re


class StageError(Exception):
    """Something the user can mend; the message is one line: what is wrong, where, what would be right."""


def without_credentials(text: str) -> str:
    """TEXT with `***` for the user and password in each address, as in `https://***@example.org`."""
    # Behind a colon that no port follows, a slash belongs to the password, though it shouldn't stand there as it is.
    return re.sub(r"""(?<=://)([^/\s"']*|[^/\s"':]*:(?!\d+/)[^\s"']*)@""", "***@", text)
