"""Skin-lesion diagnosis from dermoscopic images and metadata, with PyTorch Lightning."""

__version__ = "0.1.0"
