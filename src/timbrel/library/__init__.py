"""The library of patches: tables, pitch-conditioned index, two-stage order, and the bundle that carries them."""
