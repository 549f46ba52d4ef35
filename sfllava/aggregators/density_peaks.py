"""Clusters around density peaks, among the k nearest neighbours (DPC-KNN), without noise."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_distances(x: Tensor) -> Tensor:
    """(... M D) -> (... M M) squared distances over D, in float64, rounded: equal rows have distance zero."""
    wide = x.detach().double()
    squares = wide.square().sum(-1)
    products = wide @ wide.transpose(-1, -2)
    found = (squares[..., :, None] + squares[..., None, :] - 2 * products) / x.shape[-1]
    return found.clamp(min=0).round(decimals=9)


def peak_scores(squared: Tensor, k: int) -> Tensor:
    """Score how well each row would do as the centre of a cluster.

    density_i = exp(-mean of the squared distances to the k nearest, itself included); score_i = density_i times the
    distance to the nearest denser row, or the largest distance of all for the densest. Published code adds noise to
    tell equal densities apart; here the first of equal rows counts as denser.

    Args:
        squared: (... M M) from `squared_distances`.
        k: neighbours.

    Returns:
        (... M).
    """
    nearest = squared.topk(min(k, squared.shape[-1]), dim=-1, largest=False).values
    density = (-nearest.mean(-1)).exp()
    place = torch.arange(squared.shape[-1], device=squared.device)
    equal = (density[..., None, :] == density[..., :, None]) & (place[None, :] < place[:, None])
    denser = (density[..., None, :] > density[..., :, None]) | equal
    distance = squared.sqrt()
    largest = distance.amax((-1, -2), keepdim=True)
    return torch.where(denser, distance, largest).amin(-1) * density


def density_peaks(x: Tensor, clusters: int, k: int) -> tuple[Tensor, Tensor]:
    """Cluster rows around those of the highest scores.

    Args:
        x: (M D).
        clusters: at most M.
        k: neighbours.

    Returns:
        (clusters) indices of the centres, in order; (M) the cluster of each row, that of its nearest centre.
    """
    squared = squared_distances(x)
    best = peak_scores(squared, k).argsort(descending=True, stable=True)[:clusters]
    centres = best.sort().values
    owner = squared[:, centres].argmin(1)
    owner[centres] = torch.arange(clusters, device=x.device)
    return centres, owner
