"""A Module on a target kernel: the plan to judge, or why the Module has nothing for this kernel."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from kmm_preflight.model import VERIFIED_HTTPS, BootArguments, Finding, ModuleName, RegistryTLS, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.pull_policy import NOTHING_KNOWN, NodeStore


@dataclass(frozen=True)
class Build:
    """The build section of a Module."""

    dockerfile_config_map: str | None = None
    """Name of the ConfigMap with the Dockerfile, in the Module's namespace."""
    build_args: tuple[tuple[str, str], ...] = ()
    """Build arguments as name and value, in the Module's order."""
    secrets: tuple[str, ...] = ()
    """Names of the Secrets that the build mounts, in the Module's namespace."""
    selector: tuple[tuple[str, str], ...] = ()
    """Labels of the nodes that may build."""
    base_image_registry_tls: RegistryTLS = VERIFIED_HTTPS
    """TLS rules for the registries of the images after FROM."""


@dataclass(frozen=True)
class Sign:
    """The sign section of a Module."""

    unsigned_image: str | None = None
    """Name of the image to sign, a template until the plan is made. None if the build makes that image."""
    key_secret: str | None = None
    """Name of the Secret with the private key, in the Module's namespace."""
    cert_secret: str | None = None
    """Name of the Secret with the certificate, in the Module's namespace."""
    files_to_sign: tuple[str, ...] = ()
    """Paths of the kmods to sign. A path may have wildcards."""
    unsigned_image_registry_tls: RegistryTLS = VERIFIED_HTTPS
    """TLS rules for the registry of the unsigned image."""


@dataclass(frozen=True)
class Recorded:
    """The proof of an earlier run for the same plan."""

    digest: str
    """Digest behind the image's name in that run."""
    date: str
    """Time of that run, in ISO 8601."""


@dataclass(frozen=True)
class Plan:
    """A Module on a target kernel, with the image that holds its kmod."""

    module: ModuleName
    """Namespace and name of the Module."""
    kernel: TargetKernel
    """The kernel that nodes will boot after the upgrade."""
    image: Reference
    """The mapping's containerImage after substitution."""
    kmod: str | None = None
    """modprobe.moduleName. None with modprobe.rawArgs, which may name any kmod."""
    directory: str = "/opt"
    """modprobe.dirName, the parent of lib/modules in the image."""
    tls: RegistryTLS = VERIFIED_HTTPS
    """TLS rules for the registry of the image."""
    secret: str | None = None
    """Name of the imageRepoSecret, in the Module's namespace."""
    build: Build | None = None
    """The build section that applies to this kernel."""
    sign: Sign | None = None
    """The sign section that applies to this kernel."""
    in_tree_modules_to_remove: tuple[str, ...] = ()
    """Names of in-tree kmods that KMM unloads first."""
    modules_loading_order: tuple[str, ...] = ()
    """Names of kmods from the last to load to the first. The first name is kmod."""
    firmware_path: str | None = None
    """Folder of the image with firmware for the node."""
    load_options: tuple[str, ...] = ()
    """Options of the modprobe call that loads the kmod."""
    parameters: tuple[str, ...] = ()
    """Parameters of the kmod."""
    raw_arguments: tuple[str, ...] = ()
    """All arguments of the modprobe call, if the Module has rawArgs."""
    recorded: Recorded | None = None
    """The proof of an earlier run. It still counts if the image has the same digest."""
    notes: tuple[Finding, ...] = ()
    """Findings to report whatever the stages conclude."""
    selector: tuple[tuple[str, str], ...] = ()
    """Labels of the nodes that load the kmod."""
    at_boot: bool = False
    """True if nodes load the kmod at boot, before kubelet runs. They pull with their own login only."""
    nodes: tuple[str, ...] = ()
    """The nodes that will boot the kernel, in words, as far as they are known."""
    node_names: tuple[str, ...] = ()
    """Names of the nodes that will load the kmod on the kernel, in alphabetical order."""
    boot_arguments: tuple[BootArguments, ...] = ()
    """Boot arguments of the nodes, each different set once. Empty if no pool was given."""
    account: str | None = None
    """Name of the ServiceAccount that the Module names for its Pods, or None."""
    pull_policy: str | None = None
    """The imagePullPolicy of the container, or None for Kubernetes' default."""
    store: NodeStore = NOTHING_KNOWN
    """Images that the nodes of the case hold under the name of the image."""
    version: str | None = None
    """The version of the Module on these nodes, if they keep another one than the Module's in an ordered upgrade."""

    @property
    def id(self) -> str:
        """The id of the case in pytest: namespace/name@kernel."""
        return _id(self)

    @property
    def kernel_words(self) -> str:
        """The kernel, with the version of the Module if that is not the Module's own."""
        return _kernel_words(self)

    @property
    def image_name(self) -> str:
        """The name of the image as the Module writes it, for reports."""
        return self.image.name

    @property
    def folder(self) -> str:
        """The folder dirName/lib/modules/kernel of the image, which modprobe reads. The first slash is left out.

        The path is cleaned like Go's path.Join does it: dirName may be relative, or have .. and several slashes.
        """
        return posixpath.normpath(f"/{self.directory}/lib/modules/{self.kernel.version}").lstrip("/")


@dataclass(frozen=True)
class Unresolved:
    """A Module on a target kernel for which no image is known."""

    module: ModuleName
    """Namespace and name of the Module."""
    kernel: TargetKernel
    """The kernel that nodes will boot after the upgrade, or a placeholder for an unknown one."""
    finding: Finding
    """The reason why there is no image."""
    image_name: str | None = None
    """The mapping's containerImage after substitution, if that is not a valid name."""
    secret: str | None = None
    """Name of the imageRepoSecret, in the Module's namespace."""
    recorded: Recorded | None = None
    """The proof of an earlier run, for a status that must not lose it."""
    notes: tuple[Finding, ...] = ()
    """Findings to report next to the reason."""
    nodes: tuple[str, ...] = ()
    """The nodes that will boot the kernel, in words, as far as they are known."""
    version: str | None = None
    """The version of the Module on these nodes, if they keep another one than the Module's in an ordered upgrade."""

    @property
    def id(self) -> str:
        """The id of the case in pytest: namespace/name@kernel."""
        return _id(self)

    @property
    def kernel_words(self) -> str:
        """The kernel, with the version of the Module if that is not the Module's own."""
        return _kernel_words(self)


Case = Plan | Unresolved
"""A Module on a target kernel: one parametrized case of the validation, with one verdict."""


def _id(case: Case) -> str:
    return f"{case.module}@{_kernel_words(case)}"


def _kernel_words(case: Case) -> str:
    return case.kernel.version if case.version is None else f"{case.kernel.version},version={case.version}"
