"""Optimisation: state, step, schedule, validation, checkpoints."""
