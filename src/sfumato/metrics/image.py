# SPDX-License-Identifier: Apache-2.0
"""How close reconstructions are to the pictures, one number a picture: MSE, PSNR, SSIM, and LPIPS where its weights are there.

Source: wang2004ssim; zhang2018lpips; xia2025cem, section 5.1 and Tables S1 to S4 for the PSNR of the mean MSE.
Equations: PSNR = -10 log10(MSE) for a peak of 1 -> psnr; wang2004ssim (13) with the weighted moments (14) to (16) -> ssim
Departures: the CEM release takes the PSNR of each batch of 256 and averages; the PSNR of the mean MSE over all pictures does not
depend on the batches. SSIM mirrors the borders of a picture, where the CEM release pads them with zeros.
"""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from sfumato.errors import ConfigError, DataError
from sfumato.types import Images

_CHUNK = 256


def mse(x_hat: Images, x: Images) -> Tensor:
    """Return the mean squared error of each picture.

    Args:
        x_hat: reconstructions, (N, C, H, W), [0, 1].
        x: the pictures, the same shape.

    Returns:
        (N,), float32, at least 0.

    Raises:
        DataError: the shapes differ.

    Example:
        >>> mse(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5))
        tensor([0.2500])
    """
    _require_same_shape(x_hat, x)
    return (x_hat - x).square().flatten(1).mean(1)


def region_mse(x_hat: Images, x: Images, boxes: Int64[Tensor, "n 4"]) -> tuple[Tensor, Tensor]:
    """Return the mean squared error inside and outside a box of each picture.

    Args:
        x_hat: reconstructions, (N, C, H, W), [0, 1].
        x: the pictures, the same shape.
        boxes: top, left, bottom and right of each, (N, 4), int64: rows top to bottom - 1, columns left to right - 1. What lies
            beyond the picture does not count.

    Returns:
        Inside, float32, a number for each picture whose box holds a pixel; outside, for each with a pixel beside its box.

    Raises:
        DataError: the shapes differ.

    Example:
        >>> x = torch.zeros(1, 1, 2, 2)
        >>> region_mse(torch.tensor([[[[1.0, 0.5], [0.5, 0.5]]]]), x, torch.tensor([[0, 0, 1, 1]]))
        (tensor([1.]), tensor([0.2500]))
    """
    _require_same_shape(x_hat, x)
    top, left, bottom, right = boxes.to(x.device)[:, :, None].unbind(1)
    row, column = (torch.arange(side, device=x.device) for side in x.shape[-2:])
    down, across = (top <= row) & (row < bottom), (left <= column) & (column < right)
    inside = down[:, :, None] & across[:, None, :]
    errors = (x_hat - x).square().mean(1)
    return _mean_where(errors, inside), _mean_where(errors, ~inside)


