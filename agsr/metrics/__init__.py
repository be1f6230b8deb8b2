"""Quality of a result: PSNR and SSIM on luma; LPIPS in `agsr.metrics.lpips`, by torch."""

from agsr.metrics.psnr_ssim import BORDER, BT601, GREY_WEIGHTS, luma, psnr_y, ssim_y

__all__ = ["BORDER", "BT601", "GREY_WEIGHTS", "luma", "psnr_y", "ssim_y"]
