"""Drawings of architectures: what a spec is made of (scene), where it stands on the page (layout), and as SVG (svg)."""
