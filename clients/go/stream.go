package visavis

import (
	"context"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "visavis.internal/visavis/v1"
)

// A ComparisonStream gives the answers of a comparison as they arrive, then the whole comparison.
//
//	stream := client.CompareStream(ctx, visavis.File("bus.jpg"))
//	defer stream.Close()
//	for stream.Next() {
//		fmt.Println(stream.Answer().ServedBy.Model, "has answered")
//	}
//	comparison, err := stream.Summary()
//
// It may be used from one goroutine at a time.
type ComparisonStream struct {
	client  *Client
	ctx     context.Context
	cancel  context.CancelFunc
	timeout time.Duration
	request *pb.CompareStreamRequest

	events  pb.VisionService_CompareStreamClient
	answer  *StreamedAnswer
	summary *Comparison
	ended   bool
	err     error
}

// Next waits for the next answer. It returns false after the last one, and after an error.
func (s *ComparisonStream) Next() bool {
	s.answer = nil
	for !s.ended && s.err == nil {
		event, err := s.receive()
		if err == io.EOF {
			s.ended = true
			break
		}
		if err != nil {
			s.err = translated(err, s.client.address, s.timeout)
			break
		}
		if summary := event.GetSummary(); summary != nil {
			s.summary = readComparison(summary)
		}
		// A task that is newer than this client is left out.
		if answer := event.GetAnswer(); answer != nil && tasks[answer.GetTask()] != "" {
			s.answer = &StreamedAnswer{
				Task: tasks[answer.GetTask()], ModelAnswer: readAnswer(answer.GetAnswer()),
			}
			return true
		}
	}
	s.cancel()
	return false
}

// Answer returns the answer that [ComparisonStream.Next] has waited for.
func (s *ComparisonStream) Answer() *StreamedAnswer { return s.answer }

// Summary returns the whole comparison. It skips the answers that Next has not yet given.
func (s *ComparisonStream) Summary() (*Comparison, error) {
	for s.Next() {
	}
	if s.err == nil && s.summary == nil {
		ended := status.Error(codes.Internal, "the stream ended without a summary")
		s.err = translated(ended, s.client.address, s.timeout)
	}
	if s.err != nil {
		return nil, s.err
	}
	return s.summary, nil
}

// Close cancels what has not been received.
func (s *ComparisonStream) Close() { s.cancel() }

// receive returns the next event. Until the first one, the call is retried.
func (s *ComparisonStream) receive() (event *pb.CompareStreamResponse, err error) {
	if s.events != nil {
		return s.events.Recv()
	}
	err = retried(s.ctx, func() (err error) {
		s.events, err = s.client.vision.CompareStream(s.ctx, s.request)
		if err == nil {
			event, err = s.events.Recv()
		}
		return err
	})
	return event, err
}
