"""Findings about a Module and the mapping that it has for a kernel."""

from __future__ import annotations

from kmm_preflight.catalogue import REFUTES, define

MODULE_INVALID = define(
    "module-invalid",
    REFUTES,
    "the Module in the cluster is none that KMM can load: {problem}",
    "Correct the Module; KMM's webhook would have refused it, so look whether it runs.",
)

NO_MAPPING = define(
    "no-mapping",
    REFUTES,
    "no kernel mapping matches {kernel}: got {tried}, expected a literal equal to it or a regexp found in it",
    "Add a mapping for {kernel}, or widen a regexp.",
)

NAME_UNRESOLVED = define(
    "name-unresolved",
    REFUTES,
    "the name of the container image cannot be made: got {got}, expected {expected}",
    "Correct the template in containerImage; variables are KERNEL_FULL_VERSION, KERNEL_VERSION, KERNEL_XYZ, "
    "KERNEL_X, KERNEL_Y, KERNEL_Z, MOD_NAME and MOD_NAMESPACE.",
)

IMAGE_NAME_INVALID = define(
    "image-name-invalid",
    REFUTES,
    "the image name does not parse: {problem}",
    "Write containerImage as host[:port]/repository[:tag][@digest].",
)

MAPPING_LOST = define(
    "mapping-lost",
    REFUTES,
    "no kernel mapping matches {kernel}, while one matches {today}, which its nodes boot today: got {tried}, expected "
    "a literal equal to the new kernel or a regexp found in it",
    "Add a mapping for {kernel}, or widen a regexp: after the upgrade these nodes run without the kmod.",
)
