package visavis

import (
	"math"

	pb "visavis.internal/visavis/v1"
)

// A ClassifyOption is an option of [Client.Classify]. The server chooses the value of any option
// that is left out.
type ClassifyOption interface{ forClassify(*requestOptions) }

// A DetectOption is an option of [Client.Detect].
type DetectOption interface{ forDetect(*requestOptions) }

// A CompareOption is an option of [Client.Compare] and [Client.CompareStream].
type CompareOption interface{ forCompare(*requestOptions) }

type requestOptions struct {
	version        *int32
	topK           *int32
	scoreThreshold *float32
	iouThreshold   *float32
	maxDetections  *int32
	labels         []string
	classAgnostic  bool
	annotate       bool
	explain        *pb.Explain
	tasks          []pb.Task
	models         []string
	baseline       *string
	difference     bool
}

// Kinds of options, by the calls that take them.
type (
	singleOption  func(*requestOptions) // Classify, Detect
	labelsOption  func(*requestOptions) // Classify, Compare
	boxesOption   func(*requestOptions) // Detect, Compare
	everyOption   func(*requestOptions) // Classify, Detect, Compare
	compareOption func(*requestOptions) // Compare
)

func (set singleOption) forClassify(o *requestOptions) { set(o) }
func (set singleOption) forDetect(o *requestOptions)   { set(o) }
func (set labelsOption) forClassify(o *requestOptions) { set(o) }
func (set labelsOption) forCompare(o *requestOptions)  { set(o) }
func (set boxesOption) forDetect(o *requestOptions)    { set(o) }
func (set boxesOption) forCompare(o *requestOptions)   { set(o) }
func (set everyOption) forClassify(o *requestOptions)  { set(o) }
func (set everyOption) forDetect(o *requestOptions)    { set(o) }
func (set everyOption) forCompare(o *requestOptions)   { set(o) }
func (set compareOption) forCompare(o *requestOptions) { set(o) }

// Version selects a version of the model, 1 or above. By default the highest answers.
func Version(version int) interface {
	ClassifyOption
	DetectOption
} {
	return singleOption(func(o *requestOptions) { o.version = int32Pointer(version) })
}

// TopK sets the number of labels that each classifier returns, 1 or above.
func TopK(labels int) interface {
	ClassifyOption
	CompareOption
} {
	return labelsOption(func(o *requestOptions) { o.topK = int32Pointer(labels) })
}

// ScoreThreshold keeps detections with a score above it. Range [0, 1].
func ScoreThreshold(score float64) interface {
	DetectOption
	CompareOption
} {
	return boxesOption(func(o *requestOptions) { o.scoreThreshold = float32Pointer(score) })
}

// IoUThreshold drops the lower-scored of two boxes whose IoU exceeds it. Range [0, 1].
func IoUThreshold(iou float64) interface {
	DetectOption
	CompareOption
} {
	return boxesOption(func(o *requestOptions) { o.iouThreshold = float32Pointer(iou) })
}

// MaxDetections limits the number of detections. Range [1, 1000].
func MaxDetections(most int) interface {
	DetectOption
	CompareOption
} {
	return boxesOption(func(o *requestOptions) { o.maxDetections = int32Pointer(most) })
}

// Labels keeps detections with one of these labels.
func Labels(labels ...string) interface {
	DetectOption
	CompareOption
} {
	return boxesOption(func(o *requestOptions) { o.labels = labels })
}

// ClassAgnostic lets boxes of different labels suppress each other.
func ClassAgnostic() interface {
	DetectOption
	CompareOption
} {
	return boxesOption(func(o *requestOptions) { o.classAgnostic = true })
}

// Annotate asks for the picture with the answer drawn on it.
func Annotate() interface {
	ClassifyOption
	DetectOption
	CompareOption
} {
	return everyOption(func(o *requestOptions) { o.annotate = true })
}

