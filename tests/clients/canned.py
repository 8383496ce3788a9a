"""Messages such as a server would send about a picture of a bus."""

from visavis.v1 import vision_pb2 as pb

TIMINGS = pb.Timings(
    queue_ms=0.2,
    decode_ms=7.9,
    preprocess_ms=2.4,
    inference_ms=41.3,
    postprocess_ms=1.1,
    total_ms=53.4,
)
SIZE = pb.ImageSize(width=810, height=1080)
PICTURE = pb.AnnotatedImage(encoded=b"\xff\xd8drawn\xff\xd9", media_type="image/jpeg")


def served_by(model: str, *, random_weights: bool = False) -> pb.ServedBy:
    return pb.ServedBy(
        model=model,
        version=1,
        precision="fp32",
        execution_provider="CPUExecutionProvider",
        random_weights=random_weights,
    )


def labels(*pairs: tuple[str, float]) -> list[pb.Classification]:
    return [
        pb.Classification(class_id=number, label=label, score=score)
        for number, (label, score) in enumerate(pairs)
    ]


def boxes(*items: tuple[str, float, tuple[float, float, float, float]]) -> list[pb.Detection]:
    return [
        pb.Detection(
            box=pb.BoundingBox(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max),
            class_id=5 if label == "bus" else 0,
            label=label,
            score=score,
        )
        for label, score, (x_min, y_min, x_max, y_max) in items
    ]


BUS_LABELS = labels(
    ("minibus", 0.512), ("trolleybus", 0.231), ("police van", 0.094), ("cab", 0.03), ("tram", 0.01)
)
BUS_BOXES = boxes(
    ("person", 0.803, (220.1, 407.2, 345.6, 861.0)),
    ("person", 0.801, (49.4, 398.7, 245.2, 903.3)),
    ("bus", 0.673, (12.0, 231.8, 803.5, 756.0)),
    ("person", 0.643, (670.1, 388.2, 810.0, 878.3)),
    ("person", 0.286, (0.0, 551.0, 67.9, 874.1)),
)


def heat_map(explain: pb.Explain) -> pb.HeatMap:
    """Return the map that is asked for; without a label, of the bus."""
    return pb.HeatMap(
        class_id=7,
        label=explain.label if explain.HasField("label") else "bus",
        width=3,
        height=2,
        values=[-2.5, 0, 1, 2, 3, 60.75],
        min=-2.5,
        max=60.75,
        area=pb.HeatMapArea(x_min=100, y_min=50, x_max=400, y_max=250),
    )


CLASSIFIED = pb.ClassifyResponse(
    classifications=BUS_LABELS,
    served_by=served_by("resnet50"),
    timings=TIMINGS,
    image_size=SIZE,
)
DETECTED = pb.DetectResponse(
    detections=BUS_BOXES, served_by=served_by("yolov5n"), timings=TIMINGS, image_size=SIZE
)


def card(name: str, task: pb.Task, *, random_weights: bool = False) -> pb.Model:
    detects = task == pb.TASK_OBJECT_DETECTION
    return pb.Model(
        name=name,
        version=1,
        versions=[1],
        tasks=[task],
        precision="fp32",
        execution_provider="CPUExecutionProvider",
        random_weights=random_weights,
        facts=pb.ModelFacts(
            architecture="YOLOv5" if detects else "ResNet-50",
            organization="Ultralytics" if detects else "Microsoft Research",
            category="open",
            modality="vision",
            release_date="2020-06" if detects else "2015-12-10",
            parameter_count=1_872_157 if detects else 25_557_032,
            code_license="AGPL-3.0-only" if detects else "MIT",
            weights_license="AGPL-3.0-only" if detects else "BSD-3-Clause",
            real_time=True if detects else None,
            sources={"release_date": "https://arxiv.org/abs/1512.03385"},
        ),
        label_set=pb.LabelSet(name="coco-80", size=80)
        if detects
        else pb.LabelSet(name="imagenet-1k", size=1000),
        input=pb.ModelInput(width=640, height=640, resize="letterbox to a square")
        if detects
        else pb.ModelInput(width=224, height=224, resize="shorter side to 256, centre crop"),
        detection_defaults=pb.DetectionDefaults(
            score_threshold=0.25, iou_threshold=0.45, max_detections=300
        )
        if detects
        else None,
        provenance=pb.Provenance(
            weights_source="random" if random_weights else f"{name}.pth",
            weights_sha256="0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
            exporter="visavis 0.1.0",
            exported_at="2026-11-23T12:00:00Z",
            libraries={"torch": "2.14.1"},
        ),
        verification=pb.Verification(digest=True, golden_sample=True),
    )


