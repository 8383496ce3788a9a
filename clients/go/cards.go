package visavis

import pb "visavis.internal/visavis/v1"

// A Task is what a model can do with a picture.
type Task string

// The tasks.
const (
	TaskClassification Task = "classification"
	TaskDetection      Task = "detection"
)

var (
	tasks = map[pb.Task]Task{
		pb.Task_TASK_CLASSIFICATION:   TaskClassification,
		pb.Task_TASK_OBJECT_DETECTION: TaskDetection,
	}
	taskValues = map[Task]pb.Task{
		TaskClassification: pb.Task_TASK_CLASSIFICATION,
		TaskDetection:      pb.Task_TASK_OBJECT_DETECTION,
	}
)

// A Model is a model's card. The comments of the contract, protos/visavis/v1/vision.proto, describe
// each field. An empty string means unknown, and nil that there is none.
type Model struct {
	Name    string
	Version int
	// Versions are all that can be requested, ascending.
	Versions  []int
	Tasks     []Task
	Precision string
	// VariantOf is the model whose weights this model has in another precision.
	VariantOf         string
	ExecutionProvider string
	RandomWeights     bool
	Facts             ModelFacts
	LabelSet          LabelSet
	Input             ModelInput
	DetectionDefaults *DetectionDefaults
	Provenance        Provenance
	Verification      Verification
	// Receipt is nil in lists.
	Receipt  *Receipt
	Accuracy *Accuracy
}

// ModelFacts are the facts by which people compare models; Sources has the origin of each.
type ModelFacts struct {
	Architecture, Organization, Category, Modality, ReleaseDate string
	ContextWindow                                               *int
	// ParameterCount is 0 if it is unknown.
	ParameterCount              int64
	CodeLicense, WeightsLicense string
	RealTime                    *bool
	Sources                     map[string]string
}

// A LabelSet is a named list of classes. Lists of models leave Labels empty.
type LabelSet struct {
	Name   string
	Size   int
	Labels []string
}

// ModelInput is the size of a model's input in pixels, and how a picture is resized to it.
type ModelInput struct {
	Width, Height int
	Resize        string
}

// DetectionDefaults are used by requests that set none.
type DetectionDefaults struct {
	ScoreThreshold, IoUThreshold float32
	MaxDetections                int
}

// Provenance is the origin of a model file.
type Provenance struct {
	WeightsSource, WeightsSHA256, Exporter, ExportedAt string
	Libraries                                          map[string]string
	Conversion                                         string
}

// Verification are the checks that passed when the model was loaded.
type Verification struct{ Digest, GoldenSample bool }

// A Receipt has the differences between a file and its PyTorch original; a tolerance of 0 is no
// limit.
type Receipt struct {
	MadeAt                         string
	ScoreTolerance, BoxTolerancePX float64
	MaxScoreDifference             float64
	MaxBoxDifferencePX             *float64
	// The heat map fields are 0 and nil if none were compared.
	HeatMapTolerance     float64
	MaxHeatMapDifference *float64
	Rows                 *RowComparison
	Pictures             []ReceiptPicture
}

// A RowComparison compares a detector's candidates before suppression.
type RowComparison struct {
	Count                                  int64
	MaxScoreDifference, MaxBoxDifferencePX float64
}

// A ReceiptPicture has the differences on one picture.
type ReceiptPicture struct {
	Name                     string
	Width, Height            int
	ScoreThreshold           *float64
	Compared, Excused        int
	MaxScoreDifference       float64
	MaxBoxDifferencePX       *float64
	MaxHeatMapDifference     *float64
	SameTop1                 *bool
	OnlyHere, OnlyInOriginal int
}

// Accuracy is that of a model on labelled pictures, and that of its PyTorch original. Error is the
// standard error of the difference between the two.
type Accuracy struct {
	Metric          string
	Value, Original float64
	Pictures        int
	Source          string
	HeldOut         bool
	Error           float64
}
