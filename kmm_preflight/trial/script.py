"""Init script of the virtual machine: loads kmods one after the other.

The script writes to the kernel's log, so that its lines and the kernel's lines have one order on the console. A token
that is new for each boot marks the lines of the script. A kmod does not know the token, so it cannot imitate them.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

# Words after the token.
KERNEL = "kernel"  # the release of the running kernel
BEGIN, END = "begin", "end"  # a step; BEGIN with its number
REFUSED_BEFORE = "before"  # a file that nodes load before the kmod, and that does not load here
PRINTED, CODE = "printed", "code"  # a line of modprobe, and its exit code
LOADED = "loaded"  # a kmod that is loaded at the end of a step
ENFORCED = "enforced"  # value of module.sig_enforce, Y or N
STUCK, ALL = "stuck", "all"  # the end: a kmod cannot be unloaded, or all steps ran

# printk level 8: from here on all lines of the kernel are printed on the console.
_HEAD = f"""#!/bin/sh
token={{token}}
export PATH=/bin LC_ALL=C
exec </dev/null >/dev/null 2>&1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
echo 8 >/proc/sys/kernel/printk
say() {{{{ printf '%.900s\\n' "$token $*" >/dev/kmsg; }}}}
forward() {{{{ while IFS= read -r line; do say {PRINTED} "$line"; done; }}}}
wait_for_end() {{{{ while :; do read -r line </dev/console; done; }}}}
modules() {{{{ while read -r name _; do say {LOADED} "$name"; done </proc/modules; }}}}
enforce() {{{{
  parameter=/sys/module/module/parameters/sig_enforce
  echo 1 >$parameter
  value=N
  read -r value <$parameter
  say {ENFORCED} "$value"
}}}}
unload() {{{{
  again=y
  while [ $again ]; do
    again=
    while read -r name _; do rmmod "$name" && again=y; done </proc/modules
  done
  umount /tmp /etc/modprobe.d
  if read -r name _ </proc/modules; then
    say {STUCK}
    wait_for_end
  fi
}}}}
mount_folder() {{{{ mount --bind "$1/tmp" /tmp; mount --bind "$1/modprobe.d" /etc/modprobe.d; }}}}
read -r release </proc/sys/kernel/osrelease
say {KERNEL} "$release"
"""
_TAIL = f"""say {ALL}
wait_for_end
"""


@dataclass(frozen=True)
class Step:
    """Modprobe call in the init script."""

    number: int
    """Number of the step in the output."""
    folder: str
    """Folder of the initramfs with the trial's /tmp and /etc/modprobe.d."""
    arguments: tuple[str, ...]
    """Arguments after `modprobe -v`."""
    insmod: tuple[str, ...] = ()
    """Files that nodes load before the kmod, in order."""
    enforced: bool = False
    """True for a load with module.sig_enforce=1."""


def init_script(token: str, steps: Sequence[Step]) -> str:
    """Return the script. Steps with enforced signatures are last, since only a boot resets module.sig_enforce."""
    ordered = sorted(steps, key=lambda step: (step.enforced, step.number))
    return _HEAD.format(token=token) + "".join(_step(step) for step in ordered) + _TAIL


def ready_mark(token: str) -> str:
    """Return the text that is on the console as soon as the script runs."""
    return f"{token} {KERNEL} "


def last_marks(token: str) -> tuple[str, ...]:
    """Return the texts after which the script prints no more."""
    return f"{token} {ALL}", f"{token} {STUCK}"


def _step(step: Step) -> str:
    lines = [f"mount_folder {shlex.quote(step.folder)}"]
    lines += ["enforce"] if step.enforced else []
    lines += [f"say {BEGIN} {step.number}"]
    files = [shlex.quote(path) for path in step.insmod]
    lines += [f"{{ insmod {path} 2>&1 || say {REFUSED_BEFORE} {path}; }} | forward" for path in files]
    command = shlex.join(("modprobe", "-v", *step.arguments))
    lines += [f"{{ {command} </dev/null 2>&1; say {CODE} $?; }} | forward", "modules", f"say {END}", "unload"]
    return "\n".join(lines) + "\n"