CARDS = [
    card("resnet18", pb.TASK_CLASSIFICATION),
    card("resnet50", pb.TASK_CLASSIFICATION),
    card("yolov5n", pb.TASK_OBJECT_DETECTION),
    card("yolov5n-cls", pb.TASK_CLASSIFICATION, random_weights=True),
]
LISTED = pb.ListModelsResponse(models=CARDS)
RECEIPT = pb.Receipt(
    made_at="2026-11-23T12:00:00Z",
    score_tolerance=0.001,
    box_tolerance_px=1,
    max_score_difference=3.1e-5,
    max_box_difference_px=0.012,
    heat_map_tolerance=0.002,
    max_heat_map_difference=2.5e-5,
    rows=pb.RowComparison(count=151_200, max_score_difference=2e-5, max_box_difference_px=0.004),
    pictures=[
        pb.ReceiptPicture(
            name="wide",
            width=4100,
            height=700,
            score_threshold=0.01,
            compared=17,
            excused=3,
            only_here=1,
            only_in_original=2,
            max_score_difference=3.1e-5,
            max_box_difference_px=0.012,
            max_heat_map_difference=1.5e-5,
        )
    ],
)


def comparison() -> pb.CompareResponse:
    """Three classifiers, one without meaning; two detectors; one model that failed."""
    here = boxes(
        ("person", 0.842, (221.0, 406.0, 344.9, 860.1)),
        ("bus", 0.771, (13.1, 230.2, 801.9, 757.1)),
        ("person", 0.702, (48.8, 399.2, 246.0, 902.0)),
        ("stop sign", 0.311, (0.1, 254.4, 32.7, 325.0)),
    )
    return pb.CompareResponse(
        comparisons=[
            pb.TaskComparison(
                task=pb.TASK_CLASSIFICATION,
                baseline="resnet50",
                answers=[
                    pb.ModelAnswer(
                        served_by=served_by("resnet50"),
                        classifications=BUS_LABELS,
                        timings=TIMINGS,
                    ),
                    pb.ModelAnswer(
                        served_by=served_by("resnet18"),
                        classifications=labels(
                            ("minibus", 0.433),
                            ("police van", 0.204),
                            ("recreational vehicle", 0.11),
                            ("trolleybus", 0.08),
                            ("cab", 0.01),
                        ),
                        timings=TIMINGS,
                        classification_agreement=pb.ClassificationAgreement(
                            same_top1=True, top_k_overlap=0.8, jensen_shannon_divergence=0.118
                        ),
                    ),
                    pb.ModelAnswer(
                        served_by=served_by("yolov5n-cls", random_weights=True),
                        classifications=labels(("tench", 0.002), ("axolotl", 0.0019)),
                        timings=TIMINGS,
                        classification_agreement=pb.ClassificationAgreement(
                            same_top1=False, top_k_overlap=0, jensen_shannon_divergence=0.973
                        ),
                    ),
                ],
            ),
            pb.TaskComparison(
                task=pb.TASK_OBJECT_DETECTION,
                baseline="yolov5n",
                answers=[
                    pb.ModelAnswer(
                        served_by=served_by("yolov5n"), detections=BUS_BOXES, timings=TIMINGS
                    ),
                    pb.ModelAnswer(
                        served_by=served_by("yolov5s"),
                        detections=here,
                        timings=TIMINGS,
                        detection_agreement=pb.DetectionAgreement(
                            matched=3,
                            only_here=1,
                            only_in_baseline=2,
                            mean_iou=0.962,
                            mean_score_difference=0.079,
                            f1=0.667,
                            matches=[
                                pb.DetectionMatch(index=0, baseline_index=0, iou=0.98),
                                pb.DetectionMatch(index=1, baseline_index=2, iou=0.97),
                                pb.DetectionMatch(index=2, baseline_index=1, iou=0.94),
                            ],
                        ),
                    ),
                    pb.ModelAnswer(
                        served_by=served_by("yolov5x"),
                        status=pb.AnswerStatus(code=13, message="internal error"),
                    ),
                ],
            ),
        ],
        left_out=[pb.LeftOutModel(model="yolov5m", reason="not loaded: the digest is wrong")],
        models=CARDS,
        image_size=SIZE,
        timings=TIMINGS,
    )
