"""Sample, predicted and blended covariance."""
