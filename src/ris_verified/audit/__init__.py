"""Measures a pipeline, its source and its data against the launch checklist, and proves its own checks."""
