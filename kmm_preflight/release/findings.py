"""Findings about the release image, its driver toolkits and its OS images."""

from __future__ import annotations

from kmm_preflight.catalogue import NOTE, REFUTES, UNDECIDED, WARNING, define

RELEASE_UNREAD = define(
    "release-unread",
    UNDECIDED,
    "{problem}",
    "Pass a release image that can be read, or pass the kernels with --kernel. Then run again.",
)

KERNEL_DIFFERS = define(
    "kernel-differs",
    REFUTES,
    "the driver toolkit and the OS image of the release have different kernels: got {got} in {toolkit}, expected "
    "{expected}, which nodes boot, as in {image}",
    "Use a release whose driver toolkit has the kernel of its OS image. Or build for {expected} and check with "
    "--kernel={expected}.",
)

KERNEL_UNCLEAR = define(
    "kernel-unclear",
    UNDECIDED,
    "the driver toolkit and the OS image of the release seem to have different kernels: got {got} in {toolkit}, "
    "expected {expected}; this cannot be proved: {why}",
    "Find out which kernel the OS image has, then pass that kernel with --kernel.",
)

KERNEL_FILES_OS_IMAGE = define(
    "kernel-files-os-image",
    NOTE,
    "driver toolkit {toolkit} lacks files of {kernel}, so they were read from OS image {image}: {files}",
    "No action is needed: nodes boot this kernel from that OS image.",
)

OS_IMAGE_UNREAD = define(
    "os-image-unread",
    WARNING,
    "driver toolkit {toolkit} lacks files of {kernel} ({files}), and OS image {image} could not be read: {problem}",
    "Make sure that this machine can pull the OS image of the release, as nodes do.",
)
