"""Judging estimates and covariances against the truth."""
