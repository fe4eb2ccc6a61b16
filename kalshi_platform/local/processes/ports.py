"""Finds free TCP ports on the loopback interface."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"
BLOCKS = (20_000, 30_000)
"""Where blocks of ports begin."""


def free_ports(count: int) -> tuple[int, ...]:
    """Return `count` different ports that were free a moment ago.

    All are held open until the last one is known, so no two are equal. Another program may bind one before its user
    does: who binds it must be ready to try another.
    """
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            held.append(sock)
            sock.bind((LOOPBACK, 0))
        return tuple(int(sock.getsockname()[1]) for sock in held)
    finally:
        for sock in held:
            sock.close()


def free_port() -> int:
    """Return one port that was free a moment ago."""
    return free_ports(1)[0]


def free_block(count: int, attempts: int = 50) -> int:
    """Return the first of `count` ports in a row that were free a moment ago; 0 if none was found.

    They lie where no operating system takes the ports of outgoing connections from (Linux: from 32768 on), because
    their servers bind them only after half a minute, when Dagster has started them.
    """
    for _ in range(attempts):
        first = random.randrange(*BLOCKS)  # noqa: S311 - nothing secret
        if all(is_free(port) for port in range(first, first + count)):
            return first
    return 0


def is_free(port: int) -> bool:
    """Return whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        # Servers set it, so a port whose last connections are in TIME_WAIT counts as free.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
