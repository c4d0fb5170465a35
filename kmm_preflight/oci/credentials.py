"""The credentials of one pull: its keychains, and the order in which their logins are tried."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kmm_preflight.oci.auth import Credential, Helper, Keychain


@dataclass(frozen=True)
class PullCredentials:
    """The keychains of one pull, in the order in which a node tries them: the Pod's own, then the node's."""

    own: tuple[Keychain, ...] = ()
    """Keychains of the Pod."""
    node: tuple[Keychain, ...] = ()
    """Keychains of the node."""
    mirrors_only: bool = False
    """True if the node's keychains are used only for mirrors on other hosts."""

    def keychains(self, on_other_host: bool) -> tuple[Keychain, ...]:
        """Return the keychains for the image's own host, or for a mirror on another host.

        For a mirror on another host, a node uses only its own keychains (docs/reference/openshift.md 5.2).
        """
        if not on_other_host:
            return self.own if self.mirrors_only else (*self.own, *self.node)
        return tuple(replace(keychain, kubelet=False) for keychain in self.node)

    def __str__(self) -> str:
        """Return the names of the sources, for messages."""
        sources = dict.fromkeys(keychain.source for keychain in self.keychains(on_other_host=False))
        return ", then ".join(sources) or "no credentials"


def candidates(keychains: Iterable[Keychain], host: str, repository: str) -> tuple[Credential | Helper | None, ...]:
    """Return the logins to try in order. If no keychain has a login for this path, return None alone: no login."""
    logins = [login for keychain in keychains for login in keychain.every(host, repository)]
    return tuple(dict.fromkeys(logins)) or (None,)
