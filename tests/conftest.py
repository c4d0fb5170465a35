"""Real parts as fixtures; each xdist worker has its own, on ports of its own.

What they need is imported where it is used: pytest reads this file also for runs of the validation, which do without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .real.registry import Registry


@pytest.fixture(scope="session", autouse=True)
def proof_of_the_path() -> Iterator[None]:
    """Whole runs prove the kmod's path unless a test says --proof: most tests are of what stands around the kmod."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFLIGHT_PROOF", "path")
        yield


@pytest.fixture(scope="session")
def plain_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """HTTP, nobody logs in."""
    from .real.registry import Registry

    with Registry.plain(tmp_path_factory.mktemp("plain-registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def login_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """HTTPS by a private CA, user and password with each request."""
    from .real.registry import Registry

    with Registry.with_htpasswd(tmp_path_factory.mktemp("login-registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def token_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """HTTPS by a private CA, bearer tokens."""
    from .real.registry import Registry

    with Registry.with_token(tmp_path_factory.mktemp("token-registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def kernels() -> tuple[str, str]:
    """The oldest and the newest of Debian's kernels, such as 6.1.0-47-amd64."""
    from .real.kmod import oldest_and_newest

    return oldest_and_newest()


@pytest.fixture(scope="session")
def kmods(kernels: tuple[str, str]) -> Mapping[str, bytes]:
    """The bytes of a real preflight_probe.ko for each of the two kernels."""
    from .real.kmod import compile_kmod

    return {kernel: compile_kmod(kernel) for kernel in kernels}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test whose file starts whole runs (tests/runs.py) as slow."""
    from . import runs

    for item in items:
        module = getattr(item, "module", None)
        if any(getattr(value, "__module__", None) == runs.__name__ for value in vars(module).values()):
            item.add_marker(pytest.mark.slow)
