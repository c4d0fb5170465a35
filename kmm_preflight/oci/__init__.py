"""Images: names, registries, mirrors, layouts, layers, and the file system of an image.

Other rooms open an image only through `resolver.ImageResolver`.
"""
