"""The parts of torchvision's detectors that become ONNX graphs, and random weights for them.

The graphs take one resized, normalised picture of any size and pad it themselves.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  the customary name
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet

from visavis_export.families import random_weights
from visavis_export.families.random_weights import Spread

_MULTIPLE = 32
# The pictures that random weights are calibrated with.
_PICTURES, _LARGEST_SIDE = 3, 384


def padded(image: Tensor) -> Tensor:
    """Return images [n, 3, h, w] with zeros at the right and bottom, to multiples of 32."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE))


class RetinanetGraph(nn.Module):
    """Backbone, pyramid and heads: the logits of every level, then the deltas."""

    def __init__(self, model: RetinaNet) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.classification = model.head.classification_head
        self.regression = model.head.regression_head

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return [n, anchors * classes, h, w] per level, then [n, anchors * 4, h, w]."""
        levels = list(self.backbone(padded(image)).values())
        logits = [self.classification.cls_logits(self.classification.conv(x)) for x in levels]
        deltas = [self.regression.bbox_reg(self.regression.conv(x)) for x in levels]
        return (*logits, *deltas)


class FasterRcnnGraph(nn.Module):
    """Both stages of Faster R-CNN for one picture, up to the logits and deltas of every proposal.

    The number of proposals is fixed; those beyond the picture's own are background for certain.
    """

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.rpn = model.rpn
        self.roi_heads = model.roi_heads
        self.probes: Tensor
        # A fixed grid of boxes, as shares of the picture, whose results depend on no near tie.
        edges = torch.linspace(0.0, 0.75, 4)
        top, left = (grid.flatten() for grid in torch.meshgrid(edges, edges, indexing="ij"))
        probes = torch.stack((left, top, left + 0.25, top + 0.25), 1)
        self.register_buffer("probes", probes, persistent=False)
        for level, anchors in enumerate(model.rpn.anchor_generator.cell_anchors):
            self.register_buffer(f"anchors_{level}", anchors, persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return proposals [1, n, 4], logits [1, n, classes] and deltas [1, n, 4 * classes].

        And, for the golden sample: logits and deltas of the probes, and each level's objectness
        [1, anchors, h, w].
        """
        whole = padded(image)
        features = list(self.backbone(whole).values())
        objectness, rpn_deltas = self.rpn.head(features)
        parts = [
            self._level(index, scores[0], deltas[0], whole, image)
            for index, (scores, deltas) in enumerate(zip(objectness, rpn_deltas, strict=True))
        ]
        boxes, scores = (torch.cat(each) for each in zip(*parts, strict=True))
        scores, best = scores.topk(self.rpn.post_nms_top_n())
        proposals = boxes[best]
        logits, deltas = self.second_stage(features, torch.cat((proposals, self._probes(image))))
        count = self.rpn.post_nms_top_n()
        # Too far below the background for any threshold: these were suppressed, or are padding.
        absent = F.pad(torch.full_like(logits[:count, :1], 1e4), (0, logits.shape[1] - 1))
        own = torch.where(scores[:, None] >= 0, logits[:count], absent)
        rows = proposals[None], own[None], deltas[None, :count]
        return (*rows, logits[None, count:], deltas[None, count:], *objectness)

    def _probes(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        return torch.stack(
            (
                self.probes[:, 0] * width,
                self.probes[:, 1] * height,
                self.probes[:, 2] * width,
                self.probes[:, 3] * height,
            ),
            1,
        )

    def _level(
        self, index: int, objectness: Tensor, deltas: Tensor, whole: Tensor, image: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the boxes [n, 4] of one level and their scores [n]: -1 if dropped.

        objectness: [anchors, h, w]. deltas: [4 * anchors, h, w].
        """
        anchors = getattr(self, f"anchors_{index}")
        most, each = self.rpn.pre_nms_top_n(), len(anchors)
        height, width = objectness.shape[1:]
        flat = objectness.permute(1, 2, 0).flatten()  # cell, anchor
        # A small level is filled up, so that every level has the same number of candidates.
        filled = torch.cat((flat, flat.new_full((most,), -torch.inf)))
        logits, places = filled.topk(most)
        real = logits > -torch.inf
        places = torch.where(real, places, torch.zeros_like(places))
        cell, anchor = places // each, places % each
        # torchvision's strides: whole numbers, so that the cells of some levels lie closer.
        # As maps: PyTorch can't export a remainder of a size that varies.
        columns = torch.arange(width) * (whole.shape[-1] // width)
        lines = torch.arange(height) * (whole.shape[-2] // height)
        x = columns.expand(height, width).flatten()[cell]
        y = lines[:, None].expand(height, width).flatten()[cell]
        references = anchors[anchor] + torch.stack((x, y, x, y), 1)
        coded = deltas.view(each, 4, height, width).permute(2, 3, 0, 1).reshape(-1, 4)[places]
        boxes = self.rpn.box_coder.decode_single(coded, references)
        boxes = torch.stack(
            (
                boxes[:, 0].clamp(0, image.shape[-1]),
                boxes[:, 1].clamp(0, image.shape[-2]),
                boxes[:, 2].clamp(0, image.shape[-1]),
                boxes[:, 3].clamp(0, image.shape[-2]),
            ),
            1,
        )
        sides = boxes[:, 2:] - boxes[:, :2]
        real = real & (sides >= self.rpn.min_size).all(1)
        scores = torch.where(real, logits.sigmoid(), -torch.ones_like(logits))
        kept = torchvision.ops.nms(boxes, scores, self.rpn.nms_thresh)
        stays = torch.zeros_like(scores).scatter(0, kept, torch.ones_like(scores[kept]))
        return boxes, torch.where(stays > 0, scores, -torch.ones_like(scores))

    def second_stage(self, features: Sequence[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and deltas of boxes xyxy [n, 4] in the input."""
        pooled = self.pool(features, boxes)
        logits, deltas = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        return logits, deltas

    def pool(self, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Return the features of boxes [n, channels, 7, 7], each from the level for its size."""
        pool = self.roi_heads.box_roi_pool
        sides = boxes[:, 2:] - boxes[:, :2]
        size = (sides[:, 0] * sides[:, 1]).sqrt()
        level = torch.floor(
            pool.canonical_level + torch.log2(size / pool.canonical_scale) + 1e-6
        ).clamp(2, 5)
        rois = F.pad(boxes, (1, 0))  # the picture's index, always 0
        pooled = boxes.new_zeros(len(boxes), features[0].shape[1], *pool.output_size)
        for index, feature in enumerate(features[:4]):
            here = torch.nonzero(level == index + 2).squeeze(1)
            aligned = torchvision.ops.roi_align(
                feature, rois[here], pool.output_size, 1 / (4 << index), pool.sampling_ratio
            )
            pooled = pooled.index_put((here,), aligned)
        return pooled


@torch.no_grad()
def randomize(model: nn.Module, shorter: int) -> None:
    """Give a freshly built detector random weights whose boxes and scores vary.

    shorter: the shorter side of its input.
    """
    random_weights.seed()
    side = min(shorter, _LARGEST_SIDE)
    images = random_weights.images(lambda picture: picture.resize((side, side)))[:_PICTURES]
    images = (images - 0.45) / 0.225
    if isinstance(model, RetinaNet):
        graph = RetinanetGraph(model)
        _standardize(graph, images)
        random_weights.calibrate(graph, _retinanet_spreads(model), images)
    elif isinstance(model, FasterRCNN):
        _randomize_faster_rcnn(model, images)


def _standardize(module: nn.Module, images: Tensor) -> None:
    """Give each convolution with a bias outputs of mean 0 and deviation 1, in order.

    No norm follows them. With a large mean, the zeros around a map would matter more than the map.
    """

    def standardize(conv: nn.Module, _: object, output: Tensor) -> Tensor:
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        mean, deviation = output.mean((0, 2, 3)), output.std((0, 2, 3)) + 1e-6
        if conv not in done:  # a head's convolutions see the largest level first
            conv.weight.div_(deviation[:, None, None, None])
            conv.bias.copy_((conv.bias - mean) / deviation)
            done.add(conv)
            return (output - mean[:, None, None]) / deviation[:, None, None]
        return output

    done: set[nn.Module] = set()
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    hooks = [conv.register_forward_hook(standardize) for conv in convs]
    module.train()
    module(images)
    for hook in hooks:
        hook.remove()


def _retinanet_spreads(model: RetinaNet) -> list[Spread]:
    """Return the target ranges: few pairs of anchor and class above 0.05, boxes of every shape."""
    return [
        _spread(model.head.classification_head.cls_logits, -7.0, 3.0),
        _spread(model.head.regression_head.bbox_reg, 0.0, 1.0),
    ]


def _randomize_faster_rcnn(model: FasterRCNN, images: Tensor) -> None:
    """Give each stage outputs that vary; the second is calibrated on the first one's proposals."""
    head, predictor = model.rpn.head, model.roi_heads.box_predictor
    first = nn.Sequential(model.backbone, _Values(), head)
    _standardize(first, images)
    first_spreads = [_spread(head.cls_logits, -1.0, 4.0), _spread(head.bbox_pred, 0.0, 0.5)]
    random_weights.calibrate(first, first_spreads, images)
    graph = FasterRcnnGraph(model).eval()
    proposals = graph(images[:1])[0][0]
    pooled = graph.pool(list(model.backbone(images[:1]).values()), proposals)
    scores = _spread(predictor.cls_score, 0.0, 4.0)
    scores.median[0] = 5.0  # the background
    spreads = [scores, _spread(predictor.bbox_pred, 0.0, 3.0)]
    random_weights.calibrate(nn.Sequential(model.roi_heads.box_head, predictor), spreads, pooled)


class _Values(nn.Module):
    """Turns the pyramid's dict into the list that heads take."""

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """Return the dict's values."""
        return list(features.values())


def _spread(layer: nn.Module, median: float, reach: float) -> Spread:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    channels = len(layer.weight)
    return Spread(layer, torch.full((channels,), median), torch.full((channels,), reach))
