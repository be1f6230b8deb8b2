"""Quality metrics: PSNR and SSIM on luma; LPIPS is in `agsr.metrics.lpips` and needs torch."""

from agsr.metrics.psnr_ssim import BORDER, psnr_y, ssim_y

__all__ = ["BORDER", "psnr_y", "ssim_y"]
