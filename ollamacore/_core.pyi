"""Types of the extension module."""

# ---- kernels ----

# ---- engine ----

# ---- sampler ----

# ---- text ----
