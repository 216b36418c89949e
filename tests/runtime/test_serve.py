"""The HTTP service: what it answers, what it keeps, and the status of everything that is wrong."""

from __future__ import annotations

import http.client
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from adcompile.cli import main
from adcompile.errors import UsageError
from adcompile.runtime.bundle import Bundle, load
from adcompile.runtime.executor import Array
from adcompile.runtime.runner import RunResult
from adcompile.runtime.serve import make_server
from adcompile.runtime.service import Kept, Service
from tests.check import handmade


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade.write_bundle(tmp_path_factory.mktemp("served") / "cells")


def photo(seed: int = 5) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


class Client:
    """Requests to one server; every answer is JSON."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "image/png"
    ) -> tuple[int, object]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": kind} if body is not None else {}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        found: object = json.loads(answer.read())
        connection.close()
        return answer.status, found

    def record(self, method: str, path: str, body: bytes | None = None) -> dict[str, object]:
        status, found = self.ask(method, path, body)
        assert status == 200, found
        assert isinstance(found, dict)
        return cast("dict[str, object]", found)


@contextmanager
def served(bundle: Path, kept: Kept | None = None) -> Generator[Client]:
    with (
        load(bundle) as opened,
        make_server(Service({"cells": opened}, kept), "127.0.0.1", 0) as s,
    ):
        thread = threading.Thread(target=s.serve_forever, daemon=True)
        thread.start()
        yield Client(s.server_address[1])
        s.shutdown()
        thread.join()


def test_models_are_described_and_run(bundle: Path) -> None:
    """The same detections as from Python, for an image and for a tensor."""
    with load(bundle) as opened:
        pixels = np.asarray(Image.open(io.BytesIO(photo())))
        wanted = opened(pixels)["scores"]
        feeds = opened.feeds(pixels)[0]
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, **feeds)
    with served(bundle) as client:
        status, listed = client.ask("GET", "/models")
        assert (status, listed) == (
            200,
            [{"name": "cells", "target": "cpu:host", "categories": []}],
        )
        told = client.record("GET", "/models/cells")
        assert [spec["name"] for spec in told["inputs"]] == ["image"]  # type: ignore[attr-defined]
        found = client.record("POST", "/models/cells", photo())
        status, same = client.ask("POST", "/models/cells", archive.getvalue(), "application/x-npz")
    assert found["detections_total"] == len(wanted)
    assert "result" not in found
    assert status == 200
    assert isinstance(same, dict)
    assert same["detections_total"] == len(wanted)


def test_requests_at_once_do_not_mix(bundle: Path) -> None:
    """Eight clients with pictures of their own get the answers of one after the other."""
    with served(bundle) as client:

        def ask(number: int) -> dict[str, object]:
            return client.record("POST", "/models/cells", photo(number))

        alone = [ask(number)["detections"] for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            records = list(pool.map(ask, range(8)))
    assert [record["detections"] for record in records] == alone
    assert len({str(detections) for detections in alone}) == 8


def test_one_request_at_a_time_runs_in_a_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions and their buffers are not shared by threads."""
    inside, most = 0, 0
    guard = threading.Lock()
    run = Bundle.run

    def counted(self: Bundle, feeds: Mapping[str, Array], *, category: str = "") -> RunResult:
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
        time.sleep(0.02)
        result = run(self, feeds, category=category)
        with guard:
            inside -= 1
        return result

    monkeypatch.setattr(Bundle, "run", counted)
    with served(bundle) as client, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: client.record("POST", "/models/cells", photo(n)), range(4)))
    assert most == 1


def test_another_hosts_name_is_refused(bundle: Path) -> None:
    """A page of another site whose name resolves to this machine gets nothing."""
    with served(bundle) as client:
        for host, status in (("localhost", 200), ("[::1]:80", 200), ("evil.example:80", 421)):
            connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
            connection.request("GET", "/models", headers={"Host": host})
            assert connection.getresponse().status == status, host
            connection.close()


