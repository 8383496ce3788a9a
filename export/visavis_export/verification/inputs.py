"""Explains an input tensor: the pipeline that makes it, and how that differs from the original's.

Every known mistake is one field of a pipeline. All of them, and their combinations, are tried on
the picture; the one with the fewest mistakes that makes the tensor is the explanation.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from visavis_export.errors import ExportError
from visavis_export.families.original import Floats
from visavis_export.verification.mistakes import finding
from visavis_export.verification.originals import Original
from visavis_export.verification.outcome import Finding
from visavis_export.verification.pipelines import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Filter,
    Geometry,
    Values,
)

# A pipeline makes a tensor if nearly all of its values are this close, in grey levels: other builds
# of OpenCV round a few pixels otherwise.
_LEVELS, _SHARE = 1.01, 0.999
_PADS = (0, 127, 128, 255)
_STEP = 32
_LARGE = 100_000


@dataclass(frozen=True, slots=True)
class _Trial:
    """A pipeline, what is wrong with it, and how far it is from a tensor, in grey levels."""

    mistakes: tuple[str, ...]
    geometry: Geometry
    values: Values
    mean_levels: float
    fits: bool


def as_planes(theirs: Floats) -> tuple[Floats, tuple[Finding, ...]]:
    """Return a given tensor as float32 [3, H, W]; channels last are a finding.

    Raises ExportError if it is no picture's tensor.
    """
    planes = np.asarray(theirs)
    if planes.ndim == 4 and planes.shape[0] == 1:
        planes = planes[0]
    if planes.ndim == 3 and planes.shape[0] == 3:
        return planes.astype(np.float32), ()
    if planes.ndim == 3 and planes.shape[2] == 3:
        turned = planes.transpose(2, 0, 1)
        return turned.astype(np.float32), (finding("channels last"),)
    raise ExportError(
        f"--input has the shape {list(np.shape(theirs))}; give one picture's tensor, "
        "[1, 3, height, width]"
    )


def explain(theirs: Floats, original: Original, encoded: bytes) -> tuple[Finding, ...]:
    """Return what is wrong with an input [3, H, W] of a picture; empty if it is the original's."""
    own = original.pipeline.geometry
    height, width = theirs.shape[1:]
    found: list[Finding] = []
    sized = own
    if (width, height) != (own.width, own.height):
        sized = replace(
            own,
            width=width,
            height=height,
            shorter_side=round(own.shorter_side * max(width, height) / own.width),
        )
        found.append(_of_size(own, width, height))
    if not np.isfinite(theirs).all():
        raise ExportError("--input contains NaN or infinity; save it again")
    best = min(
        _trials(theirs, original, sized, encoded),
        key=lambda one: (not one.fits, len(one.mistakes) if one.fits else one.mean_levels),
    )
    if not best.fits:
        nearest = " and ".join(best.mistakes) or "the original's input"
        found.append(finding("unknown input", nearest=nearest, levels=best.mean_levels))
        return tuple(found)
    found += [_worded(mistake, best, original) for mistake in best.mistakes]
    return tuple(found)


def _of_size(own: Geometry, width: int, height: int) -> Finding:
    """Return the finding for another size: a rectangle, or a size of its own."""
    facts = {
        "size": f"{width} × {height}",
        "own": f"{own.width} × {own.height}",
        "side": own.width,
    }
    longest = max(width, height) == max(own.width, own.height)
    if own.rule == "letterbox" and longest and min(width, height) % _STEP == 0:
        return finding("rectangle", **facts)
    return finding("size", **facts)


def _worded(mistake: str, trial: _Trial, original: Original) -> Finding:
    own, geometry = original.pipeline.geometry, trial.geometry
    values = original.pipeline.values
    return finding(
        mistake,
        pad=geometry.pad,
        filter=geometry.filter,
        own_filter=own.filter,
        side=geometry.shorter_side,
        own_side=own.shorter_side,
        mean=values.mean,
        std=values.std,
    )


