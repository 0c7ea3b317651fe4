import base64
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from stages.core import assets
from stages.core.assets import (
    AssetError,
    decoding,
    download,
    fetch_npm_package,
    fetch_wheel,
    find_cache,
    find_npm_url,
    first_that_works,
    run_client,
)
from stages.core.files import StageError
from tests.conftest import ROOT

CONTENT = bytes(itertools.islice(itertools.cycle(range(251)), 7000))
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HTML = (
    "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 26\r\n\r\n<html>please log in</html>"
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty folder for downloads, and patience of fractions of a second."""
    monkeypatch.setenv("NORMALIZATION_HEADS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(assets, "PATIENCE", 0.5)
    monkeypatch.setattr(assets, "RATE", 1000)
    return tmp_path / "cache"


class Server:
    """Answers on 127.0.0.1: `answer(socket, request)` is called for every connection, in a thread of its own."""

    def __init__(self, answer, context=None):
        self.answer, self.requests = answer, []
        listener = socket.create_server(("127.0.0.1", 0))
        self.listener = context.wrap_socket(listener, server_side=True) if context else listener
        self.port = self.listener.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}/file"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except ssl.SSLError:
                continue  # the client does not trust the certificate
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection:
            try:
                request = connection.recv(65_536).decode("latin-1")
                self.requests.append(request)
                self.answer(connection, request)
            except OSError:
                pass  # the client has gone


@pytest.fixture
def serve():
    servers = []

    def start(answer, context=None) -> Server:
        servers.append(Server(answer, context))
        return servers[-1]

    yield start
    for server in servers:
        server.listener.close()


def reply(*parts):
    """An answer that sends the same to everyone, and then closes the connection."""

    def answer(connection, _):
        for part in parts:
            connection.sendall(part.encode() if isinstance(part, str) else part)

    return answer


def head(status="200 OK", length=7000, **headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines) + "\r\n\r\n"


def starts_at(request):
    found = re.search(r"^Range: bytes=(\d+)-\r?$", request, re.M | re.I)
    return int(found[1]) if found else 0


def serve_ranges(connection, request, most=10**9, content=CONTENT):
    """A server that can start in the middle; it closes the connection after `most` bytes of content."""
    start = starts_at(request)
    rest = content[start:]
    status = "206 Partial Content" if start else "200 OK"
    if start >= len(content):
        status, rest = "416 Range Not Satisfiable", b""
    connection.sendall(head(status, len(rest)).encode() + rest[:most])


def trickle(first, byte=b"x", pause=0.1):
    """The beginning of an answer, and then a byte now and again: no read ever takes long."""

    def answer(connection, _):
        connection.sendall(first.encode())
        while True:
            connection.sendall(byte)
            time.sleep(pause)

    return answer


def silent(connection, _):
    connection.recv(1)


def redirect_to_itself(connection, _):
    connection.sendall(head("302 Found", 0, Location="/file").encode())


def test_a_good_file_is_kept_and_not_fetched_again(serve, cache):
    server = serve(reply(head(), CONTENT))
    path = download(server.url, "file", "sha256", DIGEST)
    assert path == cache / "file" and path.read_bytes() == CONTENT
    assert download("http://127.0.0.1:1/unreachable", "file", "sha256", DIGEST) == path
    assert len(server.requests) == 1 and list(cache.glob("*partial*")) == []


FAULTS = {
    "wrong digest": (reply(head(length=5), b"other"), "damaged or truncated"),
    "truncated": (reply(head(), CONTENT[:100]), "the connection broke off"),
    "truncated, of no stated length": (reply("HTTP/1.0 200 OK\r\n\r\n", CONTENT[:100]), "damaged or truncated"),
    "truncated chunk": (
        reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\nabc"),
        "the connection broke off",
    ),
    "404": (reply(head("404 Not Found", 0)), "HTTP 404 Not Found"),
    "500": (reply(head("500 Internal Server Error", 0)), "HTTP 500 Internal Server Error"),
    "407": (reply(head("407 Proxy Authentication Required", 0)), "HTTP 407 Proxy Authentication Required"),
    "a login page": (reply(HTML), "a web page came in place of the file"),
    "no HTTP": (reply("SSH-2.0-OpenSSH_9.6\r\n"), "Bad status line|SSH-2.0|Expected HTTP"),
    "closed at once": (reply(), "the connection broke off"),
    "closed in the headers": (reply("HTTP/1.1 200 OK\r\nContent-Le"), "the connection broke off"),
    "headers of nonsense": (reply("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"), "Content-Length"),
    "endless redirects": (redirect_to_itself, "redirects without end"),
    "redirected to nothing": (reply(head("302 Found", 0)), "HTTP 302 Found"),
    "redirected to another protocol": (reply(head("302 Found", 0, Location="ftp://a/b")), "ftp://a/b is no address"),
    "silent": (silent, "less than 0.5 kB arrived within 0.5 seconds"),
    "trickling content": (trickle(head()), "less than 0.5 kB arrived within 0.5 seconds"),
    "trickling headers": (trickle("HTTP/1.1 200 OK\r\nA: "), "less than 0.5 kB arrived within 0.5 seconds"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_source_that_misbehaves_is_one_line_and_the_next_one_is_tried(serve, cache, capsys, fault):
    answer, message = FAULTS[fault]
    bad, good = serve(answer), serve(reply(head(), CONTENT))
    routes = {
        name: lambda url=server.url: download(url, "file", "sha256", DIGEST)
        for name, server in (("bad", bad), ("good", good))
    }
    started = time.monotonic()
    name, path = first_that_works("data", routes)
    assert name == "good" and path.read_bytes() == CONTENT
    assert time.monotonic() - started < 5
    lines = [line for line in capsys.readouterr().err.splitlines() if "failed" in line]
    assert len(lines) == 1 and re.match(rf"data from bad failed: {re.escape(bad.url)}: .*({message})", lines[0])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/file", "127.0.0.1:1.*refused"),
        ("http://no-such-host.invalid/file", "no-such-host.invalid"),
        ("https://127.0.0.1:{port}/file", "(?i)ssl|certificate"),
        ("no address", "no%20address is no address"),
        ("http://[broken/file", "is no address"),
        ("ftp://127.0.0.1/file", "is no address"),
    ],
)
def test_a_source_that_cannot_be_reached_is_one_line(serve, url, message):
    port = serve(reply("no TLS is spoken here")).port
    with pytest.raises(AssetError, match=message) as caught:
        download(url.format(port=port), "file", "sha256", DIGEST)
    assert len(str(caught.value).splitlines()) == 1


def test_a_certificate_that_nobody_vouches_for_is_one_line(serve, tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate")
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", *options], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with pytest.raises(AssetError, match="(?i)certificate verify failed|self.signed") as caught:
        download(serve(silent, context).url, "file", "sha256", DIGEST)
    assert len(str(caught.value).splitlines()) == 1


def test_a_slow_source_that_keeps_to_the_least_rate_is_waited_for(serve):
    """In all it takes longer than the patience."""

    def answer(connection, _):
        connection.sendall(head().encode())
        for start in range(0, len(CONTENT), 700):
            time.sleep(0.1)
            connection.sendall(CONTENT[start : start + 700])

    assert download(serve(answer).url, "file", "sha256", DIGEST).read_bytes() == CONTENT


def test_a_broken_connection_is_gone_on_with_where_it_broke(serve):
    server = serve(lambda connection, request: serve_ranges(connection, request, most=2000))
    assert download(server.url, "file", "sha256", DIGEST).read_bytes() == CONTENT
    assert [starts_at(request) for request in server.requests] == [0, 2000, 4000, 6000]


def test_a_connection_that_always_breaks_is_given_up(serve):
    server = serve(lambda connection, request: serve_ranges(connection, request, most=10))
    with pytest.raises(AssetError, match="broke off"):
        download(server.url, "file", "sha256", DIGEST)
    assert len(server.requests) == assets.TRIES


def test_what_another_run_left_is_gone_on_with(serve, cache):
    """After a source that went silent."""

    def falls_silent(connection, request):
        connection.sendall(head().encode() + CONTENT[:3000])
        connection.recv(1)

    with pytest.raises(AssetError, match="arrived within"):
        download(serve(falls_silent).url, "file", "sha256", DIGEST)
    server = serve(serve_ranges)
    assert download(server.url, "file", "sha256", DIGEST).read_bytes() == CONTENT
    assert [starts_at(request) for request in server.requests] == [3000]


@pytest.mark.parametrize(
    ("left", "answer"),
    [
        (CONTENT[:3000], reply(head(), CONTENT)),  # it always starts at the beginning
        (b"of another file", serve_ranges),
        (CONTENT + b"too long", serve_ranges),
        (CONTENT, serve_ranges),
    ],
    ids=["ranges ignored", "changed file", "longer than the file", "complete"],
)
def test_what_cannot_be_gone_on_with_is_fetched_from_its_beginning(serve, cache, left, answer):
    cache.mkdir()
    (cache / ".file.partial").write_bytes(left)
    assert download(serve(answer).url, "file", "sha256", DIGEST).read_bytes() == CONTENT


def test_a_login_page_does_not_cost_what_is_there_already(serve, cache):
    cache.mkdir()
    (cache / ".file.partial").write_bytes(CONTENT[:3000])
    with pytest.raises(AssetError, match="web page"):
        download(serve(reply(HTML)).url, "file", "sha256", DIGEST)
    assert (cache / ".file.partial").read_bytes() == CONTENT[:3000]


def test_a_damaged_file_among_the_downloads_is_noticed_and_fetched_again(serve, cache, capsys):
    cache.mkdir()
    (cache / "file").write_bytes(CONTENT[:5000])
    assert download(serve(reply(head(), CONTENT)).url, "file", "sha256", DIGEST).read_bytes() == CONTENT
    assert f"{cache / 'file'} is damaged; it is fetched again" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_a_full_disk_is_one_line(serve, cache):
    cache.mkdir()
    (cache / ".file.partial").symlink_to("/dev/full")
    with pytest.raises(AssetError, match=f"{cache / 'file'}: .*No space left on device"):
        download(serve(reply(head(), CONTENT)).url, "file", "sha256", DIGEST)
    assert not (cache / ".file.partial").exists()


def test_a_folder_that_cannot_be_written_to_is_one_message_that_names_the_variable(tmp_path, monkeypatch, capsys):
    """Once, and not for every source again."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("NORMALIZATION_HEADS_CACHE", str(tmp_path / "file/below"))
    routes = {name: lambda: download("http://127.0.0.1:1/x", "x", "sha256", DIGEST) for name in "ab"}
    with pytest.raises(StageError, match="set the environment variable NORMALIZATION_HEADS_CACHE"):
        first_that_works("data", routes)
    assert capsys.readouterr().err == ""


def test_a_folder_that_can_only_be_read_serves_what_it_has(serve, cache, monkeypatch):
    download(serve(reply(head(), CONTENT)).url, "file", "sha256", DIGEST)

    def refuse(*_, **__):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(assets, "take_lock", refuse)
    assert download("http://127.0.0.1:1/x", "file", "sha256", DIGEST).read_bytes() == CONTENT
    with pytest.raises(StageError, match="Read-only file system; set the environment variable"):
        download("http://127.0.0.1:1/x", "other", "sha256", DIGEST)


def test_downloads_lie_in_the_users_cache_unless_a_variable_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("NORMALIZATION_HEADS_CACHE", "~/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert find_cache() == tmp_path / "elsewhere"
    monkeypatch.delenv("NORMALIZATION_HEADS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    if sys.platform == "linux":
        assert find_cache() == tmp_path / "caches/normalization-heads"
    assert ROOT not in find_cache().parents


def test_of_two_processes_one_fetches_and_the_other_waits(serve, cache):
    asked, go_on = threading.Event(), threading.Event()

    def answer(connection, _):
        connection.sendall(head().encode() + CONTENT[:3000])
        asked.set()
        go_on.wait(30)
        connection.sendall(CONTENT[3000:])

    server = serve(answer)
    code = f"from stages.core.assets import download; download({server.url!r}, 'file', 'sha256', {DIGEST!r})"
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes)
    assert asked.wait(60)
    second = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes)
    assert second.stderr.readline() == "waiting for another process that downloads file\n"
    go_on.set()
    assert (first.communicate()[1].count("waiting"), second.communicate()[1]) == (0, "")
    assert first.returncode == second.returncode == 0
    assert len(server.requests) == 1 and (cache / "file").read_bytes() == CONTENT


@contextmanager
def client(tmp_path, monkeypatch, name, script):
    """A program of this name, first in the PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    yield


posix = pytest.mark.skipif(os.name != "posix", reason="a shell script stands for the program")


@posix
def test_clients_that_are_missing_or_fail_say_so(monkeypatch, tmp_path):
    with pytest.raises(AssetError, match="no-such-client is not installed; get it"):
        run_client(["no-such-client"], missing="get it")
    with pytest.raises(AssetError, match="the reason"):
        run_client(["sh", "-c", "echo noise >&2; echo the reason >&2; exit 1"], missing="")
    with pytest.raises(AssetError, match="no reason given"):
        run_client(["sh", "-c", "echo >&2; exit 1"], missing="")
    assert run_client(["sh", "-c", r"printf '\377'"], missing="") == "\ufffd"
    with client(tmp_path, monkeypatch, "no-program", "exit 0"):
        (tmp_path / "bin/no-program").write_bytes(b"\x7fELF")
        with pytest.raises(AssetError, match="no-program: "):
            run_client(["no-program"], missing="")
    monkeypatch.setattr(assets, "CLIENT_PATIENCE", 0.2)
    with pytest.raises(AssetError, match="no answer within 0.2 seconds"):
        run_client(["sleep", "10"], missing="")


@posix
@pytest.mark.parametrize("answer", ["", "null", "[]", "<html>log in</html>", '{"error": 1}', '"file:///x"', "7"])
def test_a_registry_that_answers_with_something_else_is_one_line(tmp_path, monkeypatch, answer):
    with client(tmp_path, monkeypatch, "npm", f"cat << 'END'\n{answer}\nEND"):
        with pytest.raises(AssetError, match=f"no address of a file, but {re.escape(answer) or 'nothing'}"):
            find_npm_url("package", "1.0")


@posix
@pytest.mark.parametrize("form", ["{}", "[{}]"])
def test_a_package_is_fetched_from_where_the_registry_says(serve, cache, tmp_path, monkeypatch, form):
    server = serve(reply(head(), CONTENT))
    with client(tmp_path, monkeypatch, "npm", f"echo '{form.format(json.dumps(server.url))}'"):
        path = fetch_npm_package("package", "1.0", base64.b64encode(hashlib.sha512(CONTENT).digest()).decode())
    assert path == cache / "package-1.0.tgz" and path.read_bytes() == CONTENT


@posix
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 0", "package 1.0 from the Python package index: pip brought no wheel"),
        ('echo other > "$DEST/package-1.0.whl"', "package 1.0 from the Python package index: damaged or truncated"),
        ("echo 'ERROR: no matching distribution' >&2; exit 1", "no matching distribution"),
    ],
)
def test_a_wheel_that_is_not_the_one_is_refused(cache, tmp_path, monkeypatch, script, message):
    with client(tmp_path, monkeypatch, "python", f'while [ "$1" != --dest ]; do shift; done; DEST=$2; {script}'):
        monkeypatch.setattr(sys, "executable", "python")
        with pytest.raises(AssetError, match=message):
            fetch_wheel("package", "1.0", DIGEST)
    assert [path.name for path in cache.iterdir()] == [".package-1.0.whl.lock"]


def test_whatever_a_decoder_raises_is_one_line():
    class Strange(Exception):
        pass

    for error in (KeyError("member"), SyntaxError("broken PNG file"), OSError("no HDF5"), Strange("a\nb"), Strange()):
        with pytest.raises(AssetError, match="^x: damaged, truncated or not a file of y [(].+[)]; get it again$"):
            with decoding("x", "a file of y"):
                raise error


def test_every_failed_source_is_listed(capsys):
    def fail(reason):
        def route():
            raise AssetError(reason)

        return route

    assert first_that_works("data", {"a": fail("no network"), "b": lambda: 7}) == ("b", 7)
    assert "data from a failed: no network" in capsys.readouterr().err
    with pytest.raises(AssetError, match=r"no source of data works:\n  - a: no network\n  - b: no disk"):
        first_that_works("data", {"a": fail("no network"), "b": fail("no disk")})
