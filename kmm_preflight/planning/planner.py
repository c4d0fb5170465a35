"""Planning: the case of a Module on a target kernel, as KMM maps, merges and substitutes."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from kmm_preflight.errors import Malformed
from kmm_preflight.model import VERIFIED_HTTPS, Finding, ModuleName, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning import findings
from kmm_preflight.planning.container import Container, KernelMapping
from kmm_preflight.planning.mapping import NoMapping, choose_mapping, merge
from kmm_preflight.planning.plan import Case, Plan, Sign, Unresolved
from kmm_preflight.planning.template import image_variables, kernel_variables, substitute
from kmm_preflight.text import listed

_LISTED_MAPPINGS = 10


class MappedModule(Protocol):
    """A Module as far as the planning uses it, next to its container."""

    @property
    def name(self) -> ModuleName:
        """Namespace and name."""

    @property
    def secret(self) -> str | None:
        """Name of the imageRepoSecret."""

    @property
    def selector(self) -> tuple[tuple[str, str], ...]:
        """Labels of the nodes that load the kmod."""

    @property
    def account(self) -> str | None:
        """Name of the account of the Pod that pulls the image."""


class NameUnresolved(Exception):
    """A template does not give an image name. problem has the reason."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


def make_plan(module: MappedModule, container: Container, kernel: TargetKernel, today: tuple[str, ...] = ()) -> Case:
    """Return the plan for a Module on a kernel, or why there is none. A problem of the kernel itself comes first.

    today has the kernels that the Module's nodes boot now.
    """
    if kernel.problem:
        return Unresolved(module.name, kernel, kernel.problem, secret=module.secret)
    try:
        mapping = merge(container, container.mappings[choose_mapping(container.mappings, kernel.version)])
    except NoMapping as exc:
        tried = f"{len(exc.tried)} tried: {listed(list(exc.tried), most=_LISTED_MAPPINGS)}"
        finding = _unmatched(container, kernel.version, today, tried)
        return Unresolved(module.name, kernel, finding, secret=module.secret)
    return resolve(module, container, mapping, kernel)


def _unmatched(container: Container, kernel: str, today: tuple[str, ...], tried: str) -> Finding:
    """Return the finding for no mapping. If a mapping matches today's kernels, the upgrade loses the kmod."""
    matching = [version for version in today if version != kernel and _matches(container, version)]
    if matching:
        return findings.MAPPING_LOST(kernel=kernel, today=listed(matching), tried=tried)
    return findings.NO_MAPPING(kernel=kernel, tried=tried)


def _matches(container: Container, kernel: str) -> bool:
    try:
        choose_mapping(container.mappings, kernel)
    except (NoMapping, Malformed):
        return False
    return True


def resolve(module: MappedModule, container: Container, mapping: KernelMapping, kernel: TargetKernel) -> Case:
    """Return the plan for a mapping, or why its image has no name."""
    name: str | None = None
    try:
        name, sign = _substituted(mapping, kernel.version, module.name)
        image = Reference.parse(name)
    except NameUnresolved as exc:
        finding = findings.NAME_UNRESOLVED(problem=exc.problem)
        return Unresolved(module.name, kernel, finding, secret=module.secret)
    except Malformed as exc:
        finding = findings.IMAGE_NAME_INVALID(problem=exc.message)
        return Unresolved(module.name, kernel, finding, image_name=name, secret=module.secret)
    return Plan(
        module=module.name,
        kernel=kernel,
        image=image,
        kmod=container.module_name,
        directory=container.directory,
        tls=mapping.registry_tls or VERIFIED_HTTPS,
        secret=module.secret,
        account=module.account,
        pull_policy=container.pull_policy,
        build=mapping.build,
        sign=sign,
        in_tree_modules_to_remove=mapping.in_tree_modules_to_remove or (),
        modules_loading_order=container.modules_loading_order,
        firmware_path=container.firmware_path,
        load_options=container.load_options,
        parameters=container.parameters,
        raw_arguments=container.raw_arguments,
        selector=module.selector,
    )


def _substituted(mapping: KernelMapping, kernel: str, module: ModuleName) -> tuple[str, Sign | None]:
    """Return the name of the image, and the sign section. Raise NameUnresolved."""
    template = mapping.container_image or ""
    try:
        name = substitute(template, image_variables(kernel, module.namespace, module.name))
        sign = substituted_sign(mapping.sign, kernel)
    except Malformed as exc:
        raise NameUnresolved(exc.message) from exc
    if not name:
        raise NameUnresolved(f"containerImage {template} becomes empty")
    return name, sign


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
