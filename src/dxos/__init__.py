"""DXOS in Python: local-first, peer-to-peer spaces."""

__version__ = "0.1.0"
