"""Run a command whose `python -m module` starts with torch imported: `python -m stages.tools.preloaded dvc repro`.

A stage of `make quick` works for seconds, and would first import torch for two; there are 39 of them. Here one process
imports the libraries, and a `python` first in the command's PATH has it fork for every module that is to run. No module
of this repository is imported beforehand: it runs the code that lies in its folder, as in a process of its own.

On Linux only; elsewhere the command just runs, since system libraries of macOS do not survive a fork.
"""

import importlib
import json
import multiprocessing
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

LIBRARIES = """joblib matplotlib.pyplot pandas pydantic.dataclasses scipy.stats torch torch._dynamo
    torch.utils.flop_counter torchvision""".split()
LONGEST_REQUEST = 131_072  # bytes

CLIENT = """\
import json, os, signal, socket, sys
if sys.argv[1:2] != ["-m"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
signal.signal(signal.SIGINT, signal.SIG_IGN)
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    request = json.dumps([dict(os.environ), os.getcwd(), *sys.argv[2:]]).encode()
    socket.send_fds(server, [request], [0, 1, 2])
    sys.exit(json.loads(server.recv(16) or '"the process that imported the libraries is gone"'))
"""


def write_client(folder: Path, address: str) -> None:
    """The program `python`: it asks for a fork, with its surroundings and standard streams, and exits like it.

    A shell starts it, since the path of an interpreter may be too long for a script's first line.
    """
    client, program = folder / "client.py", folder / "python"
    client.write_text(CLIENT.format(python=sys.executable, address=address), encoding="utf-8", newline="\n")
    line = f'exec {shlex.quote(sys.executable)} -IS {shlex.quote(str(client))} "$@"'
    program.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8", newline="\n")
    program.chmod(0o700)


def forget_own_modules() -> None:
    """Another folder's `stages`, which the process that forks came from, is none of the module's that is to run."""
    for name in [name for name in sys.modules if name.split(".")[0] == __package__.split(".")[0]]:
        del sys.modules[name]


def run_module(streams: list[int], environment: dict[str, str], folder: str, *arguments: str) -> None:
    """What `python -m` does, in a process just forked."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv = list(arguments)
    forget_own_modules()
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


Process = multiprocessing.Process
Running = dict[int, tuple[Process, socket.socket]]  # what becomes readable when it ends -> a fork, and who waits for it


def begin(server: socket.socket, running: Running) -> None:
    """Fork for the next request."""
    connection, _ = server.accept()
    request, streams, _, _ = socket.recv_fds(connection, LONGEST_REQUEST, 3)
    process = multiprocessing.get_context("fork").Process(target=run_module, args=(streams, *json.loads(request)))
    process.start()
    for stream in streams:
        os.close(stream)
    running[process.sentinel] = process, connection


def end(process: Process, connection: socket.socket) -> None:
    """Tell the exit status of a fork."""
    process.join()
    with connection:
        connection.sendall(json.dumps(process.exitcode).encode())


def main(command: list[str], libraries: Iterable[str] = LIBRARIES) -> int:
    """The exit status of `command`. An interrupt from the keyboard is left to it and to the modules that run."""
    if sys.platform != "linux":
        return subprocess.call(command)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(f"{folder}/socket")
        server.listen()
        write_client(Path(folder), f"{folder}/socket")
        path = os.pathsep.join([folder, os.environ["PATH"]])
        asking = subprocess.Popen(command, env=os.environ | {"PATH": path})
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for library in libraries:
            importlib.import_module(library)
        ended, running = os.pidfd_open(asking.pid), {}
        while ended not in (ready := select.select([server, ended, *running], [], [])[0]):
            for what in ready:
                begin(server, running) if what is server else end(*running.pop(what))
        return asking.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
