"""Module and target kernel become a plan: KMM's choice of mapping, its inheritance, merges and substitution."""

from __future__ import annotations

from dataclasses import replace

from kmm_preflight.errors import Malformed
from kmm_preflight.model import VERIFIED_HTTPS, Finding, ModuleName, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning import findings
from kmm_preflight.planning.module import Container, KernelMapping, Module
from kmm_preflight.planning.plan import Build, Case, Plan, Sign, Unresolved
from kmm_preflight.planning.template import image_variables, kernel_variables, substitute
from kmm_preflight.text import listed


class NameUnresolved(Exception):
    """A template gives no text; problem says why."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


class NoMapping(Exception):
    """No mapping matches; tried tells of each, in order, why not."""

    def __init__(self, tried: tuple[str, ...]) -> None:
        self.tried = tried
        super().__init__(listed(list(tried)))


def choose_mapping(mappings: tuple[KernelMapping, ...], kernel: str) -> int:
    """Index of the first mapping whose literal equals the kernel or whose regexp is found in it.

    Order beats literal. An invalid regexp met on the way raises Malformed; NoMapping tells what was tried.
    """
    tried = []
    for index, mapping in enumerate(mappings):
        if mapping.literal and mapping.literal == kernel:
            return index
        if mapping.regexp and mapping.pattern().search(kernel):
            return index
        tried.append(_missed(mapping))
    raise NoMapping(tuple(tried))


def _missed(mapping: KernelMapping) -> str:
    if mapping.regexp:
        return f"regexp {mapping.regexp} does not match"
    return f"literal {mapping.literal} is another kernel"


def merge(container: Container, mapping: KernelMapping) -> KernelMapping:
    """Return the mapping with what it inherits from its container (docs/reference/kmm.md 3.4, 3.5, 3.6).

    Sections merge, TLS replaces.
    """
    one = mapping.in_tree_module_to_remove or container.in_tree_module_to_remove
    several = mapping.in_tree_modules_to_remove
    several = container.in_tree_modules_to_remove if several is None else several
    return replace(
        mapping,
        container_image=mapping.container_image or container.container_image,
        registry_tls=container.registry_tls if mapping.registry_tls is None else mapping.registry_tls,
        build=merge_build(container.build, mapping.build),
        sign=merge_sign(container.sign, mapping.sign),
        # The deprecated singular, from wherever it comes, replaces the list.
        in_tree_module_to_remove=one,
        in_tree_modules_to_remove=(one,) if one else several,
    )


def merge_build(container: Build | None, mapping: Build | None) -> Build | None:
    """The build section that counts: the container's, with the mapping's Dockerfile, arguments and secrets over it."""
    if container is None or mapping is None:
        return container or mapping
    return replace(
        container,
        dockerfile_config_map=_over(mapping.dockerfile_config_map, container.dockerfile_config_map),
        build_args=override_args(container.build_args, mapping.build_args),
        secrets=container.secrets + mapping.secrets,
    )


def override_args(
    args: tuple[tuple[str, str], ...], overrides: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    """The arguments with overrides of the same name in their place, the others appended in order of their names."""
    last = dict(overrides)
    names = {name for name, _ in args}
    kept = tuple((name, last.get(name, value)) for name, value in args)
    return kept + tuple(sorted((name, value) for name, value in last.items() if name not in names))


def injected_args(args: tuple[tuple[str, str], ...], kernel: str, module: ModuleName) -> tuple[tuple[str, str], ...]:
    """The user's arguments with those that KMM sets over them: the raw kernel, the Module's name and namespace."""
    ours = (
        ("KERNEL_VERSION", kernel),
        ("KERNEL_FULL_VERSION", kernel),
        ("MOD_NAME", module.name),
        ("MOD_NAMESPACE", module.namespace),
    )
    return override_args(args, ours)


def merge_sign(container: Sign | None, mapping: Sign | None) -> Sign | None:
    """The sign section that counts: the container's, with the mapping's image and Secrets over it, files appended."""
    if container is None or mapping is None:
        return container or mapping
    return replace(
        container,
        unsigned_image=mapping.unsigned_image or container.unsigned_image,
        key_secret=_over(mapping.key_secret, container.key_secret),
        cert_secret=_over(mapping.cert_secret, container.cert_secret),
        files_to_sign=container.files_to_sign + mapping.files_to_sign,
    )


def _over(mapping: str | None, container: str | None) -> str | None:
    """A reference of the mapping where there is one, even to no name."""
    return container if mapping is None else mapping


def substituted_sign(sign: Sign | None, kernel: str) -> Sign | None:
    """Replace the kernel's variables in unsignedImage and filesToSign, but not MOD_NAME (docs/reference/kmm.md 3.3)."""
    if sign is None:
        return None
    variables = kernel_variables(kernel)
    return replace(
        sign,
        unsigned_image=substitute(sign.unsigned_image or "", variables) or None,
        files_to_sign=tuple(substitute(name, variables) for name in sign.files_to_sign),
    )


