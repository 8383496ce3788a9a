"""The batch sizes of a device: few, so that its kernels, engines and buffers are made once each."""


def padded(images: int) -> int:
    """Return the size of the run for a number of images: the next power of two."""
    return 1 << (images - 1).bit_length()


def sizes(most_images: int) -> tuple[int, ...]:
    """Return the sizes of all runs for up to a number of images, smallest first."""
    return tuple(1 << power for power in range(padded(most_images).bit_length()))
