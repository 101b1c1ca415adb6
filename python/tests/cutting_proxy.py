from __future__ import annotations

import re
import socket
import threading
from urllib.parse import urlsplit


class CuttingProxy:
    """Between a client and the endpoint: the first answer of a GET of `name` stands still after `after` bytes. Keeps what was asked."""

    def __init__(self, url: str, name: str, after: int) -> None:
        self.asked: list[str] = []
        self._to = urlsplit(url)
        self._name, self._after = name, after
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, socket.create_connection((str(self._to.hostname), int(self._to.port or 80))) as onward:
            head = b""
            while b"\r\n\r\n" not in head:
                if (part := connection.recv(65536)) == b"":
                    return
                head += part
            text = re.sub(r"(?im)^(host|connection): .*\r\n", "", head.decode())
            self.asked.append(text)
            line, _, rest = text.partition("\r\n")
            onward.sendall(f"{line}\r\nHost: {self._to.netloc}\r\nConnection: close\r\n{rest}".encode())
            cut = line.startswith("GET") and self._name in line and sum(each.startswith("GET") and self._name in each for each in self.asked) == 1
            sent = 0
            while (part := onward.recv(65536)) != b"":
                if cut and sent + len(part) > self._after:
                    connection.recv(1)  # silence, until the client has had enough
                    return
                connection.sendall(part)
                sent += len(part)
