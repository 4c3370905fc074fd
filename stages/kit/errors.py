"""The error that a user can mend."""


class StageError(Exception):
    """Something the user can mend; the message is one line: what is wrong, where, what would be right."""
