"""The package as PyPI would get it, and its types."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import shoal
import package_wheel
from daemon import ROOT
from package_wheel import PYTHON


def test_the_wheel_holds_what_it_should(tmp_path: Path) -> None:
    with zipfile.ZipFile(package_wheel.build(tmp_path)) as opened:
        names = opened.namelist()
        modules = {str(file.relative_to(PYTHON / "src")) for file in (PYTHON / "src" / "shoal").rglob("*") if file.suffix in (".py", ".typed")}
        assert modules <= set(names) and "shoal/py.typed" in modules
        assert {name.split("/")[0] for name in names} == {"shoal", f"shoal-{shoal.__version__}.dist-info"}
        metadata = email.message_from_bytes(opened.read(f"shoal-{shoal.__version__}.dist-info/METADATA"))
        entries = opened.read(f"shoal-{shoal.__version__}.dist-info/entry_points.txt").decode()
    assert metadata["Requires-Python"] == ">=3.10"
    required = metadata.get_all("Requires-Dist", [])
    assert required and all("extra ==" in each for each in required), "something is needed at run time besides Python"
    assert set(metadata.get_all("Provides-Extra", [])) >= {"numpy", "torch", "vllm"}
    assert "[vllm.general_plugins]\nshoal = shoal.vllm:register" in entries


def test_one_version() -> None:
    import json

    assert shoal.__version__ == json.loads((ROOT / "package.json").read_text())["version"]


def test_types() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", "/dev/null"], capture_output=True, text=True, timeout=300, cwd=PYTHON)
    assert done.returncode == 0, done.stdout


def test_all_pythons_that_are_here_compile_it() -> None:
    """3.10 is promised; what of 3.10 to 3.14 is installed imports it."""
    tried = []
    for minor in range(10, 15):
        found = shutil.which(f"python3.{minor}")
        script = f"import sys; sys.path.insert(0, {str(PYTHON / 'src')!r}); import shoal, shoal.aio, shoal.vllm; print(sys.version_info[1])"
        if found is None:
            continue
        done = subprocess.run([found, "-I", "-S", "-B", "-c", script], capture_output=True, text=True, timeout=60)
        if done.returncode == 127:
            continue  # a shim without a Python behind it
        assert done.returncode == 0, done.stderr
        tried.append(int(done.stdout))
    assert sys.version_info[1] in tried or not tried
