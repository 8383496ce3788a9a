"""How an image becomes a model's input."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from visavis_server.card.fields import Part, Positive


class ShorterSide(Part):
    """Resize the shorter side, then crop the centre, as torchvision's transforms do with Pillow.

    `size` is the length of the shorter side in pixels after the bilinear, antialiased resize.
    """

    rule: Literal["shorter_side"] = "shorter_side"
    size: Positive


class Stretch(Part):
    """Resize to the input's width and height with Pillow; the aspect ratio is not kept."""

    rule: Literal["stretch"] = "stretch"


class CenterSquare(Part):
    """Crop the largest centred square, then resize it with OpenCV, bilinear.

    YOLOv5's classification pre-processing.
    """

    rule: Literal["center_square"] = "center_square"


class Letterbox(Part):
    """Scale to fit and pad with grey: YOLOv5's fixed-size letterbox, with OpenCV, bilinear.

    `unpad` says how boxes are mapped back to the image. "exact", as in YOLOv5: subtract the
    padding in fractions of a pixel and divide by one scale. "rounded", as in ultralytics: subtract
    whole pixels and divide by each side's rounded scale.
    """

    rule: Literal["letterbox"] = "letterbox"
    pad_value: Annotated[int, Field(ge=0, le=255)] = 114
    unpad: Literal["exact", "rounded"]


class ShorterSideWithin(Part):
    """Resize the shorter side to `size`, or the longer to `longest` if that is less.

    As torchvision's detectors do: bilinear without antialiasing, in floating point. The whole
    picture is the input, so its width and height vary.
    """

    rule: Literal["shorter_side_within"] = "shorter_side_within"
    size: Positive
    longest: Positive


class ModelInput(Part):
    """The input tensor: [batch, 3, height, width], RGB, (value / 255 - mean) / std.

    With `shorter_side_within`, width and height are the largest that occur.
    """

    tensor: str
    width: Positive
    height: Positive
    dtype: Literal["float32", "float16"] = "float32"
    resize: Annotated[
        ShorterSide | Stretch | CenterSquare | Letterbox | ShorterSideWithin,
        Field(discriminator="rule"),
    ]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if isinstance(self.resize, ShorterSide) and self.resize.size < max(self.width, self.height):
            raise ValueError(f"a shorter side of {self.resize.size} is too small for the crop")
        if isinstance(self.resize, ShorterSideWithin):
            longest = self.resize.longest
            if not self.resize.size <= longest == self.width == self.height:
                raise ValueError(
                    f"with a longer side of at most {longest}, width and height must be {longest} "
                    "and the shorter side no longer"
                )
        return self

    @property
    def varies(self) -> bool:
        """True if width and height depend on the picture."""
        return isinstance(self.resize, ShorterSideWithin)

    def describe_resize(self) -> str:
        """Return the resize rule in words."""
        target = f"{self.width}x{self.height}"
        match self.resize:
            case ShorterSide(size=size):
                return f"shorter side to {size}, centre crop {target}"
            case Stretch():
                return f"stretched to {target}"
            case CenterSquare():
                return f"centre square to {target}"
            case Letterbox():
                return f"letterbox to {target}"
            case ShorterSideWithin(size=size, longest=longest):
                return f"shorter side to {size}, longer side to at most {longest}"
