import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the command just runs")

PROBE = """\
import os, sys, time
try:
    print(os.getcwd(), sys.argv[1:], __name__, sorted(sys.modules.keys() & {"numpy", "stages", "torch"}), flush=True)
    if "exit" in sys.argv:
        sys.exit("error: asked to")
    if "kill" in sys.argv:
        os.kill(os.getpid(), 9)
    if "wait" in sys.argv:
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit("interrupted")
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start a shell command in a folder that has a module `probe`."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/probe.py").write_text(PROBE)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}")

    def start(script: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "stages.tools.preloaded", "sh", "-c", script]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **pipes)

    return start


def finish(process: subprocess.Popen) -> tuple[int, str]:
    output, _ = process.communicate()
    return process.returncode, output


@linux
def test_modules_run_where_and_as_they_were_asked_for_with_torch_imported_already(start, tmp_path):
    status, output = finish(start("cd inner && python -m probe 'a b' c && python -c 'print(1)'; exit 3"))
    assert output == f"{tmp_path}/inner ['a b', 'c'] __main__ ['numpy', 'torch']\n1\n"
    assert status == 3


@linux
def test_a_failed_module_fails_with_its_message_and_a_killed_one_fails_too(start):
    status, output = finish(start("cd inner; python -m probe exit > /dev/null; echo $?; python -m probe kill"))
    assert output.splitlines()[:2] == ["error: asked to", "1"]
    assert status not in (0, 1)


@linux
def test_what_one_module_imports_and_changes_the_next_does_not_see(start, tmp_path):
    (tmp_path / "changes.py").write_text("import probe_helper, torch; torch.pi = 3; print(probe_helper.VALUE)")
    (tmp_path / "probe_helper.py").write_text("VALUE = 1")
    (tmp_path / "looks.py").write_text("import probe_helper, torch; print(probe_helper.VALUE, torch.pi > 3)")
    status, output = finish(start("python -m changes && echo VALUE = 22 > probe_helper.py && python -m looks"))
    assert (status, output) == (0, "1\n22 True\n")


@linux
def test_an_interrupt_reaches_the_module_and_ends_without_a_traceback(start):
    process = start("cd inner && python -m probe wait")
    assert "wait" in process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    status, output = finish(process)
    assert status != 0 and "interrupted" in output and "Traceback" not in output
