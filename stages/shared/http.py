"""One HTTP request at a time: what a server may answer, and which of its failures may pass."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests
from urllib3.exceptions import HTTPError

CHUNK_BYTES = 1 << 16  # bytes taken from the connection at a time, at most
TIMEOUT = (15.0, 60.0)  # seconds to connect, seconds without a byte


class LostError(Exception):
    """An attempt failed in a way that may pass; `wait` is how many seconds the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


class RefusedError(Exception):
    """A mirror doesn't deliver; the message says why."""


def ask(url: str, start: int) -> requests.Response:
    """Ask for `url` from byte `start` on."""
    headers = {"Accept-Encoding": "identity"}  # as stored: the server's bytes are counted and digested
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        return requests.get(url, stream=True, timeout=TIMEOUT, headers=headers)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise LostError(_reason(error)) from None
    except (requests.RequestException, HTTPError, ValueError) as error:  # a malformed address, too many redirects
        raise RefusedError(_reason(error)) from None


def require_success(response: requests.Response, start: int) -> None:
    """Hold `response`, to a request from byte `start` on, to a status that has something to tell.

    Raises:
        LostError: one of those that may pass.
        RefusedError: any other.
    """
    status = response.status_code
    answer = f"the server answers {status} {response.reason}"
    if status in (408, 429) or status >= 500:
        raise LostError(answer, _seconds(response.headers.get("Retry-After", "")))
    if status not in (200, 206) and not (status == 416 and start):
        raise RefusedError(answer)


def _seconds(retry_after: str) -> float:
    """What a Retry-After header asks for, in seconds or as a date."""
    try:
        if re.fullmatch(r"[0-9]{1,9}", retry_after):
            return float(retry_after)
        return (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def extent(response: requests.Response) -> tuple[int | None, int | None]:
    """The first byte that `response` carries, if any, and the size of the whole file, if it says so."""
    length = response.headers.get("Content-Length")
    if length is not None and not re.fullmatch(r"[0-9]{1,18}", length):
        raise RefusedError(f"a useless Content-Length: {length!r}")
    if response.status_code == 200:
        return 0, None if length is None else int(length)
    stated = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)", stated)
    if not found:
        return None, None
    first, total = (int(digits) if digits and digits != "*" else None for digits in found.groups())
    return (None, None) if first is not None and total is not None and first >= total else (first, total)


def read(response: requests.Response) -> bytes:
    """What has arrived, as soon as it has: a connection that is lost afterwards doesn't take it along."""
    try:
        return response.raw.read1(CHUNK_BYTES, decode_content=False)
    except HTTPError as error:
        raise LostError(_reason(error)) from None


def _reason(error: Exception) -> str:
    """The innermost cause in a few words."""
    cause = error.args[0] if error.args else error
    cause = getattr(cause, "reason", cause)
    words = " ".join(str(cause.args[0] if isinstance(cause, Exception) and cause.args else cause).split())
    return re.sub(r"^.*?[)>]: ", "", words) or type(error).__name__  # without urllib3's name of the connection
