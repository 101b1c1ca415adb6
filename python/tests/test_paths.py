"""The socket is looked for where the command line looks (src/api/paths.ts)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from daemon import NODE, ROOT

from shoal._paths import socket_path
from shoal.errors import ConfigError

ENVIRONMENTS = [
    {},
    {"SHOAL_API": "/run/x.sock", "SHOAL_DATA": "/srv/shoal"},
    {"SHOAL_API": "", "SHOAL_DATA": "/srv/shoal"},
    {"SHOAL_DATA": "relative/data"},
    {"SHOAL_API": "relative.sock"},
    {"SHOAL_DATA": "", "XDG_DATA_HOME": "/xdg"},
    {"XDG_DATA_HOME": "relative/xdg"},
    {"XDG_DATA_HOME": "", "HOME": "/home/somebody"},
]


def test_as_the_command_line_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    script = "const { defaultSocketPath } = await import(process.argv[1]); console.log(JSON.stringify(JSON.parse(process.argv[2]).map(env => defaultSocketPath(env))))"
    paths = ROOT / "src" / "api" / "paths.ts"
    told = subprocess.run([NODE, "--input-type=module", "-e", script, str(paths), json.dumps(ENVIRONMENTS)], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert [socket_path(None, env) for env in ENVIRONMENTS] == json.loads(told.stdout)


def test_an_argument_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_API", "/run/x.sock")
    assert socket_path("/tmp/given.sock") == "/tmp/given.sock"
    assert socket_path(Path("given.sock")) == os.path.abspath("given.sock")
    assert socket_path() == "/run/x.sock"


@pytest.mark.parametrize("path", ["/" + "x" * 107, "/tmp/a\0b"])
def test_what_no_socket_can_be_called(path: str) -> None:
    with pytest.raises(ConfigError):
        socket_path(path)
