"""From snapshots to covariance factors."""
