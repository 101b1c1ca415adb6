"""Something else than our daemon listens on the socket: errors, not hangs, floods of memory or wrong results."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

import shoal
from shoal import errors

CID = "b" + "a" * 60
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"
FILES = b'{"type":"files","files":[{"path":"a","size":3,"sha256":"00","complete":false,"wanted":true,"localPath":"/nowhere/a"}]}\n'

ANSWERS = {
    "nothing": b"",
    "no http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "endless head line": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    "endless heads": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000,
    "no json": HEAD + b"hello\n",
    "no message": HEAD + b"[]\n",
    "no type": HEAD + b"{}\n",
    "end before files": HEAD,
    "done before files": HEAD + b'{"type":"done","result":{}}\n',
    "half a line": HEAD + FILES[:40],
    "files that are none": HEAD + b'{"type":"files","files":7}\n',
    "a file without a size": HEAD + b'{"type":"files","files":[{"path":"a"}]}\n',
    "a file of negative size": HEAD + FILES.replace(b'"size":3', b'"size":-3'),
    "end after files": HEAD + FILES,
    "a result that is none": HEAD + FILES + b'{"type":"done","result":7}\n',
    "progress that is none": HEAD + FILES + b'{"type":"progress","progress":{"phase":1}}\n{"type":"done","result":7}\n',
    "an error": HEAD + FILES + b'{"type":"error","error":{"name":"DiskError","message":"m","kind":"failed","retryable":true,"fault":"disk"}}\n',
    "an error that is none": HEAD + FILES + b'{"type":"error"}\n',
    "an error status": b'HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n{}',
    "a lying length": b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + FILES,
    "bad chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + FILES,
    "nested deeply": HEAD + b"[" * 200_000 + b"\n",
}


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[socket.socket]:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    server.listen(8)
    yield server
    server.close()


def answer(server: socket.socket, content: bytes) -> None:
    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(content)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1)
                except OSError:
                    pass

    threading.Thread(target=serve, daemon=True).start()


@pytest.mark.parametrize("what", ANSWERS)
def test_strange_answers(what: str, listen: socket.socket) -> None:
    answer(listen, ANSWERS[what])
    with pytest.raises(errors.ShoalError) as raised:
        shoal.load(CID, socket=listen.getsockname())
    assert raised.value.name in ("ApiError", "DaemonUnreachableError", "DiskError"), raised.value


def test_a_line_without_end_does_not_fill_the_memory(listen: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal._http.LINE_BYTES_MAX", 1_000_000)
    answer(listen, HEAD + b'{"' + b"x" * 8_000_000)
    with pytest.raises(errors.ApiError, match="more than"):
        shoal.load(CID, socket=listen.getsockname())
    answer(listen, HEAD + b" " * 3_000_000)
    monkeypatch.setattr("shoal._http.ANSWER_BYTES_MAX", 1_000_000)
    with pytest.raises(errors.ApiError):
        shoal.links(socket=listen.getsockname())


def test_a_file_that_is_not_what_was_said(listen: socket.socket, tmp_path: Path) -> None:
    """The daemon said complete; what stands there is shorter, a directory, or still open for writing."""
    file = tmp_path / "a"
    line = FILES.replace(b"/nowhere/a", str(file).encode()).replace(b'"complete":false', b'"complete":true')
    done = b'{"type":"done","result":{"cid":"x","bytes":3,"seconds":0,"fetchedBytes":0,"reusedBytes":0,"duplicateBytes":7,"peers":{}}}\n'
    answer(listen, HEAD + line + done)
    with shoal.open(CID, socket=listen.getsockname()) as model:
        assert model.wait(5).duplicate_bytes == 7
        with pytest.raises(errors.ModelNotFoundError):
            model.file("a").read()
        file.write_bytes(b"ab")
        with pytest.raises(errors.SourceChangedError):
            model.file("a").read()
        file.write_bytes(b"abc")
        file.chmod(0o444)
        assert model.file("a").read() == b"abc"
        file.unlink()
        file.mkdir()
        with pytest.raises(errors.SourceChangedError):
            model.file("a").read()
        file.rmdir()
        os.mkfifo(file)
        with pytest.raises(errors.SourceChangedError):
            model.file("a").read()
        file.unlink()
        file.symlink_to("/dev/zero")
        with pytest.raises(errors.SourceChangedError):
            model.file("a").read()


@pytest.mark.parametrize("source", ["a state dict", "a path"])
def test_a_daemon_that_cannot_read_what_was_written_for_it(source: str, listen: socket.socket, tmp_path: Path) -> None:
    """Of a directory that was made here it says what to do; of the user's own it says what the daemon says."""
    error = b'{"name":"UnreadableSourceError","message":"cannot read it (ENOENT)","kind":"failed","retryable":true,"fault":"caller"}'
    answer(listen, HEAD + b'{"type":"error","error":' + error + b"}\n")
    with pytest.raises(errors.UnreadableSourceError, match="ENOENT") as raised:
        shoal.save_model(None, {"w": numpy.ones(1)} if source == "a state dict" else tmp_path, socket=listen.getsockname())
    assert ("directory=" in str(raised.value)) == (source == "a state dict")
