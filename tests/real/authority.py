"""A private certificate authority: what a registry inside a company has, and clients must be told of."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """A new CA whose certificate lies as ca.crt in a folder of its own, the shape of --cert-dir and certs.d."""

    def __init__(self, folder: Path, *names: str) -> None:
        """names are those of the server beside 127.0.0.1 and localhost."""
        self._ca = trustme.CA(organization_name="Preflight tests")
        self._leaf = self._ca.issue_cert("127.0.0.1", "localhost", *names, key_type=trustme.KeyType.RSA)
        self.cert_dir = folder / "certs"
        self.cert_dir.mkdir(parents=True)
        self.ca = self.cert_dir / "ca.crt"
        self._ca.cert_pem.write_to_path(str(self.ca))
        # Not inside cert_dir: there a *.key is taken for a client's key and must have its *.cert beside it.
        self.server_cert = folder / "server.pem"
        self._leaf.cert_chain_pems[0].write_to_path(str(self.server_cert))
        self.server_key = folder / "server.key"
        self._leaf.private_key_pem.write_to_path(str(self.server_key))

    def server_context(self) -> ssl.SSLContext:
        """TLS for a server of this process, with the certificate for its names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_cert, self.server_key)
        return context
