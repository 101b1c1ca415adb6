from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon import Daemon

StartDaemon = Callable[..., Daemon]


@pytest.fixture(scope="session")
def start_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartDaemon]:
    """Starts nodes that live until the end of the session, unless a test stops them."""
    daemons: list[Daemon] = []

    def start(name: str, **options: Any) -> Daemon:
        daemons.append(Daemon(tmp_path_factory.mktemp(name), **options))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.stop()


@pytest.fixture(scope="session")
def publisher(start_daemon: StartDaemon) -> Daemon:
    """A node that others of the session join. It sends at most 16 MiB a second, so that a load takes long enough to read from."""
    return start_daemon("publisher", sets={"lane.bytesPerSecond.up": "16MiB", "hf.listen": "127.0.0.1:0"})


@pytest.fixture(scope="session")
def reader(start_daemon: StartDaemon, publisher: Daemon) -> Daemon:
    """Another node of the same swarm, which holds nothing at first. It logs all there is to log."""
    return start_daemon("reader", join=publisher.invite(), sets={"hf.listen": "127.0.0.1:0", "log.level": "debug"})


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees a daemon, a cache or a token of the user's."""
    for name in ("SHOAL_API", "SHOAL_DATA", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
