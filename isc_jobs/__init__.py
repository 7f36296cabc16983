"""Image copy detection: the ISC21 winning descriptor recipe as a batch pipeline."""

__version__ = "0.1.0"
