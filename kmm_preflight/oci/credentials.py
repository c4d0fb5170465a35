"""The keychains of one pull, and in which order their logins are tried where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kmm_preflight.oci.auth import Credential, Helper, Keychain


@dataclass(frozen=True)
class PullCredentials:
    """The keychains of one pull, in the order in which a node tries them: the Pod's own, then the node's.

    For a mirror on another host, a node uses only its own keychains (docs/reference/openshift.md 5.2).
    mirrors_only keeps the node's ones to that.
    """

    own: tuple[Keychain, ...] = ()
    node: tuple[Keychain, ...] = ()
    mirrors_only: bool = False

    def keychains(self, on_other_host: bool) -> tuple[Keychain, ...]:
        """The keychains for the name itself, or for a mirror on another host."""
        if not on_other_host:
            return self.own if self.mirrors_only else (*self.own, *self.node)
        return tuple(replace(keychain, kubelet=False) for keychain in self.node)

    def __str__(self) -> str:
        """Whose they are, in words."""
        sources = dict.fromkeys(keychain.source for keychain in self.keychains(on_other_host=False))
        return ", then ".join(sources) or "no credentials"


def candidates(keychains: Iterable[Keychain], host: str, repository: str) -> tuple[Credential | Helper | None, ...]:
    """The logins to try one after the other; None alone, which is nobody, when there is none for this path."""
    found = [one for keychain in keychains for one in keychain.every(host, repository)]
    return tuple(dict.fromkeys(found)) or (None,)
