"""Real parts as fixtures; each xdist worker has its own, on ports of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from .real.kmod import compile_kmod, oldest_and_newest
from .real.registry import Registry


@pytest.fixture(scope="session")
def plain_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """HTTP, nobody logs in."""
    with Registry.plain(tmp_path_factory.mktemp("plain-registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def login_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """HTTPS by a private CA, user and password with each request."""
    with Registry.with_htpasswd(tmp_path_factory.mktemp("login-registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def token_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """HTTPS by a private CA, bearer tokens."""
    with Registry.with_token(tmp_path_factory.mktemp("token-registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def kernels() -> tuple[str, str]:
    """The oldest and the newest of Debian's kernels, such as 6.1.0-47-amd64."""
    return oldest_and_newest()


@pytest.fixture(scope="session")
def kmods(kernels: tuple[str, str]) -> Mapping[str, bytes]:
    """The bytes of a real preflight_probe.ko for each of the two kernels."""
    return {kernel: compile_kmod(kernel) for kernel in kernels}
