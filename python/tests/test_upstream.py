"""huggingface_hub, unmodified, against nodes that have `hf.upstream` set: to a Hub of our own (test/support/hub.ts), in a process of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import StartDaemon
from daemon import NODE, ROOT, Daemon
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from models import same_files, write_files
from tqdm.auto import tqdm

TOKEN = "hf_" + "AllowedToReadIt" * 2
NAMES = {"config.json": b"{}", "assets/模型 图 (1).png": b"\x89PNG" * 30_000, "with space.txt": b"a\n", "ünïcode.safetensors": b"\1" * 70_000}


class Hub:
    def __init__(self, repos: list[dict[str, Any]]) -> None:
        command = [NODE, str(ROOT / "test" / "support" / "hub-process.ts"), json.dumps(repos)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        told = self._line()
        self.url: str = told["url"]
        self.commits: list[str] = told["commits"]

    def seen(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()

    def stop(self) -> None:
        self._process.communicate(timeout=15)

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line: dict[str, Any] = json.loads(self._process.stdout.readline())
        return line


class Upstream:
    def __init__(self, hub: Hub, source: Path, nodes: list[Daemon]) -> None:
        self.hub, self.source, self.nodes = hub, source, nodes
        self.bytes = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def upstream(start_daemon: StartDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    source = write_files(tmp_path_factory.mktemp("upstream"), 201, megabytes=4)
    named = tmp_path_factory.mktemp("names")
    for name, content in NAMES.items():
        (named / name).parent.mkdir(exist_ok=True)
        (named / name).write_bytes(content)
    hub = Hub(
        [
            {"repo": "org/open", "directory": str(source)},
            {"repo": "org/gated", "directory": str(source), "gated": True, "tokens": [TOKEN]},
            {"repo": "org/names", "directory": str(named)},
        ]
    )
    sets = {"hf.listen": "127.0.0.1:0", "hf.upstream": hub.url, "log.level": "debug", "replication.min": 0, "replication.target": 0}
    first = start_daemon("upstream-1", sets=sets)
    others = [start_daemon(f"upstream-{number}", sets=sets, join=first.invite()) for number in (2, 3)]
    yield Upstream(hub, source, [first, *others])
    for node in (first, *others):
        node.stop()
    hub.stop()


def endpoint(daemon: Daemon) -> str:
    return str(daemon.ready["hf"])


def test_three_nodes_at_once_cost_one_copy(upstream: Upstream, tmp_path: Path) -> None:
    tqdm.get_lock()  # downloads in several threads of one process take it away from each other when the first of them made it
    before = upstream.hub.seen()["fileBytes"]

    def one(number: int) -> bool:
        at = endpoint(upstream.nodes[number % 3])
        return same_files(upstream.source, Path(snapshot_download("org/open", endpoint=at, cache_dir=tmp_path / str(number))))

    with ThreadPoolExecutor(9) as pool:
        assert all(pool.map(one, range(9)))
    assert upstream.hub.seen()["fileBytes"] - before == upstream.bytes
    assert {path.name for path in (tmp_path / "0" / "models--org--open" / "snapshots").iterdir()} == {upstream.hub.commits[0]}
    status = upstream.nodes[0].shoal("status")
    assert status["origin"]["upstream"] == upstream.hub.url
    assert any(link["repo"] == "org/open" and link["origin"]["commit"] == upstream.hub.commits[0] for link in upstream.nodes[0].shoal("links"))


def test_names_that_no_model_can_hold(upstream: Upstream, tmp_path: Path) -> None:
    for number, node in enumerate(upstream.nodes):
        snapshot = Path(snapshot_download("org/names", endpoint=endpoint(node), cache_dir=tmp_path / str(number)))
        assert {str(file.relative_to(snapshot)): file.read_bytes() for file in snapshot.rglob("*") if file.is_file()} == NAMES


def test_what_the_hub_says(upstream: Upstream, tmp_path: Path) -> None:
    at = endpoint(upstream.nodes[0])
    api = HfApi(at)
    assert api.model_info("org/open").sha == upstream.hub.commits[0]
    assert sorted(api.list_repo_files("org/open")) == sorted(str(file.relative_to(upstream.source)) for file in upstream.source.rglob("*") if file.is_file())
    assert [ref.name for ref in api.list_repo_refs("org/open").branches] == ["main"]
    assert HfFileSystem(endpoint=at).exists("org/open/config.json")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/nothing")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("org/open", "config.json", revision="v9", endpoint=at, cache_dir=tmp_path)
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("org/open", "nothing.json", endpoint=at, cache_dir=tmp_path)


def test_gated(upstream: Upstream, tmp_path: Path) -> None:
    for number, node in enumerate(upstream.nodes):
        at = endpoint(node)
        with pytest.raises(GatedRepoError):
            hf_hub_download("org/gated", "config.json", endpoint=at, cache_dir=tmp_path / f"none-{number}", token=False)
        with pytest.raises(GatedRepoError):
            hf_hub_download("org/gated", "config.json", endpoint=at, cache_dir=tmp_path / f"other-{number}", token="hf_SomebodyElse")
        assert same_files(upstream.source, Path(snapshot_download("org/gated", endpoint=at, cache_dir=tmp_path / f"good-{number}", token=TOKEN)))
        HfApi(at, token=TOKEN).auth_check("org/gated")
    seen = upstream.hub.seen()
    assert TOKEN in seen["tokens"] and seen["leaked"] == []
    for node in upstream.nodes:
        assert TOKEN not in node.log()
        assert not [path for path in node.data.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