def _mean_where(errors: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the masked pixels of each picture that has any; both (N, H, W)."""
    count = mask.sum((1, 2))
    return ((errors * mask).sum((1, 2)) / count)[count > 0]


def psnr(mse: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of a mean squared error, for a peak of 1.

    Args:
        mse: any shape, pixels in [0, 1].

    Returns:
        dB, the same shape; infinite where the error is 0.

    Example:
        >>> psnr(torch.tensor(0.01))
        tensor(20.)
    """
    return -10 * torch.log10(mse)


def ssim(x_hat: Images, x: Images) -> Tensor:
    """Return the structural similarity of each picture, with a Gaussian window of 11x11 and sigma 1.5, and with gradient.

    Args:
        x_hat: reconstructions, (N, C, H, W), [0, 1].
        x: the pictures, the same shape, at least 6 pixels on each side.

    Returns:
        (N,), float32, at most 1.

    Raises:
        DataError: the shapes differ, or a side is under 6 pixels.

    Example:
        >>> x = torch.rand(1, 1, 12, 12)
        >>> ssim(x, x)
        tensor([1.])
    """
    _require_same_shape(x_hat, x)
    if min(x.shape[-2:]) < 6:
        raise DataError(f"SSIM needs pictures of at least 6x6 pixels, found {x.shape[-2]}x{x.shape[-1]}; scale them up")
    return torch.cat([_ssim(a, b) for a, b in zip(x_hat.split(_CHUNK), x.split(_CHUNK), strict=True)])


def lpips(x_hat: Images, x: Images) -> Tensor | None:
    """Return the perceptual distance of each picture (AlexNet), or None where the extra or its weights are not installed.

    Args:
        x_hat: reconstructions, (N, C, H, W), [0, 1].
        x: the pictures, the same shape.

    Returns:
        (N,), float32, at least 0; or None. Nothing is downloaded.

    Raises:
        DataError: the shapes differ.
    """
    _require_same_shape(x_hat, x)
    try:
        network = _lpips_network()
    except ConfigError:
        return None
    pairs = zip(x_hat.split(_CHUNK), x.split(_CHUNK), strict=True)
    with torch.no_grad():
        return torch.cat([network.to(x.device)(_rgb(a), _rgb(b), normalize=True).flatten() for a, b in pairs])


def _ssim(a: Images, b: Images) -> Tensor:
    """Return the mean over windows and channels of the similarity of two sets of pictures, (N,)."""
    rows, columns = _window(a.shape[-2], a), _window(a.shape[-1], a).T
    # Two small matrix products blur 17 times faster here than a convolution with the window does.
    mean_a, mean_b, square_a, square_b, product = (rows @ (v @ columns) for v in (a, b, a * a, b * b, a * b))
    luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a.square() + mean_b.square() + 1e-4)
    variances = (square_a - mean_a.square()).clamp_min(0) + (square_b - mean_b.square()).clamp_min(0)
    contrast = (2 * (product - mean_a * mean_b) + 9e-4) / (variances + 9e-4)
    return (luminance * contrast).flatten(1).mean(1)  # Eq. (13), C1 = 0.01^2 and C2 = 0.03^2


def _window(side: int, like: Tensor) -> Tensor:
    """Return the matrix, (side, side), that weighs a line of pixels by the Gaussian window, its ends mirrored."""
    offsets = torch.arange(-5, 6, device=like.device)
    weights = torch.softmax(-offsets.to(like.dtype).square() / (2 * 1.5**2), 0)
    places = (torch.arange(side, device=like.device)[:, None] + offsets).abs()
    places = (side - 1) - ((side - 1) - places).abs()
    return like.new_zeros(side, side).scatter_add_(1, places, weights.expand(side, -1))


def lpips_is_there() -> bool:
    """Return whether `lpips` has its package and its weights."""
    try:
        _lpips_network()
    except ConfigError:
        return False
    return True


def _lpips_network() -> torch.nn.Module:
    """Return the network of the extra "perceptual", from weights that are on the disk already.

    Raises:
        ConfigError: the package or its backbone is not there.
    """
    try:
        import lpips as package
        from torchvision.models import AlexNet_Weights
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch raises RuntimeError
        raise ConfigError('LPIPS needs the extra: pip install "sfumato[perceptual]"') from error
    name = AlexNet_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    backbone = f"{torch.hub.get_dir()}/checkpoints/{name}"
    try:
        with open(backbone, "rb"):
            network: torch.nn.Module = package.LPIPS(net="alex", verbose=False).eval()
    except OSError as error:
        raise ConfigError(f"LPIPS needs its backbone at {backbone}; it is never downloaded at run time") from error
    return network


def _rgb(x: Images) -> Images:
    """Return pictures with three channels."""
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x


def _require_same_shape(x_hat: Images, x: Images) -> None:
    if x_hat.shape != x.shape:
        raise DataError(f"expected reconstructions of shape {tuple(x.shape)}, found {tuple(x_hat.shape)}")
