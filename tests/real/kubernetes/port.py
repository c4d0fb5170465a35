"""A port of loopback that stays a test's own, also while the server on it is stopped."""

from __future__ import annotations

import socket


class Port:
    """Bound until free() but never listening: only this user's servers that set SO_REUSEPORT may listen on it."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def free(self) -> None:
        """Give it back to the system."""
        self._socket.close()
