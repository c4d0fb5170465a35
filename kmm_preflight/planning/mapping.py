"""KMM's choice of a kernel mapping, and what the mapping inherits from its container."""

from __future__ import annotations

from dataclasses import replace

from kmm_preflight.model import ModuleName
from kmm_preflight.planning.container import Container, KernelMapping
from kmm_preflight.planning.plan import Build, Sign
from kmm_preflight.planning.regexp import compile_pattern
from kmm_preflight.text import listed


class NoMapping(Exception):
    """No mapping matches. tried has the reason for each mapping, in order."""

    def __init__(self, tried: tuple[str, ...]) -> None:
        self.tried = tried
        super().__init__(listed(list(tried)))


def choose_mapping(mappings: tuple[KernelMapping, ...], kernel: str) -> int:
    """Return the index of the first mapping whose literal equals the kernel or whose regexp is found in the kernel.

    A literal does not win over an earlier regexp. Raise NoMapping if no mapping matches. Raise Malformed for an invalid
    regexp that comes before the match.
    """
    tried = []
    for index, mapping in enumerate(mappings):
        if mapping.literal and mapping.literal == kernel:
            return index
        if mapping.regexp and compile_pattern(mapping.regexp).search(kernel):
            return index
        tried.append(_why_no_match(mapping))
    raise NoMapping(tuple(tried))


def _why_no_match(mapping: KernelMapping) -> str:
    if mapping.regexp:
        return f"regexp {mapping.regexp} does not match"
    return f"literal {mapping.literal} is another kernel"


def merge(container: Container, mapping: KernelMapping) -> KernelMapping:
    """Return the mapping with what it inherits from its container (docs/reference/kmm.md 3.4, 3.5, 3.6).

    Sections are merged. TLS rules are replaced.
    """
    kmod = mapping.in_tree_module_to_remove or container.in_tree_module_to_remove
    kmods = mapping.in_tree_modules_to_remove
    kmods = container.in_tree_modules_to_remove if kmods is None else kmods
    return replace(
        mapping,
        container_image=mapping.container_image or container.container_image,
        registry_tls=container.registry_tls if mapping.registry_tls is None else mapping.registry_tls,
        build=merge_build(container.build, mapping.build),
        sign=merge_sign(container.sign, mapping.sign),
        # The deprecated field replaces the list, in the mapping and in the container.
        in_tree_module_to_remove=kmod,
        in_tree_modules_to_remove=(kmod,) if kmod else kmods,
    )


def merge_build(container: Build | None, mapping: Build | None) -> Build | None:
    """Return the container's build section with the mapping's Dockerfile, arguments and secrets.

    The mapping's Dockerfile replaces the container's. Its arguments override. Its secrets are appended.
    """
    if container is None or mapping is None:
        return container or mapping
    return replace(
        container,
        dockerfile_config_map=_override(container.dockerfile_config_map, mapping.dockerfile_config_map),
        build_args=override_args(container.build_args, mapping.build_args),
        secrets=container.secrets + mapping.secrets,
    )


def override_args(
    args: tuple[tuple[str, str], ...], overrides: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    """Return the arguments with overrides: the value of a known name in place, new names appended in sorted order."""
    last = dict(overrides)
    names = {name for name, _ in args}
    kept = tuple((name, last.get(name, value)) for name, value in args)
    return kept + tuple(sorted((name, value) for name, value in last.items() if name not in names))


def injected_args(args: tuple[tuple[str, str], ...], kernel: str, module: ModuleName) -> tuple[tuple[str, str], ...]:
    """Return the user's arguments, overridden by KMM's: the kernel as it is, the Module's name and namespace."""
    ours = (
        ("KERNEL_VERSION", kernel),
        ("KERNEL_FULL_VERSION", kernel),
        ("MOD_NAME", module.name),
        ("MOD_NAMESPACE", module.namespace),
    )
    return override_args(args, ours)


def merge_sign(container: Sign | None, mapping: Sign | None) -> Sign | None:
    """Return the container's sign section with the mapping's image, Secrets and files.

    The mapping's image and Secrets replace the container's. Its files are appended.
    """
    if container is None or mapping is None:
        return container or mapping
    return replace(
        container,
        unsigned_image=mapping.unsigned_image or container.unsigned_image,
        key_secret=_override(container.key_secret, mapping.key_secret),
        cert_secret=_override(container.cert_secret, mapping.cert_secret),
        files_to_sign=container.files_to_sign + mapping.files_to_sign,
    )


def _override(container: str | None, mapping: str | None) -> str | None:
    """Return the name that the mapping gives, even an empty name. If the mapping gives none, return the container's."""
    return container if mapping is None else mapping
