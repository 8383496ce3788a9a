"""The known mistakes, in the words that a verification prints.

docs/verify.md lists them all, with the public threads in which people met them.
"""

from typing import Final

from visavis_export.verification.outcome import Finding, Stage

_PRE, _GRAPH, _POST = Stage.PREPROCESSING, Stage.GRAPH, Stage.POSTPROCESSING

MISTAKES: Final[dict[str, tuple[Stage, str, str]]] = {
    # Of the input.
    "size": (
        _PRE,
        "the input is {size}; the original's is {own}",
        "export with that size (imgsz={side}), or give --size where another one is meant",
    ),
    "rectangle": (
        _PRE,
        "the picture is padded to a rectangle of {size} (rectangular inference), not to {own}",
        "pass rect=False to predict(), or auto=False to letterbox()",
    ),
    "stretched": (
        _PRE,
        "the picture is stretched to the input; the original keeps its shape",
        "scale both sides by the same factor, and pad or crop as the original does",
    ),
    "letterboxed": (
        _PRE,
        "the picture is letterboxed; the original crops its centre",
        "crop the centre instead of padding",
    ),
    "cropped": (
        _PRE,
        "the picture's centre is cropped; the original pads the whole picture (letterbox)",
        "scale the whole picture to fit, and pad it",
    ),
    "pad": (
        _PRE,
        "the border is filled with {pad}; the original's is 114",
        "fill the border with (114, 114, 114)",
    ),
    "corner": (
        _PRE,
        "the picture is in the top left corner; the original centres it",
        "put half of the padding on each side",
    ),
    "filter": (
        _PRE,
        "the picture is resized with {filter}; the original uses {own_filter}",
        "resize as the original does: OpenCV's bilinear does not smooth, Pillow's does",
    ),
    "shorter side": (
        _PRE,
        "the shorter side is resized to {side} before the crop; the original's to {own_side}",
        "use the transforms of these weights",
    ),
    "centre square": (
        _PRE,
        "the largest centred square is cropped, then resized; the original resizes, then crops",
        "resize the shorter side first",
    ),
    "resized first": (
        _PRE,
        "the picture is resized, then cropped; the original crops the largest square first",
        "crop the centred square first",
    ),
    "orientation": (
        _PRE,
        "the EXIF orientation is ignored; the original turns the picture upright",
        "turn the picture as its EXIF orientation says",
    ),
    "BGR": (
        _PRE,
        "red and blue are swapped (BGR instead of RGB)",
        "swap the channels: image[..., ::-1], cvtColor or swapRB=True",
    ),
    "not divided": (
        _PRE,
        "pixels are 0 to 255; the original divides them by 255",
        "divide by 255 once",
    ),
    "divided twice": (
        _PRE,
        "pixels are divided by 255 twice",
        "divide by 255 once: torchvision's ToTensor divides already",
    ),
    "mean and std missing": (
        _PRE,
        "mean and std are missing",
        "subtract {mean} and divide by {std} after the division by 255",
    ),
    "mean and std added": (
        _PRE,
        "ImageNet's mean and std are applied; the original has none",
        "only divide by 255",
    ),
    "mean and std twice": (_PRE, "mean and std are applied twice", "apply them once"),
    "-1 to 1": (
        _PRE,
        "pixels are scaled to -1 to 1; the original's are not",
        "normalise as the original does",
    ),
    "channels last": (
        _PRE,
        "the tensor has its channels last (NHWC)",
        "transpose it to [batch, 3, height, width]",
    ),
    "unknown input": (
        _PRE,
        "no known mistake makes this input; the nearest, {nearest}, is {levels:.1f} grey levels "
        "away on average",
        "compare it with the original's, step by step",
    ),
    # Of the graph.
    "graph divides": (
        _GRAPH,
        "the graph divides its input by 255 once more",
        "export it without the division, or feed it pixels from 0 to 255",
    ),
    "graph multiplies": (
        _GRAPH,
        "the graph multiplies its input by 255: a division by 255 is missing",
        "export the network as it was trained",
    ),
    "graph normalises": (
        _GRAPH,
        "the graph applies ImageNet's mean and std once more",
        "export it without them, or leave them out before it",
    ),
    "graph undoes mean and std": (
        _GRAPH,
        "mean and std are missing in the graph: it works on the plain pixels",
        "export the network as it was trained",
    ),
    "graph scales to -1 to 1": (
        _GRAPH,
        "the graph scales its input to -1 to 1",
        "export it without the scaling",
    ),
    "graph swaps": (
        _GRAPH,
        "the graph swaps red and blue (it expects BGR)",
        "export it without the swap, or feed it BGR",
    ),
    "graph softmax twice": (
        _GRAPH,
        "softmax is applied twice in the graph",
        "export it without its own softmax",
    ),
    "sigmoid missing": (
        _GRAPH,
        "a sigmoid is missing: the class scores are logits",
        "export it with the sigmoid, or apply it to the scores",
    ),
    "fractions": (
        _GRAPH,
        "boxes are fractions of the input, not pixels",
        "multiply them by the input's width and height",
    ),
    "corners": (
        _GRAPH,
        "boxes are corners (xyxy); the layout has centre and size",
        "convert them, or describe the file's layout",
    ),
    "class order": (
        _GRAPH,
        "the classes are in another order: class {one} is the original's class {other}",
        "export with the class order of the training",
    ),
    "other weights": (
        _GRAPH,
        "it has other weights: {count} of {total} layers, from {layer} on",
        "export it again from this checkpoint: another epoch, or another training, was exported",
    ),
    "some weights": (
        _GRAPH,
        "the weights of {count} of {total} layers differ, first {layer} (by {step:.2g} of its "
        "largest weight)",
        "export it again: the file was changed or damaged",
    ),
    "operators": (
        _GRAPH,
        "all weights are equal, but a layer computes something else, first {layer}",
        "export it again with a newer exporter or another opset, without graph optimisers",
    ),
    "before the first layer": (
        _GRAPH,
        "all weights are equal, but the first layer, {layer}, already gets another input",
        "export the network alone, without steps before it",
    ),
    "after the last layer": (
        _GRAPH,
        "all layers are equal; the outputs are decoded otherwise after them",
        "export the head as the original has it",
    ),
    "other network": (
        _GRAPH,
        "it is another network: {count} of the original's {total} layers are found in it",
        "give the checkpoint that the file was exported from",
    ),
    "not finite": (
        _GRAPH,
        "it computes NaN or infinity",
        "fp16 overflows above 65,504: export it in fp32",
    ),
    "lossy": (
        _GRAPH,
        "its precision costs more than usual: only {share:.0%} of the answers are the original's",
        "calibrate int8 with pictures like yours, or keep the first and last layers in fp32",
    ),
    "other outputs": (_GRAPH, "{why}", "give the checkpoint that the file was exported from"),
    "changed": (
        _GRAPH,
        "the file was changed after its export: its digest is not the one that it carries",
        "export it again",
    ),
    # Of reading the outputs.
    "softmax missing": (
        _POST,
        "softmax is missing: the outputs are logits, and are read as probabilities",
        "apply softmax, or declare the outputs as logits",
    ),
    "softmax twice": (
        _POST,
        "softmax is applied twice: the outputs are probabilities, and are read as logits",
        "leave it out, or declare the outputs as probabilities",
    ),
    "thresholds": (
        _POST,
        "the thresholds differ: score {score:g} and IoU {iou:g}; the original's are {own_score:g} "
        "and {own_iou:g}",
        "use the original's thresholds",
    ),
    "names": (
        _POST,
        "class {class_id} is called {name!r}; the original calls it {own!r}",
        "write the checkpoint's own names into the file",
    ),
    "decoding": (
        _POST,
        "boxes are decoded otherwise: {why}",
        "read the outputs as the exporter documents them",
    ),
    # Of answers that other code gave.
    "boxes of the input": (
        _POST,
        "boxes are in pixels of the input; they are not mapped back to the picture",
        "subtract the padding and divide by the scale",
    ),
    "boxes as fractions": (
        _POST,
        "boxes are fractions of the picture, not pixels",
        "multiply them by its width and height",
    ),
    "centre and size": (
        _POST,
        "boxes are centre and size, not corners",
        "convert them to x_min, y_min, x_max, y_max",
    ),
    "padding kept": (
        _POST,
        "boxes are scaled to the picture, but the padding is not subtracted",
        "subtract the padding before dividing by the scale",
    ),
    "class ids": (
        _POST,
        "class ids are {shift:+d} off",
        "count classes from 0, without a background class",
    ),
    "score threshold": (
        _POST,
        "boxes with scores up to {score:.3g} are missing: the score threshold is higher",
        "use the original's score threshold, {own:g}",
    ),
    "lower score threshold": (
        _POST,
        "boxes with scores down to {score:.3g} are kept: the score threshold is lower",
        "use the original's score threshold, {own:g}",
    ),
    "no suppression": (
        _POST,
        "boxes that overlap are all kept: non-maximum suppression is missing or weaker",
        "suppress with the original's IoU threshold, {own:g}",
    ),
    "other answers": (
        _POST,
        "no known mistake gives these answers: {both} boxes or labels are the original's, {here} "
        "are not, and {there} are missing",
        "give the tensor too, with --input",
    ),
}


def finding(mistake: str, **facts: object) -> Finding:
    """Return a finding in the mistake's own words."""
    stage, says, todo = MISTAKES[mistake]
    return Finding(stage, mistake, says.format(**facts), todo.format(**facts))
