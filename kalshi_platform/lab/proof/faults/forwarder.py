"""A way to a database that is closed until somebody opens it: for a process that is cut off, and then let in."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

_LOOPBACK = "127.0.0.1"
_CHUNK_BYTES = 64 * 1024


class Forwarder:
    """Passes TCP connections of a port of its own on to `target`; refuses them before `let_in`. A context manager."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # Bound and not listening: the port is ours, and who connects is refused.
        self._listener.bind((_LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def let_in(self) -> None:
        """Accept from now on."""
        self._listener.listen()
        threading.Thread(target=self._accept, name="forwarder", daemon=True).start()

    def close(self) -> None:
        """Cut everything."""
        with self._lock:
            self._is_closed = True
            ends, self._open = [*self._open, self._listener], []
        for each in ends:
            _end(each)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection((_LOOPBACK, self._target_port))
            except OSError:
                if self._is_closed:
                    return
                continue
            with self._lock:
                self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), name="forwarder", daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while chunk := source.recv(_CHUNK_BYTES):
            sink.sendall(chunk)
    except OSError:
        pass
    finally:
        _end(sink)


def _end(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
