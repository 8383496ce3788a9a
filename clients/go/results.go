package visavis

import (
	"fmt"

	"google.golang.org/grpc/codes"
)

// ImageSize is the width and the height of an upright picture in pixels.
type ImageSize struct{ Width, Height int }

// A Box is a rectangle in pixels of the upright picture; (0, 0) is its top left corner.
type Box struct{ XMin, YMin, XMax, YMax float32 }

// Width returns the width in pixels.
func (b Box) Width() float32 { return b.XMax - b.XMin }

// Height returns the height in pixels.
func (b Box) Height() float32 { return b.YMax - b.YMin }

func (b Box) String() string {
	return fmt.Sprintf("[%.1f %.1f %.1f %.1f]", b.XMin, b.YMin, b.XMax, b.YMax)
}

// A Classification is one label for the whole picture.
type Classification struct {
	ClassID int
	Label   string
	// Score is the probability of the label. Range [0, 1].
	Score float32
}

// A Detection is one object found in a picture.
type Detection struct {
	Box     Box
	ClassID int
	Label   string
	// Score is the probability of the label. Range [0, 1].
	Score float32
}

// ServedBy is the model and the session that answered.
type ServedBy struct {
	Model   string
	Version int
	// Precision is the number format of the weights: fp32, fp16 or int8.
	Precision string
	// ExecutionProvider is ONNX Runtime's name, such as CPUExecutionProvider.
	ExecutionProvider string
	// RandomWeights is true if the weights are random, which makes the answer meaningless.
	RandomWeights bool
}

// Timings are the durations of the stages of a request, in milliseconds.
type Timings struct {
	QueueMS, DecodeMS, PreprocessMS, InferenceMS, PostprocessMS, TotalMS float64
}

// An AnnotatedImage is a file with the answer drawn on the picture. The server shrinks the picture if
// the file would exceed its limit, by default 4 MB.
type AnnotatedImage struct {
	Encoded   []byte
	MediaType string
	Size      ImageSize
}

// A HeatMap says how much each cell of a grid over a part of the picture speaks for a label.
type HeatMap struct {
	ClassID int
	Label   string
	// Width is the number of columns, Height the number of rows.
	Width, Height int
	// Values are row by row, from the top. Classifiers: the class activation map, of any range.
	// Detectors: scores in [0, 1].
	Values []float32
	// Min is the smallest value, Max the largest.
	Min, Max float32
	// Area is the part of the picture that the cells cover; it may exceed the picture by a part of
	// a cell.
	Area Box
}

// A ClassifyResult has one model's labels, highest score first.
type ClassifyResult struct {
	Classifications []Classification
	ServedBy        ServedBy
	Timings         Timings
	ImageSize       ImageSize
	// AnnotatedImage is nil without [Annotate].
	AnnotatedImage *AnnotatedImage
	// HeatMap is nil without [Explain] or [ExplainLabel].
	HeatMap *HeatMap
}

// A DetectResult has the objects that one model found, highest score first.
type DetectResult struct {
	Detections []Detection
	ServedBy   ServedBy
	Timings    Timings
	// ImageSize is the size of the picture in whose pixels the boxes are.
	ImageSize ImageSize
	// AnnotatedImage is nil without [Annotate].
	AnnotatedImage *AnnotatedImage
	// HeatMap is nil without [Explain] or [ExplainLabel].
	HeatMap *HeatMap
}

// A Comparison has the answers of all models, side by side.
type Comparison struct {
	// Tasks has an entry for each task that has a capable model.
	Tasks []TaskComparison
	// LeftOut are the models that were not run.
	LeftOut []LeftOutModel
	// Models are the cards of those that were run, without labels and receipts.
	Models    []*Model
	ImageSize ImageSize
	// Timings are those of the whole comparison; each answer has the stages of its model.
	Timings Timings
	// AnnotatedImage has the answers side by side; nil without [Annotate] or [AnnotateDifference].
	AnnotatedImage *AnnotatedImage
}

// A TaskComparison has the answers for one task.
type TaskComparison struct {
	Task Task
	// Baseline is the name of the model that the others are compared with.
	Baseline string
	Answers  []ModelAnswer
	// NothingToCompare says why nothing is compared; empty if two or more models are capable.
	NothingToCompare string
}

// A ModelAnswer is one model's answer, or the reason that it has none.
type ModelAnswer struct {
	ServedBy ServedBy
	// Code is codes.OK if the model answered, and Message says why not otherwise.
	Code    codes.Code
	Message string
	// Classifications are empty for detectors, and Detections for classifiers.
	Classifications []Classification
	Detections      []Detection
	// Timings is nil if the model did not answer.
	Timings *Timings
	// The agreement with the baseline's answer, by task. Nil for the baseline itself, if one of the
	// two has no answer, and in a stream, whose summary has it.
	ClassificationAgreement *ClassificationAgreement
	DetectionAgreement      *DetectionAgreement
	// HeatMap is nil without [Explain] or [ExplainLabel], and if the model did not answer.
	HeatMap *HeatMap
}

// A ClassificationAgreement says how far two classifiers agree.
type ClassificationAgreement struct {
	// SameTop1 is true if both rank the same label first.
	SameTop1 bool
	// TopKOverlap is the fraction of the top k labels that both share. Range [0, 1].
	TopKOverlap float64
	// JensenShannonDivergence is that of the two distributions, in bits. Range [0, 1]; nil if the
	// label sets differ.
	JensenShannonDivergence *float64
	// UnknownHere counts this model's top k labels that the baseline lacks, UnknownInBaseline the
	// baseline's that this model lacks; they are left out.
	UnknownHere, UnknownInBaseline int
}

// A DetectionAgreement says how far two detectors agree.
type DetectionAgreement struct {
	// Matched counts the pairs, OnlyHere this model's other detections, OnlyInBaseline the
	// baseline's.
	Matched, OnlyHere, OnlyInBaseline int
	// MeanIoU and MeanScoreDifference are those of the pairs; nil if there are none.
	MeanIoU, MeanScoreDifference *float64
	// F1 is 1 if neither has detections. Range [0, 1].
	F1 float64
	// Matches are the pairs, highest IoU first.
	Matches []DetectionMatch
	// UnknownHere counts this model's detections whose label the baseline lacks, UnknownInBaseline
	// the baseline's whose label this model lacks; they are left out.
	UnknownHere, UnknownInBaseline int
}

// A DetectionMatch is a pair of detections: their indexes in this answer and in the baseline's.
type DetectionMatch struct {
	Index, BaselineIndex int
	IoU                  float64
}

// A LeftOutModel is a model that a comparison did not run, and the reason.
type LeftOutModel struct{ Model, Reason string }

// A StreamedAnswer is one model's answer in a stream.
type StreamedAnswer struct {
	Task Task
	ModelAnswer
}
