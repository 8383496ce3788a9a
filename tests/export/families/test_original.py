"""Pictures as the originals are given them: as a person sees them, and as the server does."""

import numpy as np
import pytest

from tests.server.pictures import EXIF_BLOCKS, with_exif
from visavis_export.families.original import upright
from visavis_server.settings import ImageLimits
from visavis_server.vision.image import decode


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("blocks", "turned"), EXIF_BLOCKS)
def test_the_original_sees_a_picture_as_it_is_served(
    form: str, blocks: list[bytes], turned: bool
) -> None:
    encoded = with_exif(form, *blocks)
    picture = upright(encoded)
    assert picture.size == ((10, 20) if turned else (20, 10))
    np.testing.assert_array_equal(np.asarray(picture), decode(encoded, ImageLimits()))
