package visavis;

import visavis.v1.Vision;

/** The memory layout of raw pixels. Rows are stored without padding. */
public enum PixelFormat {
  /** 3 bytes per pixel. */
  RGB(Vision.PixelFormat.PIXEL_FORMAT_RGB),
  /** 3 bytes per pixel, as in OpenCV. Sent as RGB, they give wrong scores. */
  BGR(Vision.PixelFormat.PIXEL_FORMAT_BGR),
  /** One byte per pixel; 0 is black. */
  GRAY(Vision.PixelFormat.PIXEL_FORMAT_GRAY),
  /** A Y plane, then interleaved U and V at half resolution: BT.601, limited range. */
  NV12(Vision.PixelFormat.PIXEL_FORMAT_NV12);

  final Vision.PixelFormat value;

  PixelFormat(Vision.PixelFormat value) {
    this.value = value;
  }
}
