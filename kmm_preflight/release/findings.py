"""Findings about the release image, its driver toolkits and its OS images."""

from __future__ import annotations

from kmm_preflight.catalogue import NOTE, REFUTES, UNDECIDED, WARNING, define

RELEASE_UNREAD = define(
    "release-unread",
    UNDECIDED,
    "{problem}",
    "Name the release image or the kernels so that they can be read, then run again.",
)

KERNEL_DIFFERS = define(
    "kernel-differs",
    REFUTES,
    "driver toolkit and OS image of the release have different kernels: got {got} in {toolkit}, expected {expected} in "
    "{image}, which is what nodes boot",
    "Take a release whose driver toolkit has its OS image's kernel, or build for {expected} and judge with "
    "--kernel={expected}.",
)

KERNEL_UNCLEAR = define(
    "kernel-unclear",
    UNDECIDED,
    "driver toolkit and OS image of the release seem to have different kernels: got {got} in {toolkit}, expected "
    "{expected}, and no proof of either: {why}",
    "Look which kernel the OS image has, and judge with --kernel.",
)

KERNEL_FILES_OS_IMAGE = define(
    "kernel-files-os-image",
    NOTE,
    "driver toolkit {toolkit} does not have all files of {kernel}: got {files} from OS image {image}, expected them in "
    "the toolkit",
    "None is needed: it is the image of the release that nodes boot this kernel of.",
)

OS_IMAGE_UNREAD = define(
    "os-image-unread",
    WARNING,
    "driver toolkit {toolkit} does not have all files of {kernel}, and the OS image was not read for them: got "
    "{problem}, expected {files} in {image}",
    "See to it that the OS image of the release can be pulled from here, as nodes pull it.",
)
