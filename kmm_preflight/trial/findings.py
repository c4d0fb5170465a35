"""Findings of a trial load in a virtual machine."""

from __future__ import annotations

from kmm_preflight.catalogue import NOTE, REFUTES, UNDECIDED, WARNING, define

TRIAL_LOADED = define(
    "trial-loaded",
    NOTE,
    "{kmod} loads on {kernel} {how}: got {got} loaded, as modprobe loads it on a node",
    "None is needed: the lines are what modprobe and the kernel said.",
)

TRIAL_REFUSED = define(
    "trial-refused",
    REFUTES,
    "{kmod} does not load on {kernel} {how}: got {got}, expected it loaded",
    "Read what the kernel said in the lines, and build the kmod for {kernel}.",
)

TRIAL_NO_DEVICE = define(
    "trial-no-device",
    WARNING,
    "{kmod} was taken by the loader of {kernel} {how}, and did not stay: got {got}, expected its device, which the "
    "virtual machine has not",
    "Load the kmod on a node that has its device, if a proof of its init is wanted.",
)

TRIAL_KEY_UNKNOWN = define(
    "trial-key-unknown",
    UNDECIDED,
    "{kmod} is not shown to load on {kernel} {how}: got {got}, expected one that nodes have enrolled",
    "Enrol the key on the nodes with mokutil, and load the kmod there; or run without --trial-sig-enforce.",
)

TRIAL_UNDECIDED = define(
    "trial-undecided",
    UNDECIDED,
    "{kmod} is not shown to load on {kernel} {how}: got {got}, expected a load or a refusal",
    "Give it more time with --trial-timeout, or load the kmod on a node of the new kernel by hand.",
)

TRIAL_UNABLE = define(
    "trial-unable",
    UNDECIDED,
    "{kmod} cannot be tried on {kernel}: got {got}, expected all that a trial load needs",
    "{remedy}",
)
