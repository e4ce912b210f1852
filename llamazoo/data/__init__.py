"""Where tokens come from: texts and probes, their tokens on disk, and the examples that are cut from them."""