def _trials(theirs: Floats, original: Original, own: Geometry, encoded: bytes) -> Iterator[_Trial]:
    """Yield every pipeline; the original's geometry first, and no others where that fits."""
    values = list(value_variants(original.pipeline.values))
    # A quarter of a large input tells as much.
    step = 2 if theirs[0].size > _LARGE else 1
    theirs = theirs[:, ::step, ::step]
    for mistakes, geometry in ((), own), *geometry_variants(own):
        pixels = geometry.pixels(encoded)[::step, ::step]
        fitting = False
        for more, numbers in values:
            levels = np.abs(theirs - numbers.tensor(pixels)) / numbers.level
            # float16 has 11 bits, also of pixels from 0 to 255.
            fits = bool(np.mean(levels <= _LEVELS) >= _SHARE)
            fitting = fitting or fits
            mean = float(np.minimum(levels, 1e4).mean())
            yield _Trial((*mistakes, *more), geometry, numbers, mean, fits)
        if fitting and not mistakes:
            return


def geometry_variants(own: Geometry) -> Iterator[tuple[tuple[str, ...], Geometry]]:
    """Yield geometries with known mistakes."""
    bilinear = replace(own, filter="OpenCV bilinear")
    stretched = replace(own, rule="stretch")
    yield ("stretched",), stretched
    yield ("orientation",), replace(own, upright=False)
    if own.rule == "letterbox":
        for pad in _PADS:
            yield ("pad",), replace(own, pad=pad)
            yield ("pad", "corner"), replace(own, pad=pad, centred=False)
            yield ("pad", "corner"), replace(own, rule="pad first", pad=pad, centred=False)
        yield ("corner",), replace(own, centred=False)
        yield ("corner",), replace(own, rule="pad first", centred=False)
        yield ("cropped",), replace(own, rule="centre square")
    for other in get_args(Filter):
        if other != own.filter:
            yield ("filter",), replace(own, filter=other)
            yield ("stretched", "filter"), replace(stretched, filter=other)
    if own.rule == "letterbox":
        return
    for pad in (114, *_PADS):
        yield ("letterboxed",), replace(bilinear, rule="letterbox", pad=pad)
    if own.rule == "shorter side":
        yield ("centre square",), replace(own, rule="centre square")
        yield ("centre square", "filter"), replace(bilinear, rule="centre square")
        sides = {own.width, round(own.width * 256 / 224), round(own.width * 232 / 224)}
        for side in sides - {own.shorter_side}:
            yield ("shorter side",), replace(own, shorter_side=side)
            yield ("shorter side", "filter"), replace(bilinear, shorter_side=side)
    else:
        for side in (own.width, round(own.width * 256 / 224)):
            resized = replace(own, rule="shorter side", shorter_side=side)
            yield ("resized first",), resized
            yield ("resized first", "filter"), replace(resized, filter="Pillow bilinear")


def value_variants(own: Values) -> Iterator[tuple[tuple[str, ...], Values]]:
    """Yield the original's values and those with known mistakes, in both channel orders."""
    for swapped in ((), ("BGR",)):
        base = replace(own, bgr=bool(swapped))
        yield swapped, base
        yield (*swapped, "not divided"), replace(base, divisions=0)
        yield (*swapped, "divided twice"), replace(base, divisions=2)
        half = replace(base, mean=(0.5,) * 3, std=(0.5,) * 3, normalised=1)
        yield (*swapped, "-1 to 1"), half
        if own.normalised:
            plain = replace(base, normalised=0)
            yield (*swapped, "mean and std missing"), plain
            yield (*swapped, "mean and std missing", "not divided"), replace(plain, divisions=0)
            yield (*swapped, "mean and std twice"), replace(base, normalised=2)
        else:
            with_mean = replace(base, mean=IMAGENET_MEAN, std=IMAGENET_STD, normalised=1)
            yield (*swapped, "mean and std added"), with_mean
            yield (
                (*swapped, "mean and std added", "not divided"),
                replace(with_mean, divisions=0),
            )
