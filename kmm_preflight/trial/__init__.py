"""A trial load: the target kernel boots in a virtual machine, and modprobe loads the kmods there as the node would."""
