"""Somebody's covariance and MUSIC search: plain NumPy, one scene at a time, written without this library in mind."""

import functools

import numpy as np


def covariance(y, H, codes, ridge, centred=True):
    """Ridge least squares per snapshot: y is L x M, H is M x N, codes are L x N; returns N x N of trace N."""
    M, N = H.shape
    field = []
    for measured, code in zip(y, codes, strict=True):
        Phi = H * code
        alpha = ridge * (np.sum(np.abs(Phi) ** 2) / N + 1e-12)
        field.append(Phi.conj().T @ np.linalg.solve(Phi @ Phi.conj().T + alpha * np.eye(M), measured))
    X = np.array(field) - (np.mean(field, axis=0) if centred else 0)
    R = X.T @ X.conj()
    return R * (N / np.trace(R).real)


@functools.lru_cache(maxsize=4)
def grid(N_H, N_V, wavelength, spacing, view, counts):
    """Positions and unit-modulus spherical waves on a grid: uniform in sine of the angles and in 1/range."""
    azimuth_max, elevation_max, near, far = view
    azimuth = np.arcsin(np.linspace(-1, 1, counts[0]) * np.sin(azimuth_max))
    elevation = np.arcsin(np.linspace(-1, 1, counts[1]) * np.sin(elevation_max))
    distance = 1 / np.linspace(1 / far, 1 / near, counts[2])
    places = np.stack(np.meshgrid(azimuth, elevation, distance, indexing="ij"), -1).reshape(-1, 3)
    az, el, r = places.T
    xyz = r[:, None] * np.stack([np.cos(el) * np.cos(az), np.cos(el) * np.sin(az), np.sin(el)], -1)
    v, h = np.divmod(np.arange(N_H * N_V), N_H)
    panel = spacing * np.stack([np.zeros(N_H * N_V), h - (N_H - 1) / 2, v - (N_V - 1) / 2], -1)
    extra = np.linalg.norm(xyz[:, None] - panel, axis=-1) - r[:, None]
    return places, np.exp(-2j * np.pi / wavelength * extra)


def search(R, K, places, waves):
    """K strongest grid points of the MUSIC spectrum in distinct main lobes, as K x 3 azimuth, elevation, range."""
    U = np.linalg.eigh(R)[1][:, -K:]
    inside = np.sum(np.abs(waves.conj() @ U) ** 2, axis=1)
    found = []
    for _ in range(K):
        best = int(np.argmax(inside))
        found.append(places[best])
        inside[np.abs(waves @ waves[best].conj()) > len(R) / 2] = -1
    return np.array(found)
