"""A small web server on this machine that serves, stalls, truncates and lies on demand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web:
    """What the server answers."""

    def __init__(self, port: int) -> None:
        """Answer 404 until told what to serve."""
        self.url = f"http://127.0.0.1:{port}/network.pth"
        self.requests = 0
        self.stalled = threading.Event()  # set to let a stalled answer go on
        self._data: bytes | None = None
        self._cut_at: int | None = None
        self._stall = False

    def serve(self, data: bytes, *, cut_at: int | None = None, stall: bool = False) -> None:
        """Serve `data`; break off after `cut_at` bytes; say nothing after the headers."""
        self._data, self._cut_at, self._stall = data, cut_at, stall

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one GET."""
        self.requests += 1
        if self._data is None:
            request.send_error(404)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(self._data)))
        request.end_headers()
        if self._stall:
            self.stalled.wait(10)
        else:
            request.wfile.write(self._data[: self._cut_at])


@contextmanager
def serving() -> Iterator[Web]:
    """Run the server while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web = Web(server.server_port)
    thread = threading.Thread(target=server.serve_forever, name="web")
    thread.start()
    try:
        yield web
    finally:
        web.stalled.set()
        server.shutdown()
        thread.join()
        server.server_close()
