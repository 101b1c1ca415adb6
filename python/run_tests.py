"""
Runs the tests of this directory with the real clients, each set in an environment of its own that is made when needed and
used again: under $SHOAL_TEST_VENVS, else ~/.cache/shoal-test.

    npm run test:python                          # all of it
    npm run test:python -- torch -k pytorch      # one environment, and arguments for pytest

Needs Python 3.11 or later (the package itself needs 3.10), and a checkout after `npm ci`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TESTS = ROOT / "tests"
#: Of each environment: what it has, and which tests run in it. The first ones run while the last one is installed.
ENVIRONMENTS = {
    "hub-0": ["test_hub.py", "test_upstream.py"],
    "torch": ["."],
}
INSTALL_SECONDS_MAX = 900
TESTS_SECONDS_MAX = 600


def python() -> str:
    """The first Python on the path that is new enough; this one when it is."""
    for name in (sys.executable, "python3.13", "python3.12", "python3.11"):
        found = shutil.which(name)
        if found and subprocess.run([found, "-c", "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"], capture_output=True).returncode == 0:
            return found
    sys.exit("the tests need Python 3.11 or later with its venv module (Debian: apt install python3-venv)")


def environment(name: str, interpreter: str) -> Path:
    """The directory of an environment that has what its requirements say."""
    requirements = TESTS / f"requirements-{name}.txt"
    version = subprocess.run([interpreter, "-VV"], capture_output=True, text=True, check=True).stdout
    key = hashlib.sha256(requirements.read_bytes() + version.encode()).hexdigest()[:12]
    base = Path(os.environ.get("SHOAL_TEST_VENVS") or Path.home() / ".cache" / "shoal-test")
    base.mkdir(parents=True, exist_ok=True)
    directory = base / f"{name}-{key}"
    ready = directory / "ready"
    with open(base / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs make it once
        if ready.exists():
            return directory
        started = time.monotonic()
        print(f"{name}: installing into {directory}", flush=True)
        for old in base.glob(f"{name}-*"):
            shutil.rmtree(old)
        subprocess.run([interpreter, "-m", "venv", directory], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-compile", "--no-deps", "-r", requirements]
        subprocess.run([directory / "bin" / "python", *install], check=True, timeout=INSTALL_SECONDS_MAX)
        ready.touch()
        print(f"{name}: installed in {time.monotonic() - started:.0f} s", flush=True)
        return directory


def run(name: str, directory: Path, arguments: list[str]) -> int:
    started = time.monotonic()
    tests = [str(TESTS / each) for each in ENVIRONMENTS[name]]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONPYCACHEPREFIX": str(directory / "pycache"), "SHOAL_TEST_ENVIRONMENT": name}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # the large packages are compiled once, not in each process
    command = [directory / "bin" / "python", "-m", "pytest", "-p", "no:cacheprovider", *tests, *arguments]
    code = subprocess.run(command, cwd=ROOT, env=env, timeout=TESTS_SECONDS_MAX).returncode
    print(f"{name}: tests took {time.monotonic() - started:.0f} s, exit {code}", flush=True)
    return code


def main(arguments: list[str]) -> int:
    names = list(ENVIRONMENTS)
    if arguments and arguments[0] in ENVIRONMENTS:
        names = [arguments.pop(0)]
    interpreter = python()
    made: dict[str, Path | BaseException] = {}

    def make(name: str) -> None:
        try:
            made[name] = environment(name, interpreter)
        except BaseException as error:
            made[name] = error

    makers = [threading.Thread(target=make, args=(name,)) for name in names]
    for maker in makers:
        maker.start()
    codes = []
    for name, maker in zip(names, makers):
        maker.join()
        directory = made[name]
        if isinstance(directory, BaseException):
            print(f"{name}: could not be installed: {directory}", file=sys.stderr)
            codes.append(1)
        else:
            codes.append(run(name, directory, arguments))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