def append_to_tag(image: str, suffix: str) -> str:
    """The image name with the suffix as its tag, or behind its tag; a port is no tag, a digest is given up."""
    name, _, _ = image.partition("@")
    has_tag = ":" in name.rpartition("/")[2]
    return f"{name}{'_' if has_tag else ':'}{suffix}"


def intermediate_image(image: str, module: ModuleName) -> str:
    """The temporary name of a build's output when sign follows (KMM 1.0 to 2.6)."""
    return append_to_tag(image, f"{module.namespace}_{module.name}_kmm_unsigned")


def make_plan(module: Module, container: Container, kernel: TargetKernel, today: tuple[str, ...] = ()) -> Case:
    """Return the plan for a Module on a kernel, or why there is none. A problem of the kernel itself comes first.

    today has the kernels that the Module's nodes boot now.
    """
    if kernel.problem:
        return Unresolved(module.name, kernel, kernel.problem, secret=module.secret)
    try:
        mapping = merge(container, container.mappings[choose_mapping(container.mappings, kernel.version)])
    except NoMapping as exc:
        tried = f"{len(exc.tried)} tried: {listed(list(exc.tried), most=10)}"
        finding = _unmatched(container, kernel.version, today, tried)
        return Unresolved(module.name, kernel, finding, secret=module.secret)
    return _resolve(module, container, mapping, kernel)


def _unmatched(container: Container, kernel: str, today: tuple[str, ...], tried: str) -> Finding:
    """The finding where no mapping matches; another one where one does for what the nodes boot today."""
    lost = [one for one in today if one != kernel and _matches(container, one)]
    if lost:
        return findings.MAPPING_LOST(kernel=kernel, today=listed(lost), tried=tried)
    return findings.NO_MAPPING(kernel=kernel, tried=tried)


def _matches(container: Container, kernel: str) -> bool:
    try:
        choose_mapping(container.mappings, kernel)
    except (NoMapping, Malformed):
        return False
    return True


def _resolve(module: Module, container: Container, mapping: KernelMapping, kernel: TargetKernel) -> Case:
    image: str | None = None
    try:
        image, sign = _substituted(mapping, kernel.version, module.name)
        reference = Reference.parse(image)
    except NameUnresolved as exc:
        finding = findings.NAME_UNRESOLVED(problem=exc.problem)
        return Unresolved(module.name, kernel, finding, secret=module.secret)
    except Malformed as exc:
        finding = findings.IMAGE_NAME_INVALID(problem=exc.message)
        return Unresolved(module.name, kernel, finding, image_name=image, secret=module.secret)
    return Plan(
        module=module.name,
        kernel=kernel,
        image=reference,
        kmod=container.module_name or None,
        directory=container.directory,
        tls=mapping.registry_tls or VERIFIED_HTTPS,
        secret=module.secret,
        build=mapping.build,
        sign=sign,
        in_tree_modules_to_remove=mapping.in_tree_modules_to_remove or (),
        modules_loading_order=container.modules_loading_order,
        firmware_path=container.firmware_path or None,
        load_options=container.load_options,
        parameters=container.parameters,
        selector=module.selector,
    )


def _substituted(mapping: KernelMapping, kernel: str, module: ModuleName) -> tuple[str, Sign | None]:
    """Return the name of the image, and the sign section. Raise NameUnresolved."""
    template = mapping.container_image
    try:
        image = substitute(template, image_variables(kernel, module.namespace, module.name))
        sign = substituted_sign(mapping.sign, kernel)
    except Malformed as exc:
        raise NameUnresolved(exc.message) from exc
    if not image:
        raise NameUnresolved(f"containerImage {template} becomes empty")
    return image, sign
