"""The real parts that the tests stand on: registries, image builds, kernel modules. Each says how to enable it."""
