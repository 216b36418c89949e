"""HTTP in front of a :class:`Service`: JSON out, an image in. The standard library's server.

    GET  /models               all models          GET    /results       numbers of kept results
    GET  /models/NAME          one of them         GET    /results/ID    one of them
    POST /models/NAME          the body is run     DELETE /results/ID    it is deleted
         ?category=X&min_score=0.5

Errors are ``{"error", "what", "where", "why", "fix"}`` with 400 (a request that does not fit), 404,
405, 408 (a body that takes too long), 411 and 413 (length missing, too large), 415 (media type), 421
(another host's name), 500 (a defect; its traceback is in the log) or 501 (a method that nothing here
has). There is no authentication: bind it to a trusted network, or to this machine. At an address of
this machine alone only its own names are answered, so that a web page whose name was pointed at it
cannot ask; so many clients are connected at once, and whoever comes then is hung up on.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import parse_qs, unquote, urlsplit

from adcompile.errors import AdcompileError, UsageError
from adcompile.runtime.service import MAX_BODY, SUFFIXES, NotThere, Record, Service

LOG = logging.getLogger("adcompile.serve")
_TIMEOUT = 30.0  # seconds that a silent client may hold a thread
_PATIENCE = 120.0  # and a slow one, with a body
_CLIENTS = 32  # connected at once: each may hold a body of MAX_BODY
_PIECE = 1 << 20


class Refused(UsageError):
    """A request that HTTP has a number for."""

    def __init__(self, status: HTTPStatus, what: str, *, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.status = status


def make_server(service: Service, host: str, port: int) -> ThreadingHTTPServer:
    """A server that answers when its ``serve_forever`` runs; *port* 0 takes a free one.

    Raises UsageError when the address cannot be had.
    """

    class Handler(_Handler):
        """Requests to this service."""

        answers = service

    try:
        return _Server((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise UsageError("cannot listen", where=f"{host}:{port}", why=str(error)) from error


class _Server(ThreadingHTTPServer):
    """A thread for each of a bounded number of clients."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._free = threading.BoundedSemaphore(_CLIENTS)
        super().__init__(address, handler)
        self.only_here = ipaddress.ip_address(str(self.server_address[0])).is_loopback

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Hang up where all are taken."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """The base class's, which closes the connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


class _Handler(BaseHTTPRequestHandler):
    answers: Service
    server_version = "adcompile"
    sys_version = ""
    timeout = _TIMEOUT
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def do_PUT(self) -> None:
        self._answer(self._none)

    do_PATCH = do_PUT

    def _answer(self, act: Callable[[list[str]], object]) -> None:
        """Run *act* on the path's words; whatever it raises is a status and a JSON record."""
        status = HTTPStatus.OK
        try:
            self._check_host()
            words = [unquote(w) for w in urlsplit(self.path).path.split("/") if w]
            found = act(words)
        except AdcompileError as error:
            status, found = _status(error), error.record()
            self.close_connection = True
        except (TimeoutError, ConnectionError):  # the client is silent, or gone
            self.close_connection = True
            return
        except Exception:  # whatever escapes is our defect: the client gets no traceback
            LOG.exception("%s %s", self.command, self.path)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            found = {"error": "Defect", "what": "adcompile has a defect; see the server's log"}
            self.close_connection = True
        # a body that was not read would be read as the next request
        if self.command != "POST" and (
            "Content-Length" in self.headers or "Transfer-Encoding" in self.headers
        ):
            self.close_connection = True
        self._send(status, found)

    def _check_host(self) -> None:
        name = urlsplit("//" + self.headers.get("Host", "localhost")).hostname or ""
        if cast("_Server", self.server).only_here and not is_own(name):
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, f"this is not {name}")

    def _send(self, status: HTTPStatus, found: object) -> None:
        text = json.dumps(_plain(found), default=str, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        """What is no request, or has no method of ours: a record as well, instead of a page."""
        self.close_connection = True
        self.log_error("code %d, message %s", code, message)
        status = HTTPStatus(code)
        self._send(status, Refused(status, message or status.phrase).record())

    def handle_expect_100(self) -> bool:
        """Nothing yet: ``100 Continue`` is sent where the body is read, and not when it is refused."""
        return True

    def _get(self, words: list[str]) -> object:
        match words:
            case [] | ["models"]:
                return self.answers.models()
            case ["models", name]:
                return self.answers.model(name)
            case ["results"] if self.answers.kept is not None:
                return self.answers.kept.names()
            case ["results", name] if self.answers.kept is not None:
                return self.answers.kept.read(name)
            case _:
                raise NotThere("nothing is there", where=self.path, fix="GET /models")

    def _post(self, words: list[str]) -> object:
        match words:
            case ["models", name]:
                self.answers.check(name)
            case _:
                return self._none(words)
        query = parse_qs(urlsplit(self.path).query)
        kind = self.headers.get_content_type()
        if kind not in SUFFIXES:
            raise Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"cannot read {kind}",
                fix="Content-Type is one of " + ", ".join(SUFFIXES),
            )
        category, least = query.get("category", [""])[-1], query.get("min_score", ["0.5"])[-1]
        try:
            min_score = float(least)
        except ValueError:
            raise UsageError(f"min_score {least!r} is no number") from None
        if not 0.0 <= min_score <= 1.0:
            raise UsageError(f"min_score {least} is not in 0 … 1")
        return self.answers.predict(name, self._body(), SUFFIXES[kind], category, min_score)

    def _delete(self, words: list[str]) -> object:
        match words:
            case ["results", name] if self.answers.kept is not None:
                self.answers.kept.remove(name)
                return {"deleted": name}
            case _:
                return self._none(words)

    def _none(self, words: list[str]) -> object:
        """405 where another method would answer, else 404."""
        self._get(words)
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{self.command} is not for {self.path}")

    def _body(self) -> bytes:
        lengths = self.headers.get_all("Content-Length", [])
        text = lengths[0] if len(lengths) == 1 else ""
        # two lengths, or chunks beside a length, are read otherwise by a proxy in front of this
        if not text.isascii() or not text.isdigit() or "Transfer-Encoding" in self.headers:
            raise Refused(
                HTTPStatus.LENGTH_REQUIRED, "one Content-Length is needed, and no chunks"
            )
        if len(text) > 12 or int(text) > MAX_BODY:
            most = MAX_BODY >> 20
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {most} MiB")
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        return self._read(int(text))

    def _read(self, size: int) -> bytes:
        end, body = time.monotonic() + _PATIENCE, bytearray()
        while len(body) < size:
            if time.monotonic() > end:
                raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the body takes too long")
            piece = self.rfile.read1(min(_PIECE, size - len(body)))
            if not piece:
                raise ConnectionError("the client is gone")
            body += piece
        return bytes(body)

    def log_message(self, format: str, *args: object) -> None:
        """To the log instead of stderr; escape sequences of a client are no business of the terminal."""
        text = ascii(format % args)[1:-1]
        LOG.info("%s %s", self.address_string(), text)


def is_own(host: str) -> bool:
    """True for a name or address by which only this machine is reached."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _plain(value: object) -> object:
    """*value* with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in cast("Record", value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in cast("list[object]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _status(error: AdcompileError) -> HTTPStatus:
    if isinstance(error, Refused):
        return error.status
    return HTTPStatus.NOT_FOUND if isinstance(error, NotThere) else HTTPStatus.BAD_REQUEST
