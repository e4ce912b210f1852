"""Positions: what tells a decoder where a token stands."""
