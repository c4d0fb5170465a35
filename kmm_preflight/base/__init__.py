"""Parts that several rooms use: decompression, typed fields of manifests, sorted tables on disk, and polling."""
