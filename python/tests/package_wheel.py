"""The package as PyPI would get it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from daemon import ROOT

PYTHON = ROOT / "python"


def build(directory: Path) -> Path:
    """Builds a wheel from a copy of the sources below `directory`, so that the checkout stays as it is."""
    for name in ("pyproject.toml", "README.md", "src"):
        source = PYTHON / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, directory / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", directory / "out", directory]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = (directory / "out").iterdir()
    return wheel
