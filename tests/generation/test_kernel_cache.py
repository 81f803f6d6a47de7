"""The library of the kernels in the cache: what is there is whole, or it is built anew."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.generation import kernels
from groundup.machine.device import has_compiler


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")
def test_half_a_library_is_built_anew(tmp_path: Path) -> None:
    """The loader would end the process by a signal."""
    found: list[bytes] = []
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", "from groundup.generation.kernels import *; load_kernels()"],
            env=os.environ | {"GROUNDUP_CACHE": str(tmp_path)},
            timeout=120,
            check=True,
        )
        (library,) = (tmp_path / "kernels").iterdir()
        found.append(library.read_bytes())
        library.write_bytes(found[-1][: len(found[-1]) // 2])
    assert found[0] == found[1]


def test_the_compiler_may_have_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = -O1 ] || exit 1\nwhile [ "$1" != -o ]; do shift; done\ntouch "$2"\n'
    )
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", f"{compiler} -O1")
    built = kernels._build(tmp_path / "kernels" / "library.so")
    assert built.is_file()
    assert kernels._built(tmp_path / "kernels" / "library.so") == built
