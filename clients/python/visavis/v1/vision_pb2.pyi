from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Task(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_UNSPECIFIED: _ClassVar[Task]
    TASK_CLASSIFICATION: _ClassVar[Task]
    TASK_OBJECT_DETECTION: _ClassVar[Task]

class PixelFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PIXEL_FORMAT_UNSPECIFIED: _ClassVar[PixelFormat]
    PIXEL_FORMAT_RGB: _ClassVar[PixelFormat]
    PIXEL_FORMAT_BGR: _ClassVar[PixelFormat]
    PIXEL_FORMAT_GRAY: _ClassVar[PixelFormat]
    PIXEL_FORMAT_NV12: _ClassVar[PixelFormat]
TASK_UNSPECIFIED: Task
TASK_CLASSIFICATION: Task
TASK_OBJECT_DETECTION: Task
PIXEL_FORMAT_UNSPECIFIED: PixelFormat
PIXEL_FORMAT_RGB: PixelFormat
PIXEL_FORMAT_BGR: PixelFormat
PIXEL_FORMAT_GRAY: PixelFormat
PIXEL_FORMAT_NV12: PixelFormat

class Image(_message.Message):
    __slots__ = ("encoded", "raw")
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    encoded: bytes
    raw: RawImage
    def __init__(self, encoded: _Optional[bytes] = ..., raw: _Optional[_Union[RawImage, _Mapping]] = ...) -> None: ...

class RawImage(_message.Message):
    __slots__ = ("format", "width", "height", "data")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    format: PixelFormat
    width: int
    height: int
    data: bytes
    def __init__(self, format: _Optional[_Union[PixelFormat, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("image", "model", "version", "top_k", "annotate", "explain")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    ANNOTATE_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    image: Image
    model: str
    version: int
    top_k: int
    annotate: bool
    explain: Explain
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., top_k: _Optional[int] = ..., annotate: bool = ..., explain: _Optional[_Union[Explain, _Mapping]] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("classifications", "served_by", "timings", "image_size", "annotated_image", "heat_map")
    CLASSIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    ANNOTATED_IMAGE_FIELD_NUMBER: _ClassVar[int]
    HEAT_MAP_FIELD_NUMBER: _ClassVar[int]
    classifications: _containers.RepeatedCompositeFieldContainer[Classification]
    served_by: ServedBy
    timings: Timings
    image_size: ImageSize
    annotated_image: AnnotatedImage
    heat_map: HeatMap
    def __init__(self, classifications: _Optional[_Iterable[_Union[Classification, _Mapping]]] = ..., served_by: _Optional[_Union[ServedBy, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., image_size: _Optional[_Union[ImageSize, _Mapping]] = ..., annotated_image: _Optional[_Union[AnnotatedImage, _Mapping]] = ..., heat_map: _Optional[_Union[HeatMap, _Mapping]] = ...) -> None: ...

class Classification(_message.Message):
    __slots__ = ("class_id", "label", "score")
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    class_id: int
    label: str
    score: float
    def __init__(self, class_id: _Optional[int] = ..., label: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class DetectRequest(_message.Message):
    __slots__ = ("image", "model", "version", "score_threshold", "iou_threshold", "max_detections", "labels", "class_agnostic", "annotate", "explain")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    IOU_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MAX_DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CLASS_AGNOSTIC_FIELD_NUMBER: _ClassVar[int]
    ANNOTATE_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    image: Image
    model: str
    version: int
    score_threshold: float
    iou_threshold: float
    max_detections: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    class_agnostic: bool
    annotate: bool
    explain: Explain
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., score_threshold: _Optional[float] = ..., iou_threshold: _Optional[float] = ..., max_detections: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., class_agnostic: bool = ..., annotate: bool = ..., explain: _Optional[_Union[Explain, _Mapping]] = ...) -> None: ...

class DetectResponse(_message.Message):
    __slots__ = ("detections", "served_by", "timings", "image_size", "annotated_image", "heat_map")
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    ANNOTATED_IMAGE_FIELD_NUMBER: _ClassVar[int]
    HEAT_MAP_FIELD_NUMBER: _ClassVar[int]
    detections: _containers.RepeatedCompositeFieldContainer[Detection]
    served_by: ServedBy
    timings: Timings
    image_size: ImageSize
    annotated_image: AnnotatedImage
    heat_map: HeatMap
    def __init__(self, detections: _Optional[_Iterable[_Union[Detection, _Mapping]]] = ..., served_by: _Optional[_Union[ServedBy, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., image_size: _Optional[_Union[ImageSize, _Mapping]] = ..., annotated_image: _Optional[_Union[AnnotatedImage, _Mapping]] = ..., heat_map: _Optional[_Union[HeatMap, _Mapping]] = ...) -> None: ...

class Detection(_message.Message):
    __slots__ = ("box", "class_id", "label", "score")
    BOX_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    box: BoundingBox
    class_id: int
    label: str
    score: float
    def __init__(self, box: _Optional[_Union[BoundingBox, _Mapping]] = ..., class_id: _Optional[int] = ..., label: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class BoundingBox(_message.Message):
    __slots__ = ("x_min", "y_min", "x_max", "y_max")
    X_MIN_FIELD_NUMBER: _ClassVar[int]
    Y_MIN_FIELD_NUMBER: _ClassVar[int]
    X_MAX_FIELD_NUMBER: _ClassVar[int]
    Y_MAX_FIELD_NUMBER: _ClassVar[int]
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    def __init__(self, x_min: _Optional[float] = ..., y_min: _Optional[float] = ..., x_max: _Optional[float] = ..., y_max: _Optional[float] = ...) -> None: ...

class Explain(_message.Message):
    __slots__ = ("label",)
    LABEL_FIELD_NUMBER: _ClassVar[int]
    label: str
    def __init__(self, label: _Optional[str] = ...) -> None: ...

class HeatMap(_message.Message):
    __slots__ = ("class_id", "label", "width", "height", "values", "min", "max", "area")
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    AREA_FIELD_NUMBER: _ClassVar[int]
    class_id: int
    label: str
    width: int
    height: int
    values: _containers.RepeatedScalarFieldContainer[float]
    min: float
    max: float
    area: HeatMapArea
    def __init__(self, class_id: _Optional[int] = ..., label: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ..., min: _Optional[float] = ..., max: _Optional[float] = ..., area: _Optional[_Union[HeatMapArea, _Mapping]] = ...) -> None: ...

class HeatMapArea(_message.Message):
    __slots__ = ("x_min", "y_min", "x_max", "y_max")
    X_MIN_FIELD_NUMBER: _ClassVar[int]
    Y_MIN_FIELD_NUMBER: _ClassVar[int]
    X_MAX_FIELD_NUMBER: _ClassVar[int]
    Y_MAX_FIELD_NUMBER: _ClassVar[int]
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    def __init__(self, x_min: _Optional[float] = ..., y_min: _Optional[float] = ..., x_max: _Optional[float] = ..., y_max: _Optional[float] = ...) -> None: ...

class CompareRequest(_message.Message):
    __slots__ = ("image", "tasks", "models", "baseline", "top_k", "score_threshold", "iou_threshold", "max_detections", "labels", "class_agnostic", "annotate", "explain", "annotate_difference")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    IOU_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MAX_DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CLASS_AGNOSTIC_FIELD_NUMBER: _ClassVar[int]
    ANNOTATE_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    ANNOTATE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    image: Image
    tasks: _containers.RepeatedScalarFieldContainer[Task]
    models: _containers.RepeatedScalarFieldContainer[str]
    baseline: str
    top_k: int
    score_threshold: float
    iou_threshold: float
    max_detections: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    class_agnostic: bool
    annotate: bool
    explain: Explain
    annotate_difference: bool
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., tasks: _Optional[_Iterable[_Union[Task, str]]] = ..., models: _Optional[_Iterable[str]] = ..., baseline: _Optional[str] = ..., top_k: _Optional[int] = ..., score_threshold: _Optional[float] = ..., iou_threshold: _Optional[float] = ..., max_detections: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., class_agnostic: bool = ..., annotate: bool = ..., explain: _Optional[_Union[Explain, _Mapping]] = ..., annotate_difference: bool = ...) -> None: ...

class CompareResponse(_message.Message):
    __slots__ = ("comparisons", "left_out", "models", "image_size", "timings", "annotated_image")
    COMPARISONS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATED_IMAGE_FIELD_NUMBER: _ClassVar[int]
    comparisons: _containers.RepeatedCompositeFieldContainer[TaskComparison]
    left_out: _containers.RepeatedCompositeFieldContainer[LeftOutModel]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    image_size: ImageSize
    timings: Timings
    annotated_image: AnnotatedImage
    def __init__(self, comparisons: _Optional[_Iterable[_Union[TaskComparison, _Mapping]]] = ..., left_out: _Optional[_Iterable[_Union[LeftOutModel, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., image_size: _Optional[_Union[ImageSize, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., annotated_image: _Optional[_Union[AnnotatedImage, _Mapping]] = ...) -> None: ...

class TaskComparison(_message.Message):
    __slots__ = ("task", "baseline", "answers", "nothing_to_compare")
    TASK_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    NOTHING_TO_COMPARE_FIELD_NUMBER: _ClassVar[int]
    task: Task
    baseline: str
    answers: _containers.RepeatedCompositeFieldContainer[ModelAnswer]
    nothing_to_compare: str
    def __init__(self, task: _Optional[_Union[Task, str]] = ..., baseline: _Optional[str] = ..., answers: _Optional[_Iterable[_Union[ModelAnswer, _Mapping]]] = ..., nothing_to_compare: _Optional[str] = ...) -> None: ...

class ModelAnswer(_message.Message):
    __slots__ = ("served_by", "status", "classifications", "detections", "timings", "classification_agreement", "detection_agreement", "heat_map")
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATION_AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    DETECTION_AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    HEAT_MAP_FIELD_NUMBER: _ClassVar[int]
    served_by: ServedBy
    status: AnswerStatus
    classifications: _containers.RepeatedCompositeFieldContainer[Classification]
    detections: _containers.RepeatedCompositeFieldContainer[Detection]
    timings: Timings
    classification_agreement: ClassificationAgreement
    detection_agreement: DetectionAgreement
    heat_map: HeatMap
    def __init__(self, served_by: _Optional[_Union[ServedBy, _Mapping]] = ..., status: _Optional[_Union[AnswerStatus, _Mapping]] = ..., classifications: _Optional[_Iterable[_Union[Classification, _Mapping]]] = ..., detections: _Optional[_Iterable[_Union[Detection, _Mapping]]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., classification_agreement: _Optional[_Union[ClassificationAgreement, _Mapping]] = ..., detection_agreement: _Optional[_Union[DetectionAgreement, _Mapping]] = ..., heat_map: _Optional[_Union[HeatMap, _Mapping]] = ...) -> None: ...

class AnswerStatus(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class ClassificationAgreement(_message.Message):
    __slots__ = ("same_top1", "top_k_overlap", "jensen_shannon_divergence", "unknown_here", "unknown_in_baseline")
    SAME_TOP1_FIELD_NUMBER: _ClassVar[int]
    TOP_K_OVERLAP_FIELD_NUMBER: _ClassVar[int]
    JENSEN_SHANNON_DIVERGENCE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_HERE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_IN_BASELINE_FIELD_NUMBER: _ClassVar[int]
    same_top1: bool
    top_k_overlap: float
    jensen_shannon_divergence: float
    unknown_here: int
    unknown_in_baseline: int
    def __init__(self, same_top1: bool = ..., top_k_overlap: _Optional[float] = ..., jensen_shannon_divergence: _Optional[float] = ..., unknown_here: _Optional[int] = ..., unknown_in_baseline: _Optional[int] = ...) -> None: ...

class DetectionAgreement(_message.Message):
    __slots__ = ("matched", "only_here", "only_in_baseline", "mean_iou", "mean_score_difference", "f1", "matches", "unknown_here", "unknown_in_baseline")
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    ONLY_HERE_FIELD_NUMBER: _ClassVar[int]
    ONLY_IN_BASELINE_FIELD_NUMBER: _ClassVar[int]
    MEAN_IOU_FIELD_NUMBER: _ClassVar[int]
    MEAN_SCORE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    F1_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_HERE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_IN_BASELINE_FIELD_NUMBER: _ClassVar[int]
    matched: int
    only_here: int
    only_in_baseline: int
    mean_iou: float
    mean_score_difference: float
    f1: float
    matches: _containers.RepeatedCompositeFieldContainer[DetectionMatch]
    unknown_here: int
    unknown_in_baseline: int
    def __init__(self, matched: _Optional[int] = ..., only_here: _Optional[int] = ..., only_in_baseline: _Optional[int] = ..., mean_iou: _Optional[float] = ..., mean_score_difference: _Optional[float] = ..., f1: _Optional[float] = ..., matches: _Optional[_Iterable[_Union[DetectionMatch, _Mapping]]] = ..., unknown_here: _Optional[int] = ..., unknown_in_baseline: _Optional[int] = ...) -> None: ...

class DetectionMatch(_message.Message):
    __slots__ = ("index", "baseline_index", "iou")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    BASELINE_INDEX_FIELD_NUMBER: _ClassVar[int]
    IOU_FIELD_NUMBER: _ClassVar[int]
    index: int
    baseline_index: int
    iou: float
    def __init__(self, index: _Optional[int] = ..., baseline_index: _Optional[int] = ..., iou: _Optional[float] = ...) -> None: ...

class LeftOutModel(_message.Message):
    __slots__ = ("model", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    reason: str
    def __init__(self, model: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CompareStreamRequest(_message.Message):
    __slots__ = ("image", "tasks", "models", "baseline", "top_k", "score_threshold", "iou_threshold", "max_detections", "labels", "class_agnostic", "annotate", "explain", "annotate_difference")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    IOU_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MAX_DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CLASS_AGNOSTIC_FIELD_NUMBER: _ClassVar[int]
    ANNOTATE_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    ANNOTATE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    image: Image
    tasks: _containers.RepeatedScalarFieldContainer[Task]
    models: _containers.RepeatedScalarFieldContainer[str]
    baseline: str
    top_k: int
    score_threshold: float
    iou_threshold: float
    max_detections: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    class_agnostic: bool
    annotate: bool
    explain: Explain
    annotate_difference: bool
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., tasks: _Optional[_Iterable[_Union[Task, str]]] = ..., models: _Optional[_Iterable[str]] = ..., baseline: _Optional[str] = ..., top_k: _Optional[int] = ..., score_threshold: _Optional[float] = ..., iou_threshold: _Optional[float] = ..., max_detections: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., class_agnostic: bool = ..., annotate: bool = ..., explain: _Optional[_Union[Explain, _Mapping]] = ..., annotate_difference: bool = ...) -> None: ...

class CompareStreamResponse(_message.Message):
    __slots__ = ("answer", "summary")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    answer: StreamedAnswer
    summary: CompareResponse
    def __init__(self, answer: _Optional[_Union[StreamedAnswer, _Mapping]] = ..., summary: _Optional[_Union[CompareResponse, _Mapping]] = ...) -> None: ...

class StreamedAnswer(_message.Message):
    __slots__ = ("task", "answer")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    task: Task
    answer: ModelAnswer
    def __init__(self, task: _Optional[_Union[Task, str]] = ..., answer: _Optional[_Union[ModelAnswer, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ServedBy(_message.Message):
    __slots__ = ("model", "version", "precision", "execution_provider", "random_weights")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    RANDOM_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    precision: str
    execution_provider: str
    random_weights: bool
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., precision: _Optional[str] = ..., execution_provider: _Optional[str] = ..., random_weights: bool = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue_ms", "decode_ms", "preprocess_ms", "inference_ms", "postprocess_ms", "total_ms")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    PREPROCESS_MS_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_MS_FIELD_NUMBER: _ClassVar[int]
    POSTPROCESS_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    decode_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    total_ms: float
    def __init__(self, queue_ms: _Optional[float] = ..., decode_ms: _Optional[float] = ..., preprocess_ms: _Optional[float] = ..., inference_ms: _Optional[float] = ..., postprocess_ms: _Optional[float] = ..., total_ms: _Optional[float] = ...) -> None: ...

class ImageSize(_message.Message):
    __slots__ = ("width", "height")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class AnnotatedImage(_message.Message):
    __slots__ = ("encoded", "media_type", "size")
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    encoded: bytes
    media_type: str
    size: ImageSize
    def __init__(self, encoded: _Optional[bytes] = ..., media_type: _Optional[str] = ..., size: _Optional[_Union[ImageSize, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "versions", "tasks", "precision", "variant_of", "execution_provider", "random_weights", "facts", "label_set", "input", "detection_defaults", "provenance", "verification", "receipt", "accuracy")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    VARIANT_OF_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    RANDOM_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    LABEL_SET_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    DETECTION_DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    VERIFICATION_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    versions: _containers.RepeatedScalarFieldContainer[int]
    tasks: _containers.RepeatedScalarFieldContainer[Task]
    precision: str
    variant_of: str
    execution_provider: str
    random_weights: bool
    facts: ModelFacts
    label_set: LabelSet
    input: ModelInput
    detection_defaults: DetectionDefaults
    provenance: Provenance
    verification: Verification
    receipt: Receipt
    accuracy: Accuracy
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., versions: _Optional[_Iterable[int]] = ..., tasks: _Optional[_Iterable[_Union[Task, str]]] = ..., precision: _Optional[str] = ..., variant_of: _Optional[str] = ..., execution_provider: _Optional[str] = ..., random_weights: bool = ..., facts: _Optional[_Union[ModelFacts, _Mapping]] = ..., label_set: _Optional[_Union[LabelSet, _Mapping]] = ..., input: _Optional[_Union[ModelInput, _Mapping]] = ..., detection_defaults: _Optional[_Union[DetectionDefaults, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., verification: _Optional[_Union[Verification, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., accuracy: _Optional[_Union[Accuracy, _Mapping]] = ...) -> None: ...

class ModelFacts(_message.Message):
    __slots__ = ("architecture", "organization", "category", "modality", "release_date", "context_window", "parameter_count", "code_license", "weights_license", "real_time", "sources")
    class SourcesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    RELEASE_DATE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_WINDOW_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    CODE_LICENSE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_LICENSE_FIELD_NUMBER: _ClassVar[int]
    REAL_TIME_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    architecture: str
    organization: str
    category: str
    modality: str
    release_date: str
    context_window: int
    parameter_count: int
    code_license: str
    weights_license: str
    real_time: bool
    sources: _containers.ScalarMap[str, str]
    def __init__(self, architecture: _Optional[str] = ..., organization: _Optional[str] = ..., category: _Optional[str] = ..., modality: _Optional[str] = ..., release_date: _Optional[str] = ..., context_window: _Optional[int] = ..., parameter_count: _Optional[int] = ..., code_license: _Optional[str] = ..., weights_license: _Optional[str] = ..., real_time: bool = ..., sources: _Optional[_Mapping[str, str]] = ...) -> None: ...

class LabelSet(_message.Message):
    __slots__ = ("name", "size", "labels")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    size: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., size: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class ModelInput(_message.Message):
    __slots__ = ("width", "height", "resize")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    resize: str
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., resize: _Optional[str] = ...) -> None: ...

class DetectionDefaults(_message.Message):
    __slots__ = ("score_threshold", "iou_threshold", "max_detections")
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    IOU_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MAX_DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    score_threshold: float
    iou_threshold: float
    max_detections: int
    def __init__(self, score_threshold: _Optional[float] = ..., iou_threshold: _Optional[float] = ..., max_detections: _Optional[int] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("weights_source", "weights_sha256", "exporter", "exported_at", "libraries", "conversion")
    class LibrariesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WEIGHTS_SOURCE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    EXPORTER_FIELD_NUMBER: _ClassVar[int]
    EXPORTED_AT_FIELD_NUMBER: _ClassVar[int]
    LIBRARIES_FIELD_NUMBER: _ClassVar[int]
    CONVERSION_FIELD_NUMBER: _ClassVar[int]
    weights_source: str
    weights_sha256: str
    exporter: str
    exported_at: str
    libraries: _containers.ScalarMap[str, str]
    conversion: str
    def __init__(self, weights_source: _Optional[str] = ..., weights_sha256: _Optional[str] = ..., exporter: _Optional[str] = ..., exported_at: _Optional[str] = ..., libraries: _Optional[_Mapping[str, str]] = ..., conversion: _Optional[str] = ...) -> None: ...

class Verification(_message.Message):
    __slots__ = ("digest", "golden_sample")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    digest: bool
    golden_sample: bool
    def __init__(self, digest: bool = ..., golden_sample: bool = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("made_at", "score_tolerance", "box_tolerance_px", "max_score_difference", "max_box_difference_px", "rows", "pictures", "heat_map_tolerance", "max_heat_map_difference")
    MADE_AT_FIELD_NUMBER: _ClassVar[int]
    SCORE_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    BOX_TOLERANCE_PX_FIELD_NUMBER: _ClassVar[int]
    MAX_SCORE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    MAX_BOX_DIFFERENCE_PX_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    HEAT_MAP_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    MAX_HEAT_MAP_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    made_at: str
    score_tolerance: float
    box_tolerance_px: float
    max_score_difference: float
    max_box_difference_px: float
    rows: RowComparison
    pictures: _containers.RepeatedCompositeFieldContainer[ReceiptPicture]
    heat_map_tolerance: float
    max_heat_map_difference: float
    def __init__(self, made_at: _Optional[str] = ..., score_tolerance: _Optional[float] = ..., box_tolerance_px: _Optional[float] = ..., max_score_difference: _Optional[float] = ..., max_box_difference_px: _Optional[float] = ..., rows: _Optional[_Union[RowComparison, _Mapping]] = ..., pictures: _Optional[_Iterable[_Union[ReceiptPicture, _Mapping]]] = ..., heat_map_tolerance: _Optional[float] = ..., max_heat_map_difference: _Optional[float] = ...) -> None: ...

class RowComparison(_message.Message):
    __slots__ = ("count", "max_score_difference", "max_box_difference_px")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_SCORE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    MAX_BOX_DIFFERENCE_PX_FIELD_NUMBER: _ClassVar[int]
    count: int
    max_score_difference: float
    max_box_difference_px: float
    def __init__(self, count: _Optional[int] = ..., max_score_difference: _Optional[float] = ..., max_box_difference_px: _Optional[float] = ...) -> None: ...

class ReceiptPicture(_message.Message):
    __slots__ = ("name", "width", "height", "score_threshold", "compared", "excused", "max_score_difference", "max_box_difference_px", "same_top1", "only_here", "only_in_original", "max_heat_map_difference")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    COMPARED_FIELD_NUMBER: _ClassVar[int]
    EXCUSED_FIELD_NUMBER: _ClassVar[int]
    MAX_SCORE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    MAX_BOX_DIFFERENCE_PX_FIELD_NUMBER: _ClassVar[int]
    SAME_TOP1_FIELD_NUMBER: _ClassVar[int]
    ONLY_HERE_FIELD_NUMBER: _ClassVar[int]
    ONLY_IN_ORIGINAL_FIELD_NUMBER: _ClassVar[int]
    MAX_HEAT_MAP_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    width: int
    height: int
    score_threshold: float
    compared: int
    excused: int
    max_score_difference: float
    max_box_difference_px: float
    same_top1: bool
    only_here: int
    only_in_original: int
    max_heat_map_difference: float
    def __init__(self, name: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., score_threshold: _Optional[float] = ..., compared: _Optional[int] = ..., excused: _Optional[int] = ..., max_score_difference: _Optional[float] = ..., max_box_difference_px: _Optional[float] = ..., same_top1: bool = ..., only_here: _Optional[int] = ..., only_in_original: _Optional[int] = ..., max_heat_map_difference: _Optional[float] = ...) -> None: ...

class Accuracy(_message.Message):
    __slots__ = ("metric", "value", "original", "pictures", "source", "held_out", "error")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    metric: str
    value: float
    original: float
    pictures: int
    source: str
    held_out: bool
    error: float
    def __init__(self, metric: _Optional[str] = ..., value: _Optional[float] = ..., original: _Optional[float] = ..., pictures: _Optional[int] = ..., source: _Optional[str] = ..., held_out: bool = ..., error: _Optional[float] = ...) -> None: ...
