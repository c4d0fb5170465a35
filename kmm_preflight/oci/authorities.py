"""Certificate authorities as ConfigMaps of OpenShift hold them."""

from __future__ import annotations

import base64
import re
import ssl

from kmm_preflight.model import Manifest

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")


def authorities(config_map: Manifest) -> dict[str, str]:
    """PEM by key; a value that is no certificate is left out: it trusts nobody, as on the node."""
    data, binary = (part if isinstance(part := config_map.get(key), dict) else {} for key in ("data", "binaryData"))
    found = {**data, **{key: _decoded(value) for key, value in binary.items()}}
    return {str(key): pem for key, value in found.items() if (pem := _pem(value))}


def certificates(text: str) -> str:
    """The certificates in a text, as PEM and nothing else; "" when there are none.

    What stands between them, and one that cannot be read, is passed over, as Go's AppendCertsFromPEM does.
    """
    return "".join(f"{block}\n" for block in _CERTIFICATE.findall(text) if _is_certificate(block))


def _is_certificate(block: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=block)
    except (ssl.SSLError, ValueError, TypeError):  # TypeError: not ASCII
        return False
    return True


def _pem(value: object) -> str:
    """The certificates in a value, which may be encoded once more."""
    return (certificates(value) or certificates(_decoded(value))) if isinstance(value, str) else ""


def _decoded(value: object) -> str:
    try:
        # Any byte is a character of Latin-1: a comment beside the certificates may be in whatever encoding.
        return base64.b64decode(str(value)).decode("latin-1")
    except ValueError:
        return ""