def test_clients_beyond_the_limit_are_hung_up_on(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent ones take the places; when they leave, others are answered again."""
    monkeypatch.setattr("adcompile.runtime.serve._CLIENTS", 2)
    with served(bundle) as client:
        silent = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(2)]
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            client.ask("GET", "/models")
        for each in silent:
            each.close()
        for _ in range(100):
            try:
                assert client.ask("GET", "/models")[0] == 200
                break
            except (http.client.RemoteDisconnected, ConnectionError):
                time.sleep(0.05)
        else:
            pytest.fail("the places were not given back")


def test_a_body_that_drips_is_given_up(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps a connection from being silent, but not for ever."""
    monkeypatch.setattr("adcompile.runtime.serve._PATIENCE", 0.2)
    with served(bundle) as client, socket.create_connection(("127.0.0.1", client.port)) as slow:
        head = "POST /models/cells HTTP/1.1\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
        slow.sendall(head.encode())
        slow.sendall(b"x")
        time.sleep(0.3)
        slow.sendall(b"x")
        slow.settimeout(30)
        assert slow.recv(100).startswith(b"HTTP/1.1 408")


def test_results_are_kept_read_and_deleted(bundle: Path, tmp_path: Path) -> None:
    """Numbered folders with picture, arrays and drawing; a deleted number is gone."""
    with served(bundle, Kept(tmp_path / "kept")) as client:
        assert client.ask("GET", "/results") == (200, [])
        first = client.record("POST", "/models/cells", photo(1))
        client.record("POST", "/models/cells", photo(2))
        assert client.ask("GET", "/results") == (200, ["000001", "000002"])
        assert client.record("GET", "/results/000001") == first
        assert client.ask("DELETE", "/results/000001")[0] == 200
        assert client.ask("GET", "/results/000001")[0] == 404
        assert client.ask("DELETE", "/results/..%2F..")[0] == 404
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["000002"]
    kept = {p.name for p in (tmp_path / "kept" / "000002").iterdir()}
    assert {"result.json", "input.png", "detections.png", "boxes.npy"} <= kept


def test_only_what_is_asked_for_is_kept(tmp_path: Path) -> None:
    """By the decision; what has none is kept under ``all`` alone."""
    for keep, wanted in (("all", [True, True, True]), ("anomalous", [False, True, False])):
        kept = Kept(tmp_path, keep)
        assert [kept.wants(d) for d in ("normal", "anomalous", None)] == wanted


WRONG = [
    ("GET", "/", None, "", 200),
    ("GET", "/models/other", None, "", 404),
    ("GET", "/nothing", None, "", 404),
    ("GET", "/results", None, "", 404),
    ("DELETE", "/models/cells", None, "", 405),
    ("POST", "/models", b"x", "image/png", 405),
    ("PUT", "/models/cells", b"x", "image/png", 405),
    ("POST", "/models/other", b"x", "image/png", 404),
    ("POST", "/models/cells", b"x", "text/plain", 415),
    ("POST", "/models/cells", b"no picture", "image/png", 400),
    ("POST", "/models/cells?category=shoes", b"x", "image/png", 404),
    ("POST", "/models/cells?min_score=high", b"x", "image/png", 400),
    ("POST", "/models/cells?min_score=nan", b"x", "image/png", 400),
    ("OPTIONS", "/models/cells", None, "", 501),
    ("POST", "/models/cells", b"PK\x03\x04", "application/x-npz", 400),
]


def test_what_is_wrong_has_a_status_and_a_sentence(bundle: Path) -> None:
    """Every error is JSON with what and fix; the server goes on afterwards."""
    with served(bundle) as client:
        for method, path, body, kind, status in WRONG:
            found = client.ask(method, path, body, kind)
            assert found[0] == status, (method, path, found)
            if status != 200:
                assert isinstance(found[1], dict)
                assert found[1]["what"]
        assert client.ask("GET", "/models")[0] == 200


@pytest.mark.parametrize(
    ("length", "status"), [("", "411"), ("-1", "411"), ("99999999999", "413"), ("9" * 40, "413")]
)
def test_lengths_that_lie(bundle: Path, length: str, status: str) -> None:
    """A body is read only when its length is known and small enough."""
    lines = ["POST /models/cells HTTP/1.1", "Host: localhost", "Content-Type: image/png"]
    lines += [f"Content-Length: {length}"] if length else []
    with served(bundle) as client, socket.create_connection(("127.0.0.1", client.port)) as raw:
        raw.sendall("\r\n".join([*lines, "", ""]).encode())
        assert raw.makefile().readline().split()[1] == status


def exchange(port: int, *lines: str) -> str:
    """Everything that the server answers to a raw request before it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        raw.sendall("\r\n".join([*lines, "", ""]).encode())
        return raw.makefile().read()


def test_a_body_is_never_the_next_request(bundle: Path, tmp_path: Path) -> None:
    """A DELETE inside the body of a GET is not done; chunks and two lengths are refused."""
    hidden = ["DELETE /results/000001 HTTP/1.1", "Host: localhost", "", ""]
    length = f"Content-Length: {len(chr(10).join(hidden)) + 3}"
    kind = "Content-Type: image/png"
    with served(bundle, Kept(tmp_path)) as client:
        client.record("POST", "/models/cells", photo())
        text = exchange(
            client.port, "GET /models HTTP/1.1", "Host: localhost", length, "", *hidden
        )
        assert text.count("HTTP/1.1 200") == 1
        assert client.ask("GET", "/results/000001")[0] == 200
        for more in (["Transfer-Encoding: chunked", length], [length, "Content-Length: 5"]):
            text = exchange(client.port, "POST /models/cells HTTP/1.1", kind, *more, "", *hidden)
            assert text.startswith("HTTP/1.1 411")
            assert text.count("HTTP/1.1 ") == 1


def test_a_large_body_is_refused_before_it_is_sent(bundle: Path) -> None:
    """A client that waits for 100 Continue hears at once that it need not send."""
    lines = ["POST /models/cells HTTP/1.1", "Content-Type: image/png", "Expect: 100-continue"]
    with served(bundle) as client:
        text = exchange(client.port, *lines, f"Content-Length: {1 << 30}")
        assert text.startswith("HTTP/1.1 413")
        text = exchange(client.port, *lines, "Connection: close", "Content-Length: 1", "", "x")
    assert text.startswith("HTTP/1.1 100")
    assert "HTTP/1.1 400" in text


def test_nothing_of_this_machine_is_told(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An error names the body, not the file that it was written to; a log has no escape sequences."""
    with caplog.at_level(logging.INFO), served(bundle) as client:
        for kind in ("image/png", "application/x-npy", "application/x-npz"):
            found = client.ask("POST", "/models/cells", b"nothing", kind)[1]
            assert isinstance(found, dict)
            assert found["where"] == "the body"
        exchange(client.port, "GET /\x1b[31m HTTP/1.1", "Host: localhost")
        assert exchange(client.port, "nonsense").endswith("}")
    assert "\\x1b[31m" in caplog.text
    assert "\x1b" not in caplog.text


def test_numbers_that_json_lacks_are_null(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN and infinities would be read by Python alone."""
    record = {"score": float("nan"), "box": [1.5, float("inf")], "parts": ({"x": -np.inf},)}
    monkeypatch.setattr(Service, "model", lambda *_: record)
    with served(bundle) as client:
        found = client.record("GET", "/models/cells")
    assert found == {"score": None, "box": [1.5, None], "parts": [{"x": None}]}


def test_a_result_is_deleted_once(bundle: Path, tmp_path: Path) -> None:
    """By one of eight; unfinished and foreign folders are no results, and a number is not used again."""
    with served(bundle, Kept(tmp_path)) as client:
        client.record("POST", "/models/cells", photo())
        for name in ("000007", "²", "notes"):
            (tmp_path / name).mkdir()
        (tmp_path / "000008").symlink_to(tmp_path / "000001", target_is_directory=True)
        assert client.ask("GET", "/results") == (200, ["000001"])
        with ThreadPoolExecutor(8) as pool:
            asked = pool.map(lambda _: client.ask("DELETE", "/results/000001")[0], range(8))
            assert sorted(asked) == [200, *[404] * 7]
        numbers: list[object] = []
        for _ in range(2):
            number = client.record("POST", "/models/cells", photo())["result"]
            numbers.append(number)
            client.ask("DELETE", f"/results/{number}")
    assert numbers == ["000009", "000010"]


def test_a_defect_is_no_traceback_for_the_client(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets 500 and one sentence, the log the traceback."""

    def broken(*_: object) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr(Service, "model", broken)
    with caplog.at_level(logging.ERROR), served(bundle) as client:
        status, found = client.ask("GET", "/models/cells")
    assert status == 500
    assert "secret" not in json.dumps(found)
    assert "secret path" in caplog.text


def test_the_verb(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says where it listens, answers there, and ends cleanly on Ctrl-C; wrong options are exit 2."""
    # a shell starts what it runs in the background with Ctrl-C ignored
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from adcompile.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "serve", str(bundle), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = "".join(iter(process.stdout.readline, "}\n")) + "}"
        url = json.loads(text)["url"]
        with urllib.request.urlopen(f"{url}/models/cells", timeout=60) as answer:
            assert json.loads(answer.read())["name"] == "cells"
        os.kill(process.pid, signal.SIGINT)
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert main(["serve", str(bundle), "--keep", "some"]) == 2
    assert main(["serve", str(bundle), str(bundle)]) == 2
    assert "two bundles of one name" in capsys.readouterr().err


def test_an_address_that_is_taken(bundle: Path) -> None:
    """A sentence instead of a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with load(bundle) as opened, pytest.raises(UsageError, match="cannot listen"):
            make_server(Service({"cells": opened}), "127.0.0.1", taken.getsockname()[1])
