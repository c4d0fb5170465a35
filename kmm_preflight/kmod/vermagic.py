"""Version magic: the string of a kernel, and the strings of kmods that match it (docs/reference/loader.md 1.2)."""

from __future__ import annotations

from kmm_preflight.kmod.configuration import KernelConfiguration


def expected_vermagic(release: str, arch: str, configuration: KernelConfiguration) -> str:
    """Return the version magic of a kernel, composed as its build composes it.

    Trailing blanks count. arch: Go's spelling.
    """
    on = configuration.on
    parts = [release, "SMP" if on("SMP") else "", _preemption(configuration)]
    parts += ["mod_unload"] if on("MODULE_UNLOAD") else []
    parts += ["modversions"] if on("MODVERSIONS") else []
    text = "".join(f"{part} " for part in parts if part) + _architecture(arch, configuration)
    return text + _randomised(configuration)


def _preemption(configuration: KernelConfiguration) -> str:
    """Since 5.16 PREEMPT_BUILD decides: kernels with PREEMPT_DYNAMIC say preempt, in whatever mode they run."""
    if configuration.on("PREEMPT_RT") or configuration.on("PREEMPT_RT_FULL"):
        return "preempt_rt"
    return "preempt" if configuration.on("PREEMPT_BUILD") or configuration.on("PREEMPT") else ""


def _architecture(arch: str, configuration: KernelConfiguration) -> str:
    if arch == "arm64":
        return "aarch64"
    if arch != "ppc64le":
        return ""
    entry = ""
    if configuration.on("ARCH_USING_PATCHABLE_FUNCTION_ENTRY"):
        entry = "patchable-function-entry "
    elif configuration.on("MPROFILE_KERNEL"):
        entry = "mprofile-kernel "
    return entry + ("relocatable " if configuration.on("RELOCATABLE") else "")


def _randomised(configuration: KernelConfiguration) -> str:
    """Return the part for kernels with shuffled structures. No kmod matches it.

    The kernel's own string also has a hash of the seed, which .config does not contain.
    """
    return "RANDSTRUCT_" if configuration.on("RANDSTRUCT") or configuration.on("GCC_PLUGIN_RANDSTRUCT") else ""


def vermagic_matches(kmod: str, kernel: str, versioned: bool) -> bool:
    """True if the kernel accepts the kmod's version magic.

    versioned: both have symbol versions. The release, which is the text before the first blank, may then differ.
    """
    if versioned:
        return kmod[_first_blank(kmod) :] == kernel[_first_blank(kernel) :]
    return kmod == kernel


def _first_blank(text: str) -> int:
    """Return the position of the first blank, or the text's length."""
    position = text.find(" ")
    return position if position >= 0 else len(text)
