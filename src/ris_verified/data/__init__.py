"""Stored scenes: shards, manifest, batches."""
