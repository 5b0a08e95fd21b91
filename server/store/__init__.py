"""Models on disk: names, blobs, manifests, and how a model is made from uploaded files."""
