package visavis

import pb "visavis.internal/visavis/v1"

func readModels(message *pb.ListModelsResponse) []*Model {
	return each(message.GetModels(), readModel)
}

func readModel(message *pb.Model) *Model {
	model := &Model{
		Name:              message.GetName(),
		Version:           int(message.GetVersion()),
		Precision:         message.GetPrecision(),
		VariantOf:         message.GetVariantOf(),
		ExecutionProvider: message.GetExecutionProvider(),
		RandomWeights:     message.GetRandomWeights(),
		Facts:             readFacts(message.GetFacts()),
		LabelSet: LabelSet{
			Name:   message.GetLabelSet().GetName(),
			Size:   int(message.GetLabelSet().GetSize()),
			Labels: message.GetLabelSet().GetLabels(),
		},
		Input: ModelInput{
			Width:  int(message.GetInput().GetWidth()),
			Height: int(message.GetInput().GetHeight()),
			Resize: message.GetInput().GetResize(),
		},
		DetectionDefaults: maybe(message.GetDetectionDefaults(), readDetectionDefaults),
		Provenance:        readProvenance(message.GetProvenance()),
		Verification: Verification{
			Digest:       message.GetVerification().GetDigest(),
			GoldenSample: message.GetVerification().GetGoldenSample(),
		},
		Receipt:  maybe(message.GetReceipt(), readReceipt),
		Accuracy: maybe(message.GetAccuracy(), readAccuracy),
	}
	for _, version := range message.GetVersions() {
		model.Versions = append(model.Versions, int(version))
	}
	for _, value := range message.GetTasks() {
		// A task that is newer than this client is left out.
		if task, known := tasks[value]; known {
			model.Tasks = append(model.Tasks, task)
		}
	}
	return model
}

func readFacts(message *pb.ModelFacts) ModelFacts {
	facts := ModelFacts{
		Architecture:   message.GetArchitecture(),
		Organization:   message.GetOrganization(),
		Category:       message.GetCategory(),
		Modality:       message.GetModality(),
		ReleaseDate:    message.GetReleaseDate(),
		ParameterCount: message.GetParameterCount(),
		CodeLicense:    message.GetCodeLicense(),
		WeightsLicense: message.GetWeightsLicense(),
		Sources:        message.GetSources(),
	}
	if message != nil {
		facts.RealTime = message.RealTime
		facts.ContextWindow = maybe(message.ContextWindow, toInt)
	}
	return facts
}

func readDetectionDefaults(message *pb.DetectionDefaults) DetectionDefaults {
	return DetectionDefaults{
		ScoreThreshold: message.ScoreThreshold,
		IoUThreshold:   message.IouThreshold,
		MaxDetections:  int(message.MaxDetections),
	}
}

func readProvenance(message *pb.Provenance) Provenance {
	return Provenance{
		WeightsSource: message.GetWeightsSource(),
		WeightsSHA256: message.GetWeightsSha256(),
		Exporter:      message.GetExporter(),
		ExportedAt:    message.GetExportedAt(),
		Libraries:     message.GetLibraries(),
		Conversion:    message.GetConversion(),
	}
}

func readReceipt(message *pb.Receipt) Receipt {
	return Receipt{
		MadeAt:               message.MadeAt,
		ScoreTolerance:       message.ScoreTolerance,
		BoxTolerancePX:       message.BoxTolerancePx,
		MaxScoreDifference:   message.MaxScoreDifference,
		MaxBoxDifferencePX:   message.MaxBoxDifferencePx,
		HeatMapTolerance:     message.HeatMapTolerance,
		MaxHeatMapDifference: message.MaxHeatMapDifference,
		Rows: maybe(message.Rows, func(rows *pb.RowComparison) RowComparison {
			return RowComparison{
				Count:              rows.Count,
				MaxScoreDifference: rows.MaxScoreDifference,
				MaxBoxDifferencePX: rows.MaxBoxDifferencePx,
			}
		}),
		Pictures: each(message.Pictures, readReceiptPicture),
	}
}

func readReceiptPicture(message *pb.ReceiptPicture) ReceiptPicture {
	return ReceiptPicture{
		Name:                 message.Name,
		Width:                int(message.Width),
		Height:               int(message.Height),
		ScoreThreshold:       message.ScoreThreshold,
		Compared:             int(message.Compared),
		Excused:              int(message.Excused),
		MaxScoreDifference:   message.MaxScoreDifference,
		MaxBoxDifferencePX:   message.MaxBoxDifferencePx,
		MaxHeatMapDifference: message.MaxHeatMapDifference,
		SameTop1:             message.SameTop1,
		OnlyHere:             int(message.OnlyHere),
		OnlyInOriginal:       int(message.OnlyInOriginal),
	}
}

func readAccuracy(message *pb.Accuracy) Accuracy {
	return Accuracy{
		Metric:   message.Metric,
		Value:    message.Value,
		Original: message.Original,
		Pictures: int(message.Pictures),
		Source:   message.Source,
		HeldOut:  message.HeldOut,
		Error:    message.Error,
	}
}

func toInt(value *int32) int { return int(*value) }
