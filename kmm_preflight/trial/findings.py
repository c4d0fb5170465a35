"""Findings of a trial load in a virtual machine."""

from __future__ import annotations

from kmm_preflight.catalogue import NOTE, REFUTES, UNDECIDED, WARNING, define

TRIAL_LOADED = define(
    "trial-loaded",
    NOTE,
    "{kmod} loads on {kernel} {how}: modprobe loaded {got}",
    "No action is needed. The lines show the output of modprobe and the kernel.",
)

TRIAL_REFUSED = define(
    "trial-refused",
    REFUTES,
    "{kmod} does not load on {kernel} {how}: {got}",
    "Read the output of the kernel in the lines, then build the kmod for {kernel}.",
)

TRIAL_NO_DEVICE = define(
    "trial-no-device",
    WARNING,
    "the loader of {kernel} accepts {kmod} {how}, but the kmod finds no device and does not stay loaded: {got}",
    "If you need proof that its init works, load the kmod on a node that has the device.",
)

TRIAL_KEY_UNKNOWN = define(
    "trial-key-unknown",
    UNDECIDED,
    "{kmod} is not proved to load on {kernel} {how}: {got}",
    "Enroll the key on the nodes with mokutil and load the kmod there. Or run without --trial-sig-enforce.",
)

TRIAL_UNDECIDED = define(
    "trial-undecided",
    UNDECIDED,
    "the trial load of {kmod} on {kernel} {how} gave no clear result: {got}",
    "Allow more time with --trial-timeout, or load the kmod by hand on a node with the new kernel.",
)

TRIAL_UNABLE = define(
    "trial-unable",
    UNDECIDED,
    "the trial load of {kmod} on {kernel} cannot run: {got}",
    "{remedy}",
)
