"""A private certificate authority, like that of a registry inside a company."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """A new CA. A folder for --cert-dir and certs.d has its certificate as ca.crt."""

    def __init__(self, folder: Path, *names: str) -> None:
        """names are host names of the server, in addition to 127.0.0.1 and localhost."""
        self._ca = trustme.CA(organization_name="Preflight tests")
        self._leaf = self._ca.issue_cert("127.0.0.1", "localhost", *names, key_type=trustme.KeyType.RSA)
        self.cert_dir = folder / "certs"
        self.cert_dir.mkdir(parents=True)
        self.ca = self.cert_dir / "ca.crt"
        self._ca.cert_pem.write_to_path(str(self.ca))
        # These files are not in cert_dir: tools would use a *.key there as a client's key, and require its *.cert.
        self.server_cert = folder / "server.pem"
        self._leaf.cert_chain_pems[0].write_to_path(str(self.server_cert))
        self.server_key = folder / "server.key"
        self._leaf.private_key_pem.write_to_path(str(self.server_key))

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS context of a server in this process."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_cert, self.server_key)
        return context
