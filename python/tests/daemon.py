"""Nodes for the tests: real daemons in processes of their own, stopped by their ids."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_BUNDLED = ROOT / "node_modules" / ".bin" / "node"
#: `npm ci` brings a new enough one along for most machines.
NODE = str(_BUNDLED) if _BUNDLED.exists() else "node"
BIN = str(ROOT / "src" / "cli" / "bin.js")
READY_SECONDS_MAX = 60


class Daemon:
    """One node. `data` is a directory of its own unless given; `sets` are configuration keys (config/default.jsonc)."""

    def __init__(self, directory: Path, *, join: str | None = None, sets: dict[str, Any] | None = None) -> None:
        self.data = directory
        self.socket = str(directory / "api.sock")
        self._log = tempfile.TemporaryFile("w+")
        self._arguments = [f"--set={key}={value}" for key, value in (sets or {}).items()]
        self._join = join
        self.start()

    def start(self) -> None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("SHOAL_")}
        env.setdefault("NODE_COMPILE_CACHE", str(Path(tempfile.gettempdir()) / "shoal-compile-cache"))
        if self._join is not None:
            env["SHOAL_JOIN"] = self._join
        command = [NODE, BIN, "--data", str(self.data), "--json", "daemon", "--listen", "/ip4/127.0.0.1/tcp/0", *self._arguments]
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log, text=True, start_new_session=True)
        watchdog = threading.Timer(READY_SECONDS_MAX, self.process.kill)
        watchdog.start()
        try:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        if line == "":
            self.process.wait()
            raise AssertionError(f"the daemon ended before it was ready: {self.log()[-8_000:]}")
        self.ready: dict[str, Any] = json.loads(line)

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def invite(self) -> str:
        return str(self.shoal("invite")["invite"])

    def shoal(self, *arguments: str, env: dict[str, str] | None = None) -> Any:
        """What a command of the command line answers, as JSON."""
        done = subprocess.run(
            [NODE, BIN, "--data", str(self.data), "--json", *arguments], capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})}
        )
        assert done.returncode == 0, f"shoal {' '.join(arguments)} exits {done.returncode}: {done.stderr}"
        return json.loads(done.stdout)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def kill(self) -> None:
        """SIGKILL: nothing is closed, synced or said goodbye to."""
        self.stop(signal.SIGKILL)
