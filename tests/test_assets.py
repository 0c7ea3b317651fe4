import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stages.lib import assets
from stages.lib.assets import AssetError, download, first_that_works, run_client

CONTENT = b"weights" * 1000


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path == "/stalls":
            self.wfile.write(CONTENT[:10])
            self.server.release.wait(30)
        else:
            self.wfile.write(CONTENT[:100] if self.path == "/truncated" else CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.release = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.release.set()
    server.shutdown()


DIGEST = hashlib.sha256(CONTENT).hexdigest()


def test_a_good_file_is_kept_and_not_fetched_again(server, tmp_path):
    path = download(f"{server}/good", tmp_path / "file", "sha256", DIGEST)
    assert path.read_bytes() == CONTENT
    assert download("http://127.0.0.1:1/unreachable", path, "sha256", DIGEST) == path


@pytest.mark.parametrize(
    ("page", "digest", "message"),
    [
        ("good", "0" * 64, "damaged or truncated"),
        ("truncated", DIGEST, "damaged or truncated"),
        ("missing", DIGEST, "Not Found"),
        ("stalls", DIGEST, "timed out"),
    ],
)
def test_a_bad_download_is_refused_and_leaves_nothing(server, tmp_path, monkeypatch, page, digest, message):
    monkeypatch.setattr(assets, "TIMEOUT", 0.5)
    with pytest.raises(AssetError, match=message):
        download(f"{server}/{page}", tmp_path / "file", "sha256", digest)
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_server_is_one_clear_message(tmp_path):
    with pytest.raises(AssetError, match="127.0.0.1:1/file.*refused"):
        download("http://127.0.0.1:1/file", tmp_path / "file", "sha256", DIGEST)


def test_clients_that_are_missing_or_fail_say_so():
    with pytest.raises(AssetError, match="no-such-client is not installed; get it"):
        run_client(["no-such-client"], missing="get it")
    with pytest.raises(AssetError, match="the reason"):
        run_client(["sh", "-c", "echo noise >&2; echo the reason >&2; exit 1"], missing="")


def test_every_failed_source_is_listed(capsys):
    def fail(reason):
        def route():
            raise AssetError(reason)

        return route

    assert first_that_works("data", {"a": fail("no network"), "b": lambda: 7}) == ("b", 7)
    assert "data from a failed: no network" in capsys.readouterr().err
    with pytest.raises(AssetError, match=r"no source of data works:\n  - a: no network\n  - b: no disk"):
        first_that_works("data", {"a": fail("no network"), "b": fail("no disk")})
