"""The init of the virtual machine: a shell script that loads kmods one after the other.

All that it tells goes through the kernel's own log to the console, so that it stands in one order with what the kernel
says. A token that is new for each boot tells the two apart: a kmod cannot print what it does not know.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

# What follows the token: a word, and mostly one thing more.
KERNEL = "kernel"  # the release that runs
BEGIN, END = "begin", "end"  # a step, by its number
BEFORE = "before"  # a file that nodes have loaded already, and that does not load here
TOLD, CODE = "told", "code"  # a line of modprobe, its exit code
LIVE = "live"  # a kmod that is loaded at the end of a step
ENFORCED = "enforced"  # whether unsigned kmods are refused by now, Y or N
STAYS, ALL = "stays", "all"  # the end: a kmod cannot be unloaded, or every step was made

# 8: all of what the kernel says comes to the console from now on, and not what it said while it booted.
_HEAD = f"""#!/bin/sh
token={{token}}
export PATH=/bin LC_ALL=C
exec </dev/null >/dev/null 2>&1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
echo 8 >/proc/sys/kernel/printk
say() {{{{ printf '%.900s\\n' "$token $*" >/dev/kmsg; }}}}
tell() {{{{ while IFS= read -r line; do say {TOLD} "$line"; done; }}}}
rest() {{{{ while :; do read -r line </dev/console; done; }}}}
modules() {{{{ while read -r name _; do say {LIVE} "$name"; done </proc/modules; }}}}
enforce() {{{{
  of=/sys/module/module/parameters/sig_enforce
  echo 1 >$of
  on=N
  read -r on <$of
  say {ENFORCED} "$on"
}}}}
unload() {{{{
  again=y
  while [ $again ]; do
    again=
    while read -r name _; do rmmod "$name" && again=y; done </proc/modules
  done
  umount /tmp /etc/modprobe.d
  if read -r name _ </proc/modules; then
    say {STAYS}
    rest
  fi
}}}}
lay() {{{{ mount --bind "$1/tmp" /tmp; mount --bind "$1/modprobe.d" /etc/modprobe.d; }}}}
read -r release </proc/sys/kernel/osrelease
say {KERNEL} "$release"
"""
_TAIL = f"""say {ALL}
rest
"""


@dataclass(frozen=True)
class Step:
    """One call of modprobe: its arguments behind -v, and the folder that is laid out for it.

    insmod names files that are loaded before, as a node has them already; enforced: with module.sig_enforce=1.
    """

    number: int
    folder: str
    arguments: tuple[str, ...]
    insmod: tuple[str, ...] = ()
    enforced: bool = False


def init_script(token: str, steps: Sequence[Step]) -> str:
    """The script. Steps that are enforced come last: what is enforced once stays so until the next boot."""
    ordered = sorted(steps, key=lambda step: (step.enforced, step.number))
    return _HEAD.format(token=token) + "".join(_step(step) for step in ordered) + _TAIL


def ready_mark(token: str) -> str:
    """What stands on the console once the script runs."""
    return f"{token} {KERNEL} "


def last_marks(token: str) -> tuple[str, ...]:
    """What stands there when nothing more will come."""
    return f"{token} {ALL}", f"{token} {STAYS}"


def _step(step: Step) -> str:
    lines = [f"lay {shlex.quote(step.folder)}"]
    lines += ["enforce"] if step.enforced else []
    lines += [f"say {BEGIN} {step.number}"]
    files = [shlex.quote(path) for path in step.insmod]
    lines += [f"{{ insmod {path} 2>&1 || say {BEFORE} {path}; }} | tell" for path in files]
    command = shlex.join(("modprobe", "-v", *step.arguments))
    lines += [f"{{ {command} </dev/null 2>&1; say {CODE} $?; }} | tell", "modules", f"say {END}", "unload"]
    return "\n".join(lines) + "\n"
