"""Frozen backbones judged by simple classifiers of their embeddings; nearest cases; likely label errors."""
