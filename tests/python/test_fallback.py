"""What a host does where the library lacks the classes: its import fails, and it says nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import host
import pytest
from host import Pair

IMPORT = "import tensorrt_llm.tensorrt_llm_transfer_agent_binding"

# The choice as the host makes it: any ImportError counts as "not there".
CHOICE = """
def load(name):
    try:
        return __import__(name, fromlist=["NixlTransferAgent"])
    except ImportError:
        return None
print("binding" if load("tensorrt_llm.tensorrt_llm_transfer_agent_binding") else "fallback")
"""


def package() -> Path:
    """The package that this run uses."""
    return Path(host.binding.__file__).parent


def run(code: str, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": f"{path}:{Path(__file__).parent}"} | environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, to be spoiled."""
    shutil.copytree(package(), tmp_path / "tensorrt_llm", symlinks=True)
    return tmp_path


@pytest.fixture
def factories_only(copy: Path) -> Path:
    """The package with a library that has the factories alone."""
    wrapper = copy / "tensorrt_llm/libs/libtensorrt_llm_nixl_wrapper.so"
    wrapper.unlink()
    shutil.copy(os.environ["FACTORIES_ONLY_WRAPPER"], wrapper)
    return copy


def test_without_the_classes_the_import_fails(factories_only: Path) -> None:
    done = run(IMPORT, factories_only)
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "undefined symbol: _Z" in done.stderr
    assert "Nixl" in done.stderr


def test_without_the_classes_the_host_falls_back_in_silence(factories_only: Path) -> None:
    done = run(CHOICE, factories_only)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fallback\n", "")


def test_with_the_classes_it_does_not() -> None:
    done = run(CHOICE, package().parent)
    assert (done.returncode, done.stdout) == (0, "binding\n")


def test_a_host_without_a_version_is_told_by_its_symbols_or_refused(copy: Path) -> None:
    (copy / "tensorrt_llm/version.py").unlink()
    done = run("import host; host.Pair().write().wait()", copy, TRTLLM_NIXL_INTERFACE="lo")
    if host.HAS_SERIALIZE:
        assert done.returncode == 0, done.stderr
        assert 'found_by="its marker symbols"' in done.stderr
    else:
        assert "RuntimeError: [baton] cannot tell the version of TensorRT-LLM" in done.stderr


def test_a_host_that_is_too_new_is_refused(copy: Path) -> None:
    (copy / "tensorrt_llm/version.py").write_text('__version__ = "1.9.0"\n')
    done = run("import host; host.agent('ctx')", copy)
    assert "RuntimeError: [baton] TensorRT-LLM 1.9.0 is newer than 1.4.0rc1" in done.stderr
    done = run("import host; host.agent('ctx')", copy, BATON_TRTLLM_ABI="p4")
    assert ("RuntimeError" in done.stderr) == (not host.HAS_BOUNCE) or done.returncode == 0


def test_the_library_in_use_is_ours(pair: Pair) -> None:
    assert pair.write().wait() == host.SUCCESS
    wrappers = {line.split()[-1] for line in open("/proc/self/maps") if "nixl_wrapper" in line}
    assert wrappers == {os.path.realpath(package() / "libs/libtensorrt_llm_nixl_wrapper.so")}
