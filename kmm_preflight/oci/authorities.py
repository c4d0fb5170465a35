"""Certificate authorities in ConfigMaps of OpenShift."""

from __future__ import annotations

import base64
import re
import ssl

from kmm_preflight.model import Manifest

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")


def authorities(config_map: Manifest) -> dict[str, str]:
    """Return PEM by key. Leave out values without a certificate: nodes ignore them too."""
    data, binary = (part if isinstance(part := config_map.get(key), dict) else {} for key in ("data", "binaryData"))
    values = {**data, **{key: _decoded(value) for key, value in binary.items()}}
    return {str(key): pem for key, value in values.items() if (pem := _pem(value))}


def certificates(text: str) -> str:
    """Return the certificates in a text as PEM. Without a certificate the result is empty.

    Ignore text between certificates, and invalid certificates, as Go's AppendCertsFromPEM does.
    """
    return "".join(f"{block}\n" for block in _CERTIFICATE.findall(text) if _is_certificate(block))


def _is_certificate(block: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=block)
    except (ssl.SSLError, ValueError, TypeError):  # TypeError: not ASCII
        return False
    return True


def _pem(value: object) -> str:
    """Return the certificates in a value. The value may be encoded a second time."""
    return (certificates(value) or certificates(_decoded(value))) if isinstance(value, str) else ""


def _decoded(value: object) -> str:
    try:
        # Latin-1 accepts every byte: a comment between certificates may be in any encoding.
        return base64.b64decode(str(value)).decode("latin-1")
    except ValueError:
        return ""
