"""Findings about a Module and its mapping for a kernel."""

from __future__ import annotations

from kmm_preflight.catalogue import REFUTES, UNDECIDED, define

MODULE_INVALID = define(
    "module-invalid",
    REFUTES,
    "KMM cannot load this Module: {problem}",
    "Correct the Module. KMM's webhook rejects such a Module, so check that the webhook runs.",
)

MODULE_OVER_LIMIT = define(
    "module-over-limit",
    UNDECIDED,
    "this suite cannot read the Module, which KMM may accept: {problem}",
    "Shorten the regexp, for example to ^.+$, or write it as several kernel mappings.",
)

NO_MAPPING = define(
    "no-mapping",
    REFUTES,
    "no kernel mapping matches {kernel} ({tried})",
    "Add a mapping for {kernel}, or widen a regexp.",
)

MAPPING_LOST = define(
    "mapping-lost",
    REFUTES,
    "no kernel mapping matches {kernel} ({tried}), but one matches {today}, which the nodes boot today",
    "Add a mapping for {kernel}, or widen a regexp. Otherwise these nodes run without the kmod after the upgrade.",
)

NAME_UNRESOLVED = define(
    "name-unresolved",
    REFUTES,
    "the variables in an image name or path cannot be replaced: {problem}",
    "Correct the template. Its variables are KERNEL_FULL_VERSION, KERNEL_VERSION, KERNEL_XYZ, KERNEL_X, KERNEL_Y, "
    "KERNEL_Z and, in containerImage only, MOD_NAME and MOD_NAMESPACE.",
)

BOOT_IMAGE_TAGGED = define(
    "boot-image-tagged",
    REFUTES,
    "{field} has a tag or a digest ({image}), but nodes append :{kernel} to it at boot, so the image has no valid name",
    "Remove the tag or the digest from {field}. Push an image with the tag {kernel} to this repository.",
)

BOOT_TAG_IMPOSSIBLE = define(
    "boot-tag-impossible",
    REFUTES,
    "nodes with {kernel} look for an image with this tag at boot, but a tag has letters, digits, _, - and . only",
    "Load the kmod with a Module, because KMM replaces these characters there. Or move the nodes to the standard "
    "kernel. A {kind} cannot work on this kernel.",
)

IMAGE_NAME_INVALID = define(
    "image-name-invalid",
    REFUTES,
    "containerImage is not a valid image name: {problem}",
    "Write containerImage as host[:port]/repository[:tag][@digest].",
)
