"""Modules with build and sign sections, and the registry, toolkits and keys that they need."""

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
from tests.real.layout import Blob, Image, Member, image, layer, symlink
from tests.real.push import push
from tests.real.registry import Registry
from tests.real.toolkit import push_toolkit
from tests.runs import module, write_manifests

NAMESPACE = "shapes"
KMOD = "preflight_probe"
_COMPILING = """\
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
_COPYING = """\
FROM {base}
ARG KERNEL_FULL_VERSION
RUN mkdir -p /opt/lib/modules/{installed} && {step} && cp /kmods/{kmod}.ko /opt/lib/modules/{installed}/{kmod}.ko
"""


@dataclass(frozen=True)
class KeyPair:
    """A private key and its certificate."""

    key: bytes
    """The key in PEM."""
    cert: bytes
    """The certificate in DER."""


def key_pair(name: str = "preflight tests", days: int = 30) -> KeyPair:
    """Return a new key, with a self-signed certificate that expires after these days."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    year, days_left = datetime.timedelta(days=365), datetime.timedelta(days=days)
    builder = builder.not_valid_before(now - year).not_valid_after(now + days_left)
    cert = builder.sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return KeyPair(pem, cert.public_bytes(serialization.Encoding.DER))


class Workbench:
    """A registry with base images of a shell and a kmod, and with the driver toolkit of the newer of two kernels."""

    def __init__(self, registry: Registry, store: Path) -> None:
        """Keep unpacked base images in the store, so that only the first build unpacks them."""
        self.registry, self.store = registry, store
        self.old, self.new = oldest_and_newest()
        self.base = f"{registry.host}/base/shell:1"
        push(registry, "base/shell", "1", _base(b"no kmod"))
        self.toolkits = {self.new: push_toolkit(registry, "toolkit", self.new, [self.new])}

    def options(self, folder: Path, documents: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return the options of a run on these manifests for the newer kernel."""
        written = write_manifests(folder, documents)
        toolkit = f"--driver-toolkit={self.toolkits[self.new]}"
        return [f"--kernel={self.new}", toolkit, f"--manifests={written}", f"--build-store={self.store}"]

    def push_kmods(self, data: bytes, tag: str) -> str:
        """Push a base image with a shell and /kmods/preflight_probe.ko, and return its name."""
        push(self.registry, "base/kmods", tag, _base(data))
        return f"{self.registry.host}/base/kmods:{tag}"

    def new_image(self, name: str) -> str:
        """Return the name of an image that does not exist yet. Its tag is the kernel."""
        return f"{self.registry.host}/made/{name}:${{KERNEL_FULL_VERSION}}"

    def compile_dockerfile(self, source: str | None = None, installed: str = "${KERNEL_FULL_VERSION}") -> str:
        """Return a Dockerfile that compiles the kmod in the driver toolkit, as users of KMM write it."""
        encoded = base64.b64encode((source or SOURCE.read_text()).encode()).decode()
        return _COMPILING.format(source=encoded, kmod=KMOD, base=self.base, installed=installed)

    def copy_dockerfile(
        self, base: str | None = None, step: str = "true", installed: str = "${KERNEL_FULL_VERSION}"
    ) -> str:
        """Return a Dockerfile that takes a second: it copies the kmod of its base image."""
        return _COPYING.format(base=base or self.base, step=step, kmod=KMOD, installed=installed)


def _base(kmod: bytes) -> Image:
    return image([shell_layer(kmod)], history=True)


def shell_layer(kmod: bytes) -> Blob:
    """Return a layer with a shell and /kmods/preflight_probe.ko."""
    tools = ("sh", "mkdir", "cp", "sleep", "cat", "true", "ls", "uname", "env")
    return layer(
        [
            Member("bin/busybox", busybox(), mode=0o755),
            *(symlink(f"bin/{tool}", "busybox") for tool in tools),
            Member(f"kmods/{KMOD}.ko", kmod),
        ]
    )


def config_map(name: str, dockerfile: str, key: str = "dockerfile") -> dict[str, Any]:
    """Return a ConfigMap with a Dockerfile."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE},
            "data": {key: dockerfile}}  # fmt: skip


def opaque_secret(name: str, data: Mapping[str, bytes]) -> dict[str, Any]:
    """Return a Secret with these bytes by key."""
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}, "type": "Opaque",
            "data": encoded}  # fmt: skip


def build_module(name: str, image: str, dockerfile: str, **more: Any) -> list[dict[str, Any]]:
    """Return a Module with a build section, and its ConfigMap. more: other fields for `module`."""
    build = {"dockerfileConfigMap": {"name": f"{name}-dockerfile"}, **more.pop("build", {})}
    return [module(name, image, KMOD, build=build, **more), config_map(f"{name}-dockerfile", dockerfile)]


SIGN = {
    "keySecret": {"name": "signing-key"},
    "certSecret": {"name": "signing-cert"},
    "filesToSign": [f"/opt/lib/modules/${{KERNEL_FULL_VERSION}}/{KMOD}.ko"],
}


def signing_secrets(pair: KeyPair) -> list[dict[str, Any]]:
    """Return the Secrets that SIGN names."""
    return [opaque_secret("signing-key", {"key": pair.key}), opaque_secret("signing-cert", {"cert": pair.cert})]
