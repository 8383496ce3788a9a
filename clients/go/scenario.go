// Command scenario runs the scenario of clients/README.md against a visavis server.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "visavis/v1"
)

// The timeout of each step.
const patience = 30 * time.Second

var taskNames = map[pb.Task]string{
	pb.Task_TASK_CLASSIFICATION:   "classification",
	pb.Task_TASK_OBJECT_DETECTION: "object detection",
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "scenario:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 && len(args) != 5 {
		return errors.New("usage: scenario SERVER PICTURE [TLS_SERVER CA_FILE TOKEN]")
	}
	encoded, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	connection, err := dial(args[0], grpc.WithInsecure())
	if err != nil {
		return err
	}
	defer connection.Close()
	s := scenario{
		health:  health.NewHealthClient(connection),
		vision:  pb.NewVisionServiceClient(connection),
		picture: &pb.Image{Source: &pb.Image_Encoded{Encoded: encoded}},
	}
	steps := []func(context.Context) error{
		s.waitUntilServing, s.list, s.classify, s.detect, s.compare, s.missDeadline, s.beRefused,
	}
	if len(args) == 5 {
		steps = append(steps, func(ctx context.Context) error {
			return listOverTLS(ctx, args[2], args[3], args[4])
		})
	}
	for _, step := range steps {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := step(ctx)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// scenario is a server and the picture that is sent to it.
type scenario struct {
	health  health.HealthClient
	vision  pb.VisionServiceClient
	picture *pb.Image
}

func (s *scenario) waitUntilServing(ctx context.Context) error {
	for {
		// If the server is not listening yet, gRPC retries until the context ends.
		answer, err := s.health.Check(ctx, &health.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		if answer.Status == health.HealthCheckResponse_SERVING {
			return say("step", "health", "status", answer.Status.String())
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *scenario) list(ctx context.Context) error {
	answer, err := s.vision.ListModels(ctx, &pb.ListModelsRequest{})
	if err != nil {
		return err
	}
	models := []object{}
	for _, card := range answer.Models {
		models = append(models, object{
			"name", card.Name, "task", taskNames[card.Tasks[0]],
			"precision", card.Precision, "random_weights", card.RandomWeights,
		})
	}
	return say("step", "list", "models", models)
}

func (s *scenario) classify(ctx context.Context) error {
	answer, err := s.vision.Classify(ctx, &pb.ClassifyRequest{
		Image: s.picture, Model: "resnet50", TopK: proto.Int32(3),
	})
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
	answer, err := s.vision.Detect(ctx, &pb.DetectRequest{
		Image: s.picture, Model: "yolov5n", ScoreThreshold: proto.Float32(0.4),
	})
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
	stream, err := s.vision.CompareStream(ctx, &pb.CompareStreamRequest{Image: s.picture})
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if streamed := event.GetAnswer(); streamed != nil {
			answer := streamed.Answer
			answers := len(answer.Classifications) + len(answer.Detections)
			err = say("step", "compare", "arrived", answer.ServedBy.Model, "answers", answers)
		} else {
			err = saySummary(event.GetSummary())
		}
		if err != nil {
			return err
		}
	}
}

func saySummary(summary *pb.CompareResponse) error {
	for _, comparison := range summary.Comparisons {
		for _, answer := range comparison.Answers {
			err := say(
				"step", "compare", "task", taskNames[comparison.Task],
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
func agreement(answer *pb.ModelAnswer) any {
	if of := answer.GetClassificationAgreement(); of != nil {
		return object{"same_top1", of.SameTop1, "top_k_overlap", rounded(of.TopKOverlap, 4)}
	}
	if of := answer.GetDetectionAgreement(); of != nil {
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
	_, err := s.vision.Classify(ctx, &pb.ClassifyRequest{Image: s.picture, Model: "resnet50"})
	return say("step", "deadline", "code", codeName(err))
}

func (s *scenario) beRefused(ctx context.Context) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", "scenario")
	_, err := s.vision.Classify(ctx, &pb.ClassifyRequest{
		Image: s.picture, Model: "resnet50", TopK: proto.Int32(0),
	})
	var field, requestID string
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				field = violation.Field
			}
		case *errdetails.RequestInfo:
			requestID = detail.RequestId
		}
	}
	return say("step", "error", "code", codeName(err), "field", field, "request_id", requestID)
}

func listOverTLS(ctx context.Context, server, caFile, token string) error {
	authority, err := credentials.NewClientTLSFromFile(caFile, "")
	if err != nil {
		return err
	}
	connection, err := dial(server, grpc.WithTransportCredentials(authority))
	if err != nil {
		return err
	}
	defer connection.Close()
	vision := pb.NewVisionServiceClient(connection)
	withToken := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	answer, err := vision.ListModels(withToken, &pb.ListModelsRequest{})
	if err != nil {
		return err
	}
	_, err = vision.ListModels(ctx, &pb.ListModelsRequest{})
	return say("step", "tls", "models", len(answer.Models), "without_token", codeName(err))
}

// codeName returns the name of a call's status in the spelling of gRPC's specification.
func codeName(err error) string {
	return code.Code(status.Code(err)).String()
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
