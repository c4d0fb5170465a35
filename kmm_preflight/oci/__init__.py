"""Container images: names, registries, layouts, and the file system that the layers of an image make."""
