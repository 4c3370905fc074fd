"""LSUN's server on the loopback interface, as bad as a test asks for, and zips in its layout."""

import re
import socket
import struct
import sys
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def lsun_zip(path: Path, members: list[str], content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in members:
            file.writestr(member, content)
    return path


@dataclass(frozen=True)
class Fault:
    """What is wrong with one answer; the default is a right one."""

    status: int | None = None  # this status and no content
    headers: Mapping[str, str | None] = field(
        default_factory=dict
    )  # instead of the right ones; None: left out; may name {start} and {total}
    content: bytes | None = None  # another file
    ranges: bool = True  # False: everything from the start, whatever was asked for
    length: int = 0  # added to the Content-Length
    drop: int | None = None  # the body ends after so many bytes
    ending: str = "close"  # what then becomes of the connection: "close", "reset", or "stall" (nothing, for good)


class Server(ThreadingHTTPServer):
    """LSUN's server on the loopback interface.

    Each request for a path takes the next of its `faults`; without one, the answer is right.
    """

    daemon_threads = True

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.sent: list[tuple[Fault, int, int]] = []  # of each body: its first byte, and one past its last
        self.pace: tuple[int, float] | None = None  # bytes, and seconds after them
        self.closed = False
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def server_close(self):
        self.closed = True
        super().server_close()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a client that goes away is no error here
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        asked = self.headers["Range"]
        self.server.asked.append((self.path, asked))
        faults = self.server.faults.get(self.path)
        fault = faults.pop(0) if faults else Fault()
        content = self.server.files.get(self.path) if fault.content is None else fault.content
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and fault.ranges else 0
        if fault.status or content is None:
            self._answer(fault.status or 404, {"Content-Length": "0", **fault.headers})
        elif start and start >= len(content):
            self._answer(416, {"Content-Range": f"bytes */{len(content)}"})
        else:
            self._serve(content, start, bool(asked) and fault.ranges, fault)

    def _serve(self, content, start, ranged, fault):
        total = len(content)
        end = min(total, total if fault.drop is None else start + fault.drop)
        self.server.sent.append((fault, start, end))
        headers = {"Content-Length": str(total - start + fault.length)}
        if ranged:
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        changed = {name: value and value.format(start=start, total=total) for name, value in fault.headers.items()}
        self._answer(206 if ranged else 200, {**headers, **changed})
        size, pause = self.server.pace or (total or 1, 0)
        for position in range(start, end, size):
            self.wfile.write(content[position : min(position + size, end)])
            time.sleep(pause)
        if fault.ending == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        while fault.ending == "stall" and not self.server.closed:
            time.sleep(0.02)

    def _answer(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass
