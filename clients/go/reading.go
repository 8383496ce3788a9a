package visavis

import (
	"google.golang.org/grpc/codes"

	pb "visavis.internal/visavis/v1"
)

func readClassifyResult(message *pb.ClassifyResponse) *ClassifyResult {
	return &ClassifyResult{
		Classifications: each(message.GetClassifications(), readClassification),
		ServedBy:        readServedBy(message.GetServedBy()),
		Timings:         readTimings(message.GetTimings()),
		ImageSize:       readImageSize(message.GetImageSize()),
		AnnotatedImage:  maybe(message.GetAnnotatedImage(), readAnnotatedImage),
		HeatMap:         maybe(message.GetHeatMap(), readHeatMap),
	}
}

func readDetectResult(message *pb.DetectResponse) *DetectResult {
	return &DetectResult{
		Detections:     each(message.GetDetections(), readDetection),
		ServedBy:       readServedBy(message.GetServedBy()),
		Timings:        readTimings(message.GetTimings()),
		ImageSize:      readImageSize(message.GetImageSize()),
		AnnotatedImage: maybe(message.GetAnnotatedImage(), readAnnotatedImage),
		HeatMap:        maybe(message.GetHeatMap(), readHeatMap),
	}
}

func readComparison(message *pb.CompareResponse) *Comparison {
	comparison := &Comparison{
		LeftOut: each(message.GetLeftOut(), func(left *pb.LeftOutModel) LeftOutModel {
			return LeftOutModel{Model: left.GetModel(), Reason: left.GetReason()}
		}),
		Models:         each(message.GetModels(), readModel),
		ImageSize:      readImageSize(message.GetImageSize()),
		Timings:        readTimings(message.GetTimings()),
		AnnotatedImage: maybe(message.GetAnnotatedImage(), readAnnotatedImage),
	}
	for _, compared := range message.GetComparisons() {
		// A task that is newer than this client is left out.
		if task, known := tasks[compared.GetTask()]; known {
			comparison.Tasks = append(comparison.Tasks, TaskComparison{
				Task:             task,
				Baseline:         compared.GetBaseline(),
				Answers:          each(compared.GetAnswers(), readAnswer),
				NothingToCompare: compared.GetNothingToCompare(),
			})
		}
	}
	return comparison
}

func readAnswer(message *pb.ModelAnswer) ModelAnswer {
	return ModelAnswer{
		ServedBy:        readServedBy(message.GetServedBy()),
		Code:            codes.Code(message.GetStatus().GetCode()),
		Message:         message.GetStatus().GetMessage(),
		Classifications: each(message.GetClassifications(), readClassification),
		Detections:      each(message.GetDetections(), readDetection),
		Timings:         maybe(message.GetTimings(), readTimings),
		ClassificationAgreement: maybe(
			message.GetClassificationAgreement(), readClassificationAgreement),
		DetectionAgreement: maybe(message.GetDetectionAgreement(), readDetectionAgreement),
		HeatMap:            maybe(message.GetHeatMap(), readHeatMap),
	}
}

func readClassificationAgreement(message *pb.ClassificationAgreement) ClassificationAgreement {
	return ClassificationAgreement{
		SameTop1:                message.SameTop1,
		TopKOverlap:             message.TopKOverlap,
		JensenShannonDivergence: message.JensenShannonDivergence,
		UnknownHere:             int(message.UnknownHere),
		UnknownInBaseline:       int(message.UnknownInBaseline),
	}
}

func readDetectionAgreement(message *pb.DetectionAgreement) DetectionAgreement {
	return DetectionAgreement{
		Matched:             int(message.Matched),
		OnlyHere:            int(message.OnlyHere),
		OnlyInBaseline:      int(message.OnlyInBaseline),
		MeanIoU:             message.MeanIou,
		MeanScoreDifference: message.MeanScoreDifference,
		F1:                  message.F1,
		Matches: each(message.Matches, func(match *pb.DetectionMatch) DetectionMatch {
			return DetectionMatch{
				Index: int(match.Index), BaselineIndex: int(match.BaselineIndex), IoU: match.Iou,
			}
		}),
		UnknownHere:       int(message.UnknownHere),
		UnknownInBaseline: int(message.UnknownInBaseline),
	}
}

func readHeatMap(message *pb.HeatMap) HeatMap {
	area := message.GetArea()
	return HeatMap{
		ClassID: int(message.ClassId),
		Label:   message.Label,
		Width:   int(message.Width),
		Height:  int(message.Height),
		Values:  message.Values,
		Min:     message.Min,
		Max:     message.Max,
		Area: Box{
			XMin: area.GetXMin(), YMin: area.GetYMin(), XMax: area.GetXMax(), YMax: area.GetYMax(),
		},
	}
}

func readClassification(message *pb.Classification) Classification {
	return Classification{
		ClassID: int(message.ClassId), Label: message.Label, Score: message.Score,
	}
}

func readDetection(message *pb.Detection) Detection {
	box := message.GetBox()
	return Detection{
		Box: Box{
			XMin: box.GetXMin(), YMin: box.GetYMin(), XMax: box.GetXMax(), YMax: box.GetYMax(),
		},
		ClassID: int(message.ClassId),
		Label:   message.Label,
		Score:   message.Score,
	}
}

func readServedBy(message *pb.ServedBy) ServedBy {
	return ServedBy{
		Model:             message.GetModel(),
		Version:           int(message.GetVersion()),
		Precision:         message.GetPrecision(),
		ExecutionProvider: message.GetExecutionProvider(),
		RandomWeights:     message.GetRandomWeights(),
	}
}

func readTimings(message *pb.Timings) Timings {
	return Timings{
		QueueMS:       message.GetQueueMs(),
		DecodeMS:      message.GetDecodeMs(),
		PreprocessMS:  message.GetPreprocessMs(),
		InferenceMS:   message.GetInferenceMs(),
		PostprocessMS: message.GetPostprocessMs(),
		TotalMS:       message.GetTotalMs(),
	}
}

func readImageSize(message *pb.ImageSize) ImageSize {
	return ImageSize{Width: int(message.GetWidth()), Height: int(message.GetHeight())}
}

func readAnnotatedImage(message *pb.AnnotatedImage) AnnotatedImage {
	return AnnotatedImage{
		Encoded: message.Encoded, MediaType: message.MediaType, Size: readImageSize(message.Size),
	}
}

// each returns the results of a function for every message.
func each[Message, Result any](messages []*Message, read func(*Message) Result) []Result {
	var results []Result
	for _, message := range messages {
		results = append(results, read(message))
	}
	return results
}

// maybe returns the result of a function for a message; nil for nil.
func maybe[Message, Result any](message *Message, read func(*Message) Result) *Result {
	if message == nil {
		return nil
	}
	result := read(message)
	return &result
}
