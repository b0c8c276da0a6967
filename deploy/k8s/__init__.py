"""Kubernetes manifests, and what generates the one that repeats another file. Not part of the distribution."""
