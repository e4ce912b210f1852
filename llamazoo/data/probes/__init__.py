"""Synthetic tasks that tell architectures apart at small size, each with its accuracy."""
