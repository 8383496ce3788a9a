// Command scenario runs the scenario of clients/README.md against a visavis server.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"visavis.internal/visavis"
)

// The names of the status codes in gRPC's specification, as far as the scenario meets them.
var codeNames = map[codes.Code]string{
	codes.InvalidArgument:  "INVALID_ARGUMENT",
	codes.DeadlineExceeded: "DEADLINE_EXCEEDED",
	codes.Unauthenticated:  "UNAUTHENTICATED",
}

var taskNames = map[visavis.Task]string{
	visavis.TaskClassification: "classification",
	visavis.TaskDetection:      "object detection",
}

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "scenario:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 && len(args) != 5 {
		return errors.New("usage: scenario SERVER PICTURE [TLS_SERVER CA_FILE TOKEN]")
	}
	client, err := visavis.New(args[0])
	if err != nil {
		return err
	}
	defer client.Close()
	s := scenario{client, visavis.File(args[1])}
	steps := []func(context.Context) error{
		s.waitUntilServing, s.list, s.classify, s.detect, s.compare, s.missDeadline, s.beRefused,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if len(args) == 5 {
		return listOverTLS(ctx, args[2], args[3], args[4])
	}
	return nil
}

// scenario is a client of a server and the picture that is sent to it.
type scenario struct {
	client  *visavis.Client
	picture visavis.Picture
}

func (s *scenario) waitUntilServing(ctx context.Context) error {
	if err := s.client.WaitUntilReady(ctx); err != nil {
		return err
	}
	return say("step", "health", "status", "SERVING")
}

func (s *scenario) list(ctx context.Context) error {
	cards, err := s.client.Models(ctx)
	if err != nil {
		return err
	}
	models := []object{}
	for _, card := range cards {
		models = append(models, object{
			"name", card.Name, "task", taskNames[card.Tasks[0]],
			"precision", card.Precision, "random_weights", card.RandomWeights,
		})
	}
	return say("step", "list", "models", models)
}

func (s *scenario) classify(ctx context.Context) error {
	answer, err := s.client.Classify(ctx, s.picture, "resnet50", visavis.TopK(3))
	if err != nil {
		return err
	}
	labels := []object{}
	for _, found := range answer.Classifications {
		labels = append(labels, object{"label", found.Label, "score", rounded(found.Score, 4)})
	}
	return say("step", "classify", "model", answer.ServedBy.Model, "labels", labels)
}

func (s *scenario) detect(ctx context.Context) error {
	answer, err := s.client.Detect(ctx, s.picture, "yolov5n", visavis.ScoreThreshold(0.4))
	if err != nil {
		return err
	}
	detections := []object{}
	for _, found := range answer.Detections {
		box := [4]float64{
			rounded(found.Box.XMin, 1), rounded(found.Box.YMin, 1),
			rounded(found.Box.XMax, 1), rounded(found.Box.YMax, 1),
		}
		detections = append(detections, object{
			"label", found.Label, "score", rounded(found.Score, 4), "box", box,
		})
	}
	return say("step", "detect", "model", answer.ServedBy.Model, "detections", detections)
}

func (s *scenario) compare(ctx context.Context) error {
	stream := s.client.CompareStream(ctx, s.picture)
	defer stream.Close()
	for stream.Next() {
		answer := stream.Answer()
		answers := len(answer.Classifications) + len(answer.Detections)
		err := say("step", "compare", "arrived", answer.ServedBy.Model, "answers", answers)
		if err != nil {
			return err
		}
	}
	comparison, err := stream.Summary()
	if err != nil {
		return err
	}
	for _, compared := range comparison.Tasks {
		for _, answer := range compared.Answers {
			err := say(
				"step", "compare", "task", taskNames[compared.Task],
				"model", answer.ServedBy.Model, "agreement", agreement(answer),
			)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// agreement returns the agreement of an answer with the baseline's; nil if it has none.
func agreement(answer visavis.ModelAnswer) any {
	if of := answer.ClassificationAgreement; of != nil {
		return object{"same_top1", of.SameTop1, "top_k_overlap", rounded(of.TopKOverlap, 4)}
	}
	if of := answer.DetectionAgreement; of != nil {
		return object{
			"matched", of.Matched, "only_here", of.OnlyHere,
			"only_in_baseline", of.OnlyInBaseline, "f1", rounded(of.F1, 4),
		}
	}
	return nil
}

func (s *scenario) missDeadline(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	_, err := s.client.Classify(ctx, s.picture, "resnet50")
	return say("step", "deadline", "code", codeName(err))
}

func (s *scenario) beRefused(ctx context.Context) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", "scenario")
	_, err := s.client.Classify(ctx, s.picture, "resnet50", visavis.TopK(0))
	var refused *visavis.Error
	if !errors.As(err, &refused) {
		return fmt.Errorf("a call that must fail did not: %w", err)
	}
	return say(
		"step", "error", "code", codeName(err),
		"field", refused.Field(), "request_id", refused.RequestID,
	)
}

func listOverTLS(ctx context.Context, server, caFile, token string) error {
	trusting := visavis.WithTLSFiles(caFile, "", "")
	known, err := visavis.New(server, trusting, visavis.WithToken(token))
	if err != nil {
		return err
	}
	defer known.Close()
	stranger, err := visavis.New(server, trusting)
	if err != nil {
		return err
	}
	defer stranger.Close()
	models, err := known.Models(ctx)
	if err != nil {
		return err
	}
	_, err = stranger.Models(ctx)
	return say("step", "tls", "models", len(models), "without_token", codeName(err))
}

func codeName(err error) string {
	code := status.Code(err)
	if name, known := codeNames[code]; known {
		return name
	}
	return code.String()
}

// rounded returns a number with the given number of decimals.
func rounded[Number float32 | float64](value Number, decimals int) float64 {
	scale := math.Pow10(decimals)
	return math.Round(float64(value)*scale) / scale
}

// say prints keys and values as one line of JSON.
func say(pairs ...any) error {
	return json.NewEncoder(os.Stdout).Encode(object(pairs))
}
