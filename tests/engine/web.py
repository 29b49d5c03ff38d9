"""A local web server that stalls, truncates and sends wrong headers on demand."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server does with one request.

    Attributes:
        data: The file; None: 404.
        cut_at: Close the connection after this many bytes of the body.
        stall_at: Stall after this many bytes of the body.
        status: Respond with this error status instead.
        ranges: Whether range requests are supported; otherwise the whole file is sent.
        declared_bytes: A wrong Content-Length; -1: none.
        range_shift: Start the part this many bytes later than requested.
    """

    data: bytes | None = None
    cut_at: int | None = None
    stall_at: int | None = None
    status: int | None = None
    ranges: bool = True
    declared_bytes: int | None = None
    range_shift: int = 0


class Web:
    """The server's script of answers, and a log of its requests."""

    def __init__(self, port: int) -> None:
        """Answer 404 until `serve` or `script` is called."""
        self.url = f"http://127.0.0.1:{port}/network.pth"
        self.request_headers: list[Message] = []  # the headers of each request
        self.stalled = threading.Event()  # set it to continue a stalled answer
        self._answers = [Answer()]

    @property
    def requests(self) -> int:
        """The number of requests."""
        return len(self.request_headers)

    @property
    def requested_ranges(self) -> list[str | None]:
        """The Range header of each request."""
        return [headers.get("Range") for headers in self.request_headers]

    def serve(self, data: bytes, *, cut_at: int | None = None, stall: bool = False) -> None:
        """Serve `data`; close after `cut_at` bytes; with `stall`, stall after the headers."""
        self.script(Answer(data, cut_at=cut_at, stall_at=0 if stall else None))

    def script(self, *answers: Answer) -> None:
        """Give these answers in turn, and repeat the last one."""
        self._answers = list(answers)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one GET."""
        self.request_headers.append(request.headers)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer.data is None or answer.status is not None:
            request.send_error(answer.status or 404)
            return
        start = _start_of_part(answer, request.headers)
        if start is None:
            request.send_response(200)
            body = answer.data
        elif start >= len(answer.data):
            request.send_error(416)
            return
        else:
            request.send_response(206)
            start, total = start + answer.range_shift, len(answer.data)
            request.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            body = answer.data[start:]
        if answer.declared_bytes != -1:
            request.send_header("Content-Length", str(answer.declared_bytes or len(body)))
        if not answer.ranges:
            request.send_header("Accept-Ranges", "none")
        request.end_headers()
        body = body[: answer.cut_at]
        if answer.stall_at is not None:
            request.wfile.write(body[: answer.stall_at])
            self.stalled.wait(60)
            body = body[answer.stall_at :]
        request.wfile.write(body)


def _start_of_part(answer: Answer, headers: Message) -> int | None:
    match = re.fullmatch(r"bytes=(\d+)-", headers.get("Range", ""))
    if match is None or not answer.ranges:
        return None
    return int(match[1])


@contextmanager
def serving() -> Iterator[Web]:
    """Run the server while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # The client may have closed the connection.
            with suppress(ConnectionError):
                web.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web = Web(server.server_port)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="web"
    )
    thread.start()
    try:
        yield web
    finally:
        web.stalled.set()
        server.shutdown()
        thread.join()
        server.server_close()
