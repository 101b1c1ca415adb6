"""
huggingface_hub, unmodified, against the endpoint of a node (`hf.listen`). Runs with the newest version and with the last
0.x (run_tests.py). What a test says about a client holds for both unless it asks for the version.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import huggingface_hub
import pytest
from conftest import StartDaemon
from cutting_proxy import CuttingProxy
from daemon import Daemon
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from models import MIB, same_files, write_files

import shoal

NEWEST = int(huggingface_hub.__version__.split(".")[0]) >= 1
UNICODE_REVISION = "gr\u00f6\u00dfe-\u6a21\u578b"


def endpoint(daemon: Daemon) -> str:
    return str(daemon.ready["hf"])


class Tiny:
    """A model in two revisions, linked on the publisher."""

    def __init__(self, publisher: Daemon, directory: Path) -> None:
        self.one = write_files(directory / "one", 101, megabytes=4)
        self.two = write_files(directory / "two", 102, megabytes=4)
        self.cid = shoal.save_model("acme/hub-tiny", self.one, socket=publisher.socket)
        self.second = shoal.save_model("acme/hub-tiny@v2", self.two, socket=publisher.socket)
        shoal.link(f"acme/hub-tiny@{UNICODE_REVISION}", self.second, socket=publisher.socket)
        self.names = sorted(str(file.relative_to(self.one)) for file in self.one.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def tiny(publisher: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(publisher, tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def client(daemon: Daemon, script: str, *arguments: str, env: dict[str, str] | None = None, **options: Any) -> "subprocess.Popen[str]":
    """A process of a user's, who has set HF_ENDPOINT and nothing else."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint(daemon), **(env or {})}
    return subprocess.Popen([sys.executable, "-c", script, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def answer(process: "subprocess.Popen[str]") -> Any:
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


EVERYTHING = """
import json, sys
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
repo = sys.argv[1]
api = HfApi()
info = api.model_info(repo, files_metadata=True)
with HfFileSystem().open(f"{repo}/sub/note.txt") as file:
    note = file.read().decode()
print(json.dumps({
    "path": snapshot_download(repo),
    "one": hf_hub_download(repo, "config.json"),
    "sha": info.sha, "id": info.id, "siblings": [[each.rfilename, each.size] for each in info.siblings],
    "files": api.list_repo_files(repo),
    "refs": [[each.name, each.target_commit] for each in api.list_repo_refs(repo).branches + api.list_repo_refs(repo).tags],
    "exists": [api.repo_exists(repo), api.repo_exists("no/body"), api.file_exists(repo, "config.json"), api.file_exists(repo, "missing"), api.revision_exists(repo, "v2"), api.revision_exists(repo, "v3")],
    "note": note,
}))
"""


def test_one_variable_is_all_a_user_sets(publisher: Daemon, tiny: Tiny) -> None:
    told = answer(client(publisher, EVERYTHING, "acme/hub-tiny"))
    assert same_files(tiny.one, Path(told["path"]))
    assert Path(told["one"]).read_bytes() == (tiny.one / "config.json").read_bytes()
    assert re.fullmatch("[0-9a-f]{40}", told["sha"])
    assert told["id"] == "acme/hub-tiny"
    assert sorted(told["files"]) == tiny.names
    assert sorted(map(tuple, told["siblings"])) == [(name, (tiny.one / name).stat().st_size) for name in tiny.names]
    assert told["exists"] == [True, False, True, False, True, False]
    assert {name for name, _ in told["refs"]} == {"main", "v2", UNICODE_REVISION}
    assert dict(map(tuple, told["refs"]))["main"] == told["sha"]
    assert told["note"] == "seed 101\n"
    # The cache it left is all that is needed now.
    offline = "import sys; from huggingface_hub import snapshot_download; import json; print(json.dumps(snapshot_download(sys.argv[1])))"
    assert answer(client(publisher, offline, "acme/hub-tiny", env={"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1"})) == told["path"]


def test_revisions(publisher: Daemon, tiny: Tiny, cache: Path) -> None:
    at = endpoint(publisher)
    main, second = (HfApi(at).model_info("acme/hub-tiny", revision=revision).sha for revision in ("main", "v2"))
    assert main != second
    for revision, source in (("main", tiny.one), ("v2", tiny.two), (UNICODE_REVISION, tiny.two), (main, tiny.one), (second, tiny.two), (None, tiny.one)):
        assert same_files(source, Path(snapshot_download("acme/hub-tiny", revision=revision, endpoint=at, cache_dir=cache))), revision
    assert sorted(path.name for path in (cache / "models--acme--hub-tiny" / "snapshots").iterdir()) == sorted([main, second])
    with pytest.raises(RevisionNotFoundError):
        snapshot_download("acme/hub-tiny", revision="v3", endpoint=at, cache_dir=cache)
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("acme/hub-tiny", "config.json", revision="0" * 40, endpoint=at, cache_dir=cache)


def test_a_name_that_is_linked_anew_is_new_to_clients(publisher: Daemon, tmp_path: Path, cache: Path) -> None:
    for seed in (103, 104):
        source = write_files(tmp_path / str(seed), seed, megabytes=2)
        shoal.save_model("acme/moving", source, socket=publisher.socket)
        assert same_files(source, Path(snapshot_download("acme/moving", endpoint=endpoint(publisher), cache_dir=cache)))


def test_what_is_missing(publisher: Daemon, tiny: Tiny, cache: Path) -> None:
    at = endpoint(publisher)
    for missing in ("missing.bin", "sub", "sub/missing", "m\u00f6del.bin", "a b.bin", "config.json/x"):
        with pytest.raises(EntryNotFoundError):
            hf_hub_download("acme/hub-tiny", missing, endpoint=at, cache_dir=cache)
    for name in ("no/body", "nobody", "cid/" + "b" * 59):
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download(name, "config.json", endpoint=at, cache_dir=cache)
        with pytest.raises(RepositoryNotFoundError):
            HfApi(at).model_info(name)
    with pytest.raises(RepositoryNotFoundError):
        HfApi(at).list_repo_files("acme/hub-tiny", repo_type="dataset")
    # No such file was written anywhere.
    assert not [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size > 0 and "refs" not in path.parts]


def test_a_cid_is_a_name_on_every_node(tiny: Tiny, reader: Daemon, cache: Path) -> None:
    """The reader neither holds the model nor has a link to it."""
    assert same_files(tiny.one, Path(snapshot_download(f"cid/{tiny.cid}", endpoint=endpoint(reader), cache_dir=cache)))


def test_local_directory_and_patterns(publisher: Daemon, tiny: Tiny, tmp_path: Path) -> None:
    path = Path(snapshot_download("acme/hub-tiny", endpoint=endpoint(publisher), local_dir=tmp_path / "here", allow_patterns=["*.json", "sub/*"]))
    assert (path / "config.json").read_bytes() == (tiny.one / "config.json").read_bytes()
    assert (path / "sub" / "note.txt").exists() and not (path / "a.bin").exists()


def test_file_system(publisher: Daemon, tiny: Tiny) -> None:
    files = HfFileSystem(endpoint=endpoint(publisher))
    assert sorted(files.find("acme/hub-tiny")) == [f"acme/hub-tiny/{name}" for name in tiny.names]
    assert files.glob("acme/hub-tiny/*.bin") == ["acme/hub-tiny/a.bin", "acme/hub-tiny/b.bin"]
    assert files.info("acme/hub-tiny/a.bin")["size"] == 2 * MIB
    assert files.isdir("acme/hub-tiny/sub") and not files.exists("acme/hub-tiny/missing")
    assert [each["name"] for each in files.ls("acme/hub-tiny@v2/sub")] == ["acme/hub-tiny@v2/sub/note.txt"]
    content = (tiny.one / "a.bin").read_bytes()
    with files.open("acme/hub-tiny/a.bin", block_size=65536) as file:
        for offset, length in ((0, 10), (MIB, 70_000), (2 * MIB - 5, 100), (7, 1)):
            file.seek(offset)
            assert file.read(length) == content[offset : offset + length]
    assert files.read_text("acme/hub-tiny/sub/note.txt") == "seed 101\n"


@pytest.mark.skipif(not NEWEST, reason="0.x goes on from a file it finds, see below")
def test_a_download_that_is_cut_off_goes_on(publisher: Daemon, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    source = write_files(tmp_path / "m", 108, megabytes=28)
    cid = shoal.save_model(None, source, socket=publisher.socket)
    proxy = CuttingProxy(endpoint(publisher), "a.bin", 12 * MIB)  # it keeps what it has in steps of 10 MB
    path = hf_hub_download(f"cid/{cid}", "a.bin", endpoint=proxy.url, cache_dir=cache)
    proxy.close()
    assert Path(path).read_bytes() == (source / "a.bin").read_bytes()
    ranges = [match[1] for each in proxy.asked if each.startswith("GET") and "a.bin" in each and (match := re.search(r"(?im)^range: bytes=(\d+)-", each))]
    assert len(ranges) == 1 and int(ranges[0]) >= 10_000_000, "\n".join(proxy.asked)


@pytest.mark.skipif(NEWEST, reason="since 1.x each download begins a file of its own")
def test_a_download_goes_on_where_another_stopped(publisher: Daemon, tiny: Tiny, cache: Path) -> None:
    """The half that is there keeps its bytes, which are marked, so the client fetched only the rest."""
    at, content = endpoint(publisher), (tiny.one / "a.bin").read_bytes()
    path = Path(hf_hub_download("acme/hub-tiny", "a.bin", endpoint=at, cache_dir=cache))
    blob = path.resolve()
    path.unlink()
    incomplete = blob.rename(blob.with_name(blob.name + ".incomplete"))
    with open(incomplete, "r+b") as file:
        file.truncate(len(content) // 2)
        file.write(b"marked")
    again = Path(hf_hub_download("acme/hub-tiny", "a.bin", endpoint=at, cache_dir=cache)).read_bytes()
    assert again[6:] == content[6:]
    assert again[:6] == b"marked", "the client fetched it all again"


def test_a_client_killed_in_mid_download(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    source = write_files(tmp_path / "m", 105, megabytes=32)
    cid = shoal.save_model(None, source, socket=publisher.socket)
    script = "import sys, json; from huggingface_hub import snapshot_download; print(json.dumps(snapshot_download(sys.argv[1])))"
    first = client(reader, script, f"cid/{cid}")
    blobs = Path(os.environ["HF_HOME"]) / "hub" / f"models--cid--{cid}" / "blobs"
    end = time.monotonic() + 60
    while not any(path.stat().st_size > MIB for path in blobs.glob("*.incomplete")):
        assert time.monotonic() < end and first.poll() is None, "the download did not get half-way"
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert same_files(source, Path(answer(client(reader, script, f"cid/{cid}"))))


def get(daemon: Daemon, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(endpoint(daemon)).netloc, timeout=30)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_ranges(publisher: Daemon, tiny: Tiny) -> None:
    path, content = "/acme/hub-tiny/resolve/main/a.bin", (tiny.one / "a.bin").read_bytes()
    size = len(content)
    status, headers, body = get(publisher, path, "HEAD")
    assert (status, body, headers["content-length"], headers["accept-ranges"]) == (200, b"", str(size), "bytes")
    assert re.fullmatch("[0-9a-f]{40}", headers["x-repo-commit"])
    assert re.fullmatch('"[0-9a-f]{64}"', headers["etag"]), headers["etag"]
    assert not [name for name in headers if "xet" in name or name in ("location", "content-encoding", "transfer-encoding")]
    for wanted, first, last in (("0-0", 0, 0), ("5-99", 5, 99), (f"{size - 3}-", size - 3, size - 1), ("-10", size - 10, size - 1), (f"100-{size * 2}", 100, size - 1), ("0-", 0, size - 1)):
        status, headers, body = get(publisher, path, range=f"bytes={wanted}")
        assert (status, headers["content-range"]) == (206, f"bytes {first}-{last}/{size}"), wanted
        assert body == content[first : last + 1]
    status, headers, _ = get(publisher, path, range=f"bytes={size}-")
    assert (status, headers["content-range"]) == (416, f"bytes */{size}")
    assert get(publisher, path)[2] == content


def test_32_clients_at_once(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    """Through a node that only begins to load it."""
    source = write_files(tmp_path / "m", 106, megabytes=16)
    cid = shoal.save_model(None, source, socket=publisher.socket)

    def one(number: int) -> bool:
        return same_files(source, Path(snapshot_download(f"cid/{cid}", endpoint=endpoint(reader), cache_dir=tmp_path / f"cache-{number}", max_workers=2)))

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(one, range(32)))


def test_a_holder_killed_in_mid_get(publisher: Daemon, start_daemon: StartDaemon, tmp_path: Path, cache: Path) -> None:
    source = write_files(tmp_path / "m", 107, megabytes=32)
    cid = shoal.save_model(None, source, replicas=0, socket=publisher.socket)
    slow = {"lane.bytesPerSecond.up": "8MiB"}
    holders = [start_daemon(f"holder{number}", join=publisher.invite(), sets=slow) for number in range(2)]
    for holder in holders:
        shoal.load(cid, socket=holder.socket)
    shoal.Client(publisher.socket).remove(cid)
    front = start_daemon("front", join=publisher.invite(), sets={"hf.listen": "127.0.0.1:0", "transfer.stallTimeoutMs": "3s"})

    def download(into: Path) -> Path:
        return Path(hf_hub_download(f"cid/{cid}", "b.bin", endpoint=endpoint(front), cache_dir=into))

    killer = threading.Timer(0.5, holders[0].kill)
    killer.start()
    assert download(cache).read_bytes() == (source / "b.bin").read_bytes()
    killer.join()
    # Now the last holder: what is not here yet ends with an error, and soon.
    threading.Timer(0.3, holders[1].kill).start()
    started = time.monotonic()
    status: list[Any] = []
    try:
        connection = http.client.HTTPConnection(urlsplit(endpoint(front)).netloc, timeout=60)
        connection.request("GET", f"/cid/{cid}/resolve/main/a.bin")
        response = connection.getresponse()
        status.append(response.status)
        body = response.read()
        status.append(len(body))
        assert response.status >= 500 or body == (source / "a.bin").read_bytes(), "a short answer that looks whole"
    except (http.client.HTTPException, OSError) as error:
        status.append(repr(error))
    finally:
        connection.close()
    assert time.monotonic() - started < 30, status
    front.stop()


@pytest.mark.skipif(not NEWEST, reason="0.x has no `hf cache verify`")
def test_cache_verify(publisher: Daemon, tiny: Tiny, cache: Path) -> None:
    path = Path(snapshot_download("acme/hub-tiny", endpoint=endpoint(publisher), cache_dir=cache))

    def verify() -> "subprocess.CompletedProcess[str]":
        command = [Path(sys.executable).with_name("hf"), "cache", "verify", "acme/hub-tiny", "--cache-dir", cache]
        return subprocess.run(command, env={**os.environ, "HF_ENDPOINT": endpoint(publisher)}, capture_output=True, text=True, timeout=60)

    done = verify()
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("a.bin", "config.json"):  # a large file and a small one: two kinds of checksums
        blob = (path / name).resolve()
        content = blob.read_bytes()
        blob.write_bytes(b"x" + content[1:])
        assert verify().returncode != 0, f"{name} is damaged and verify did not see it"
        blob.write_bytes(content)


def test_addresses_are_quoted(publisher: Daemon, tiny: Tiny) -> None:
    assert get(publisher, f"/acme/hub-tiny/resolve/{quote(UNICODE_REVISION, safe='')}/sub%2Fnote.txt")[2] == b"seed 102\n"
    for bad in ("/acme/hub-tiny/resolve/main/../../../../etc/passwd", "/acme/hub-tiny/resolve/main/%2e%2e/%2e%2e/etc/passwd", "/acme/hub-tiny/resolve/main/%00", "/acme/hub-tiny/resolve/main/%ff"):
        assert get(publisher, bad)[0] in (400, 404)


def test_tokens_are_not_needed_and_not_kept(tiny: Tiny, reader: Daemon, cache: Path) -> None:
    token = "hf_" + "SecretOfSomebodys" * 2
    at = endpoint(reader)
    assert Path(hf_hub_download(f"cid/{tiny.cid}", "config.json", endpoint=at, cache_dir=cache, token=token)).is_file()
    api = HfApi(at, token=token)
    api.auth_check(f"cid/{tiny.cid}")
    assert api.whoami()["name"]
    with pytest.raises(RepositoryNotFoundError):
        api.auth_check("no/body")
    assert token not in reader.log()
    assert not [path for path in reader.data.rglob("*") if path.is_file() and path.stat().st_size < 64 * MIB and token.encode() in path.read_bytes()]
