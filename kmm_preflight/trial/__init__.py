"""Trial load: boot the target kernel in a virtual machine, and load the kmods there as KMM's worker does."""
