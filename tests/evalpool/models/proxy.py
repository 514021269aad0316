"""A proxy on 127.0.0.1 that connects to wherever it is asked to."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy

    def do_CONNECT(self) -> None:
        self.proxy.requests.append((self.path, self.headers.get("proxy-authorization")))
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as server:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pass_on, args=(server, self.connection))
            back.start()
            _pass_on(self.connection, server)
            back.join()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Proxy:
    """The proxy, and the hosts that it was asked for with what authority."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None]] = []
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("ProxyHandler", (_Handler,), {"proxy": self})
        )
        self._server.daemon_threads = False
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _pass_on(source: socket.socket, destination: socket.socket) -> None:
    try:
        while chunk := source.recv(65536):
            destination.sendall(chunk)
        destination.shutdown(socket.SHUT_WR)
    except OSError:
        return
