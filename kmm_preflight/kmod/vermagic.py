"""The version magic: what a kernel's is, and which one of a kmod it takes (docs/reference/loader.md 1.2)."""

from __future__ import annotations

from kmm_preflight.kmod.configuration import KernelConfiguration


def expected_vermagic(release: str, arch: str, configuration: KernelConfiguration) -> str:
    """The kernel's own string, made as its build made it; arch is Go's spelling. Trailing blanks count."""
    on = configuration.on
    parts = [release, "SMP" if on("SMP") else "", _preemption(configuration)]
    parts += ["mod_unload"] if on("MODULE_UNLOAD") else []
    parts += ["modversions"] if on("MODVERSIONS") else []
    text = "".join(f"{part} " for part in parts if part) + _architecture(arch, configuration)
    return text + _randomised(configuration)


def _preemption(configuration: KernelConfiguration) -> str:
    """Since 5.16 PREEMPT_BUILD decides, so that kernels with PREEMPT_DYNAMIC say preempt whatever they boot as."""
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
    """A kernel with shuffled structures also names the seed's hash, which is in no .config: such ones do not match."""
    return "RANDSTRUCT_" if configuration.on("RANDSTRUCT") or configuration.on("GCC_PLUGIN_RANDSTRUCT") else ""


def same_vermagic(kmod: str, kernel: str, versioned: bool) -> bool:
    """Whether the kernel takes the kmod's; versioned: both sides have symbol versions, and the release is free then."""
    if versioned:
        return kmod[_blank(kmod) :] == kernel[_blank(kernel) :]
    return kmod == kernel


def _blank(text: str) -> int:
    found = text.find(" ")
    return found if found >= 0 else len(text)