// Explain asks for a heat map of the best label. A model that can't give one refuses.
func Explain() interface {
	ClassifyOption
	DetectOption
	CompareOption
} {
	return everyOption(func(o *requestOptions) { o.explain = &pb.Explain{} })
}

// ExplainLabel asks for a heat map of a label, which the model must have.
func ExplainLabel(label string) interface {
	ClassifyOption
	DetectOption
	CompareOption
} {
	return everyOption(func(o *requestOptions) { o.explain = &pb.Explain{Label: &label} })
}

// Tasks limits a comparison to these tasks.
func Tasks(compared ...Task) CompareOption {
	return compareOption(func(o *requestOptions) {
		o.tasks = nil
		for _, task := range compared {
			// The server rejects the task of an unknown name, as TASK_UNSPECIFIED.
			o.tasks = append(o.tasks, taskValues[task])
		}
	})
}

// Models limits a comparison to these models, each in its highest version.
func Models(names ...string) CompareOption {
	return compareOption(func(o *requestOptions) { o.models = names })
}

// Baseline names the model that the others are compared with.
func Baseline(model string) CompareOption {
	return compareOption(func(o *requestOptions) { o.baseline = &model })
}

// AnnotateDifference asks for the picture with all answers side by side, as [Annotate] does. The
// boxes of the comparison have three colours: in both answers, only here, only in the baseline.
func AnnotateDifference() CompareOption {
	return compareOption(func(o *requestOptions) { o.difference = true })
}

func (o *requestOptions) classifyRequest(image *pb.Image, model string) *pb.ClassifyRequest {
	return &pb.ClassifyRequest{
		Image:    image,
		Model:    model,
		Version:  o.version,
		TopK:     o.topK,
		Annotate: o.annotate,
		Explain:  o.explain,
	}
}

func (o *requestOptions) detectRequest(image *pb.Image, model string) *pb.DetectRequest {
	return &pb.DetectRequest{
		Image:          image,
		Model:          model,
		Version:        o.version,
		ScoreThreshold: o.scoreThreshold,
		IouThreshold:   o.iouThreshold,
		MaxDetections:  o.maxDetections,
		Labels:         o.labels,
		ClassAgnostic:  o.classAgnostic,
		Annotate:       o.annotate,
		Explain:        o.explain,
	}
}

func (o *requestOptions) compareRequest(image *pb.Image) *pb.CompareRequest {
	return &pb.CompareRequest{
		Image:              image,
		Tasks:              o.tasks,
		Models:             o.models,
		Baseline:           o.baseline,
		TopK:               o.topK,
		ScoreThreshold:     o.scoreThreshold,
		IouThreshold:       o.iouThreshold,
		MaxDetections:      o.maxDetections,
		Labels:             o.labels,
		ClassAgnostic:      o.classAgnostic,
		Annotate:           o.annotate,
		Explain:            o.explain,
		AnnotateDifference: o.difference,
	}
}

func (o *requestOptions) compareStreamRequest(image *pb.Image) *pb.CompareStreamRequest {
	return &pb.CompareStreamRequest{
		Image:              image,
		Tasks:              o.tasks,
		Models:             o.models,
		Baseline:           o.baseline,
		TopK:               o.topK,
		ScoreThreshold:     o.scoreThreshold,
		IouThreshold:       o.iouThreshold,
		MaxDetections:      o.maxDetections,
		Labels:             o.labels,
		ClassAgnostic:      o.classAgnostic,
		Annotate:           o.annotate,
		Explain:            o.explain,
		AnnotateDifference: o.difference,
	}
}

// int32Pointer keeps numbers that are too large invalid: a plain conversion would wrap them.
func int32Pointer(value int) *int32 {
	if value > math.MaxInt32 {
		value = math.MaxInt32
	}
	if value < math.MinInt32 {
		value = math.MinInt32
	}
	number := int32(value)
	return &number
}

func float32Pointer(value float64) *float32 {
	number := float32(value)
	return &number
}
