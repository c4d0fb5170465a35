"""Modules that have to be built and signed, with the registry, toolkits and keys that they need."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.real.build import busybox
from tests.real.kmod import SOURCE, oldest_and_newest
from tests.real.layout import Image, Member, image, layer, symlink
from tests.real.push import push
from tests.real.registry import Registry
from tests.real.toolkit import push_toolkit
from tests.runs import module, write_manifests

NAMESPACE = "shapes"
KMOD = "preflight_probe"
_MAKE = """\
ARG DTK_AUTO
FROM ${{DTK_AUTO}} AS builder
ARG KERNEL_FULL_VERSION
WORKDIR /build
RUN echo {source} | base64 -d > {kmod}.c && echo 'obj-m := {kmod}.o' > Kbuild
RUN make -C /usr/src/kernels/${{KERNEL_FULL_VERSION}} M=/build modules
RUN mkdir -p /opt/lib/modules/{installed} && cp {kmod}.ko /opt/lib/modules/{installed}/ && depmod -b /opt {installed}
FROM {base}
COPY --from=builder /opt/lib/modules /opt/lib/modules
"""
_COPY = """\
FROM {base}
ARG KERNEL_FULL_VERSION
RUN mkdir -p /opt/lib/modules/{installed} && {step} && cp /kmods/{kmod}.ko /opt/lib/modules/{installed}/{kmod}.ko
"""


@dataclass(frozen=True)
class KeyPair:
    """A private key in PEM and its certificate in DER."""

    key: bytes
    cert: bytes


def key_pair(name: str = "preflight tests", days: int = 30) -> KeyPair:
    """A new key, with a certificate of its own that ends after these days."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number())
    year, days_left = datetime.timedelta(days=365), datetime.timedelta(days=days)
    made = made.not_valid_before(now - year).not_valid_after(now + days_left)
    cert = made.sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return KeyPair(pem, cert.public_bytes(serialization.Encoding.DER))


class Workbench:
    """A registry with a base image of a shell and a kmod, and the driver toolkit of the newer of two kernels."""

    def __init__(self, registry: Registry, store: Path) -> None:
        """Base images are kept in the store, so that only the first build takes the time to unpack them."""
        self.registry, self.store = registry, store
        self.old, self.new = oldest_and_newest()
        self.base = f"{registry.host}/base/shell:1"
        push(registry, "base/shell", "1", _base(b"no kmod"))
        self.toolkits = {self.new: push_toolkit(registry, "toolkit", self.new, [self.new])}

    def options(self, folder: Path, documents: Iterable[Mapping[str, Any]]) -> list[str]:
        """The options of a run on these manifests for the newest kernel."""
        written = write_manifests(folder, documents)
        toolkit = f"--driver-toolkit={self.toolkits[self.new]}"
        return [f"--kernel={self.new}", toolkit, f"--manifests={written}", f"--build-store={self.store}"]

    def kmods(self, data: bytes, tag: str) -> str:
        """A base image with a shell and /kmods/preflight_probe.ko."""
        push(self.registry, "base/kmods", tag, _base(data))
        return f"{self.registry.host}/base/kmods:{tag}"

    def made(self, name: str) -> str:
        """The name of an image that is not there yet, with the kernel in its tag."""
        return f"{self.registry.host}/made/{name}:${{KERNEL_FULL_VERSION}}"

    def compiled(self, source: str = "", installed: str = "${KERNEL_FULL_VERSION}") -> str:
        """A Dockerfile that compiles the kmod by the driver toolkit, as KMM's users write it."""
        encoded = base64.b64encode((source or SOURCE.read_text()).encode()).decode()
        return _MAKE.format(source=encoded, kmod=KMOD, base=self.base, installed=installed)

    def copied(self, base: str = "", step: str = "true", installed: str = "${KERNEL_FULL_VERSION}") -> str:
        """A Dockerfile that takes a second: the kmod lies in its base."""
        return _COPY.format(base=base or self.base, step=step, kmod=KMOD, installed=installed)


def _base(kmod: bytes) -> Image:
    return image([layer(_shell(kmod))], history=True)


def _shell(kmod: bytes) -> list[Member]:
    tools = ("sh", "mkdir", "cp", "sleep", "cat", "true", "ls", "uname", "env")
    return [
        Member("bin/busybox", busybox(), mode=0o755),
        *(symlink(f"bin/{tool}", "busybox") for tool in tools),
        Member(f"kmods/{KMOD}.ko", kmod),
    ]


def config_map(name: str, dockerfile: str, key: str = "dockerfile") -> dict[str, Any]:
    """A ConfigMap with a Dockerfile."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE},
            "data": {key: dockerfile}}  # fmt: skip


def opaque(name: str, data: Mapping[str, bytes]) -> dict[str, Any]:
    """A Secret of plain bytes."""
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}, "type": "Opaque",
            "data": encoded}  # fmt: skip


def built(name: str, image: str, dockerfile: str, **more: Any) -> list[dict[str, Any]]:
    """A Module with a build section, and its ConfigMap."""
    build = {"dockerfileConfigMap": {"name": f"{name}-dockerfile"}, **more.pop("build", {})}
    return [module(name, image, KMOD, build=build, **more), config_map(f"{name}-dockerfile", dockerfile)]


SIGN = {
    "keySecret": {"name": "signing-key"},
    "certSecret": {"name": "signing-cert"},
    "filesToSign": [f"/opt/lib/modules/${{KERNEL_FULL_VERSION}}/{KMOD}.ko"],
}


def signing(pair: KeyPair) -> list[dict[str, Any]]:
    """The Secrets that SIGN names."""
    return [opaque("signing-key", {"key": pair.key}), opaque("signing-cert", {"cert": pair.cert})]
