"""What containerd is told, and the two things that it needs of its surroundings: a sandbox image and a network."""

from __future__ import annotations

import json
import shlex
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.real.build import busybox
from tests.real.layout import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Blob, Image, Member, layer, symlink, write_layout

from .apart import PLACE

if TYPE_CHECKING:
    from tests.real.registry import Registry

SOCKET = "/run/containerd/containerd.sock"
"""Inside an Apart, where /run is its own."""

_SANDBOX_NAME, _SANDBOX_TAG = "preflight.test/sandbox", "1"
# The first container of each Pod only keeps what its others share.
_SLEEP = ["/bin/busybox", "sleep", "2147483647"]
_CONFIGURATION = """
version = 4
root = "{place}/containerd"
temp = "{place}/temporary"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]

[plugins."io.containerd.cri.v1.images"]
pinned_images.sandbox = "{sandbox}"
registry.config_path = "{place}/registries"

[plugins."io.containerd.cri.v1.runtime"]
# Below its own value a process may set it only with CAP_SYS_RESOURCE.
restrict_oom_score_adj = true
# Both are settings of a network namespace, which is the machine's here.
enable_unprivileged_ports = false
enable_unprivileged_icmp = false

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{place}/network-plugins"]
conf_dir = "{place}/network"
use_internal_loopback = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false
"""
# The network of Pods is the machine's: the plugin puts that in the place of the new namespace that the runtime has made
# for a Pod. So a registry on loopback has the same name everywhere, as references need it, without a bridge or rules of
# a firewall. Pods stay as they were sent: hostNetwork, which the API server could set on their way, would do the same,
# but Pod Security refuses it, and no test would see how that judges what the suite asks for.
_NETWORK = {"cniVersion": "1.0.0", "name": "machine", "plugins": [{"type": "machine"}]}
_PLUGIN = """#!/bin/sh
set -e
case $CNI_COMMAND in
ADD)
  umount "$CNI_NETNS"
  mount --bind /proc/1/ns/net "$CNI_NETNS"
  echo '{"cniVersion": "1.0.0", "interfaces": [{"name": "'"$CNI_IFNAME"'", "sandbox": "'"$CNI_NETNS"'"}],
         "ips": [{"address": "127.0.0.1/32", "interface": 0}]}'
  ;;
VERSION) echo '{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}' ;;
esac
"""


def busybox_image(entrypoint: Sequence[str] = ()) -> Image:
    """A small image that can be run: /bin/busybox, and /bin/sh."""
    files = layer([Member("bin/busybox", busybox(), mode=0o755), symlink("bin/sh", "busybox")], OCI_LAYER)
    # Unlike other readers of images a runtime wants to see its layers in the configuration too.
    settings = {"architecture": "amd64", "os": "linux", "config": {"Entrypoint": list(entrypoint)},
                "rootfs": {"type": "layers", "diff_ids": [files.digest]}}  # fmt: skip
    config = Blob(json.dumps(settings).encode(), OCI_CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.descriptor(),
                "layers": [files.descriptor()]}  # fmt: skip
    return Image(Blob(json.dumps(manifest).encode(), OCI_MANIFEST), [config, files])


def write_runtime(folder: Path, runc: str) -> None:
    """Everything that start_runtime() wants, into the folder."""
    for name in ("registries", "network", "network-plugins"):
        (folder / name).mkdir()
    (folder / "network" / "machine.conflist").write_text(json.dumps(_NETWORK))
    plugin = folder / "network-plugins" / "machine"
    plugin.write_text(_PLUGIN)
    plugin.chmod(0o755)
    told = _CONFIGURATION.format(place=PLACE, runc=runc, sandbox=f"{_SANDBOX_NAME}:{_SANDBOX_TAG}")
    (folder / "containerd.toml").write_text(told)
    layout = write_layout(folder / "sandbox", {_SANDBOX_TAG: busybox_image(_SLEEP)})
    with tarfile.open(folder / "sandbox.tar", "w") as archive:
        archive.add(layout, arcname="")


def start_runtime(programs: Path) -> str:
    """The lines of shell that start containerd in that folder, and end when it has the sandbox image."""
    containerd = shlex.join([f"{programs}/containerd", "--config=containerd.toml"])
    ctr = shlex.join([f"{programs}/ctr", f"--address={SOCKET}", "--namespace=k8s.io"])
    return (
        f"{containerd} >containerd.log 2>&1 &\n"
        f"until {ctr} version >/dev/null 2>&1; do sleep 0.05; done\n"
        f"{ctr} images import --base-name={_SANDBOX_NAME} sandbox.tar\n"
    )


def trust_registry(folder: Path, registry: Registry) -> None:
    """Let containerd pull from a registry, also while it runs: by plain HTTP, or believing its CA."""
    place = folder / "registries" / registry.host
    place.mkdir(exist_ok=True)
    ca = f'ca = "{registry.ca}"\n' if registry.ca else ""
    hosts = f'server = "{registry.url}"\n[host."{registry.url}"]\ncapabilities = ["pull", "resolve"]\n{ca}'
    (place / "hosts.toml").write_text(hosts)
