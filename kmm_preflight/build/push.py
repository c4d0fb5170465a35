"""Whether a result may be pushed to its name: never over what another kernel's nodes load."""

from __future__ import annotations

from kmm_preflight.build import findings
from kmm_preflight.build.builder import BuildRequest
from kmm_preflight.errors import AccessDenied, NotFound, PlatformMissing
from kmm_preflight.model import Finding
from kmm_preflight.oci.filesystem import LinkBroken
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import Reference
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.planning.plan import Plan
from kmm_preflight.planning.template import normalized
from kmm_preflight.text import listed


def why_not_push(request: BuildRequest, images: ImageResolver) -> Finding | None:
    """Whose the name is, when pushing to it needs --overwrite; None when it may be pushed to.

    Raises what asking for the image raises, but not that there is none.
    """
    plan, name = request.plan, Reference.parse(request.image)
    try:
        there = images.image(name, plan.kernel.arch, request.credentials, request.push_tls)
    except PlatformMissing as exc:
        return findings.PUSH_REFUSED(
            image=request.image, problem=f"nodes of another architecture load it: {exc.message}"
        )
    except NotFound:
        return None
    except AccessDenied as exc:
        # Many registries say so of what is not there yet; whether it may be pushed, the push itself will show.
        if _names_kernel(name.tag, plan):
            return None
        return findings.PUSH_REFUSED(image=request.image, problem=f"whose it is cannot be seen: {exc.message}")
    if there.resolved.digest != there.resolved.manifest_digest:
        problem = "got an image index there, whose other architectures would be gone"
        return findings.PUSH_REFUSED(image=request.image, problem=problem)
    kernels = [kernel for kernel in _kernels(plan, there) if kernel != plan.kernel.version]
    if kernels:
        problem = f"got an image there that has kmods for {listed(kernels)}, whose nodes load them"
        return findings.PUSH_REFUSED(image=request.image, problem=problem)
    if not _names_kernel(name.tag, plan):
        problem = f"got an image under tag {name.tag}, which names no kernel, so that nodes of any may load it"
        return findings.PUSH_REFUSED(image=request.image, problem=problem)
    return None


def _kernels(plan: Plan, image: Image) -> list[str]:
    """The kernels that the image has kmods for."""
    try:
        located = image.files.resolve(plan.folder.rpartition("/")[0])
    except LinkBroken:
        return []
    return image.files.children(located.path) if located else []


def _names_kernel(tag: str | None, plan: Plan) -> bool:
    return tag is not None and normalized(plan.kernel.version) in tag
