"""Attention: what moves information between tokens."""
