"""A web server on 127.0.0.1 with TLS that does as a test tells it."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers GET by the site's answer for the path."""

    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        self.site.requests.append((self.path, dict(self.headers.items())))
        answer = self.site.answers.get(self.path.partition("?")[0])
        if answer is None:
            self.send_error(404)
        else:
            answer(self)

    def start(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def break_off(self) -> None:
        """Close the connection without finishing the answer."""
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Site:
    """The server, its answers by path, and the requests that it got."""

    def __init__(self, folder: Path) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.released = threading.Event()
        certificate, key = _certificate(folder)
        handler = type("SiteHandler", (Handler,), {"site": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = False
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.trust = ssl.create_default_context(cafile=str(certificate))
        self.port = self._server.server_address[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def ranges(self, path: str) -> list[str | None]:
        """The Range header of each request for a path."""
        return [headers.get("range") for asked, headers in self.requests if asked == path]


def serving(
    content: bytes, *, etag: str | None = '"v1"', break_after: list[int] | None = None
) -> Answer:
    """Serve content, with ranges if it has an entity tag.

    Args:
        content: The file.
        etag: Its entity tag.
        break_after: For each of the first requests, after how many bytes the connection breaks.
    """
    breaks = list(break_after or [])

    def answer(handler: Handler) -> None:
        first = 0
        wanted = handler.headers.get("range")
        if wanted and etag and handler.headers.get("if-range") == etag:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Length": str(len(content) - first)}
        if etag:
            headers["ETag"] = etag
        if first >= len(content) and first:
            handler.start(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(content)}"})
            return
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        handler.start(206 if first else 200, headers)
        if breaks:
            handler.wfile.write(content[first : first + breaks.pop(0)])
            handler.break_off()
        else:
            handler.wfile.write(content[first:])

    return answer


def redirecting(location: str, status: int = 302) -> Answer:
    """Redirect to another place."""

    def answer(handler: Handler) -> None:
        handler.start(status, {"Location": location, "Content-Length": "0"})

    return answer


def answering(status: int, headers: dict[str, str], body: bytes = b"") -> Answer:
    """Answer with a status, headers and a body."""

    def answer(handler: Handler) -> None:
        handler.start(status, {"Content-Length": str(len(body))} | headers)
        handler.wfile.write(body)

    return answer


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "site.crt", folder / "site.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_file, key_file
