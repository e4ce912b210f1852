"""Weights on disk: read strictly, written whole, renamed by rules that run both ways."""
