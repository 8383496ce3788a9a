package visavis_test

import (
	"context"
	"errors"
	"image"
	"image/color"
	"io/fs"
	"net"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"visavis.internal/visavis"
	pb "visavis.internal/visavis/v1"
)

// fake fails its first calls, then answers with what it received.
type fake struct {
	pb.UnimplementedVisionServiceServer
	failures int32
	with     codes.Code
	calls    int32
	request  *pb.ClassifyRequest
	headers  metadata.MD
	left     time.Duration
}

func (f *fake) Classify(
	ctx context.Context, request *pb.ClassifyRequest,
) (*pb.ClassifyResponse, error) {
	if err := f.next(); err != nil {
		return nil, err
	}
	f.request = request
	f.headers, _ = metadata.FromIncomingContext(ctx)
	deadline, _ := ctx.Deadline()
	f.left = time.Until(deadline)
	return &pb.ClassifyResponse{
		ServedBy: &pb.ServedBy{Model: request.Model}, HeatMap: heatMap(request.Explain),
	}, nil
}

func (f *fake) Detect(_ context.Context, request *pb.DetectRequest) (*pb.DetectResponse, error) {
	return &pb.DetectResponse{HeatMap: heatMap(request.Explain)}, f.next()
}

// heatMap returns the map that is asked for; nil for none.
func heatMap(asked *pb.Explain) *pb.HeatMap {
	if asked == nil {
		return nil
	}
	label := "the best"
	if asked.Label != nil {
		label = *asked.Label
	}
	return &pb.HeatMap{
		ClassId: 7, Label: label, Width: 3, Height: 2, Values: []float32{-2, 0, 1, 2, 3, 60},
		Min: -2, Max: 60, Area: &pb.HeatMapArea{XMin: 100, YMin: 50, XMax: 400, YMax: 250},
	}
}

func (f *fake) CompareStream(
	_ *pb.CompareStreamRequest, stream pb.VisionService_CompareStreamServer,
) error {
	if err := f.next(); err != nil {
		return err
	}
	for _, task := range []pb.Task{pb.Task_TASK_OBJECT_DETECTION, pb.Task(99)} {
		answer := &pb.StreamedAnswer{Task: task, Answer: &pb.ModelAnswer{}}
		event := &pb.CompareStreamResponse_Answer{Answer: answer}
		if err := stream.Send(&pb.CompareStreamResponse{Event: event}); err != nil {
			return err
		}
	}
	return status.Error(codes.Internal, "the model broke")
}

func (f *fake) next() error {
	if atomic.AddInt32(&f.calls, 1) <= f.failures {
		return status.Error(f.with, "not now")
	}
	return nil
}

// serve starts a server and returns a client of it.
func serve(t *testing.T, f *fake, options ...visavis.Option) *visavis.Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterVisionServiceServer(server, f)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	client, err := visavis.New(listener.Addr().String(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

var picture = visavis.Encoded("a picture")

func TestUnavailableAndCutOffCallsAreRetried(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.Canceled} {
		f := &fake{failures: 3, with: code}
		if _, err := serve(t, f).Classify(context.Background(), picture, "m"); err != nil {
			t.Errorf("%v: %v after %d calls", code, err, f.calls)
		}
	}
}

func TestFourAttemptsAreTheMost(t *testing.T) {
	f := &fake{failures: 99, with: codes.Unavailable}
	_, err := serve(t, f).Classify(context.Background(), picture, "m")
	if !errors.Is(err, visavis.ErrUnavailable) || f.calls != 4 {
		t.Errorf("%v after %d calls", err, f.calls)
	}
}

func TestAnOverloadedServerIsNotAskedAgain(t *testing.T) {
	f := &fake{failures: 1, with: codes.ResourceExhausted}
	_, err := serve(t, f).Classify(context.Background(), picture, "m")
	if !errors.Is(err, visavis.ErrOverloaded) || f.calls != 1 {
		t.Errorf("%v after %d calls", err, f.calls)
	}
}

func TestAStreamIsRetriedUntilItsFirstAnswer(t *testing.T) {
	f := &fake{failures: 2, with: codes.Unavailable}
	stream := serve(t, f).CompareStream(context.Background(), picture)
	defer stream.Close()
	answers := 0
	for ; stream.Next(); answers++ {
		if task := stream.Answer().Task; task != visavis.TaskDetection {
			t.Errorf("an answer for %v", task)
		}
	}
	_, err := stream.Summary()
	if answers != 1 || f.calls != 3 || !errors.Is(err, visavis.ErrServerFailed) {
		t.Errorf("%d answers after %d calls, then %v", answers, f.calls, err)
	}
}

func TestACallHasADeadlineMetadataAndOptions(t *testing.T) {
	f := &fake{}
	client := serve(t, f,
		visavis.WithTimeout(9*time.Second), visavis.WithToken(" secret\n"),
		visavis.WithMetadata("X-Team", "vision"))
	ctx := metadata.AppendToOutgoingContext(context.Background(), "x-request-id", "mine")
	_, err := client.Classify(ctx, picture, "m", visavis.Version(2), visavis.TopK(1<<40))
	if err != nil {
		t.Fatal(err)
	}
	if f.left < 8*time.Second || f.left > 9*time.Second {
		t.Errorf("%v are left", f.left)
	}
	for key, value := range map[string]string{
		"authorization": "Bearer secret", "x-team": "vision", "x-request-id": "mine",
	} {
		if got := f.headers.Get(key); len(got) != 1 || got[0] != value {
			t.Errorf("%s: %q", key, got)
		}
	}
	if f.request.GetVersion() != 2 || f.request.GetTopK() != 1<<31-1 || f.request.GetAnnotate() {
		t.Errorf("sent %v", f.request)
	}
}

func TestTheContextsOwnDeadlineCounts(t *testing.T) {
	f := &fake{}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if _, err := serve(t, f).Classify(ctx, picture, "m"); err != nil {
		t.Fatal(err)
	}
	if f.left < 59*time.Minute {
		t.Errorf("%v are left", f.left)
	}
}

func TestAHeatMapIsOfTheBestLabelOrOfOne(t *testing.T) {
	ctx, client := context.Background(), serve(t, &fake{})
	without, err := client.Classify(ctx, picture, "m")
	if err != nil || without.HeatMap != nil {
		t.Errorf("%v, %v", without, err)
	}
	expected := visavis.HeatMap{
		ClassID: 7, Label: "the best", Width: 3, Height: 2, Values: []float32{-2, 0, 1, 2, 3, 60},
		Min: -2, Max: 60, Area: visavis.Box{XMin: 100, YMin: 50, XMax: 400, YMax: 250},
	}
	best, err := client.Classify(ctx, picture, "m", visavis.Explain())
	if err != nil || !reflect.DeepEqual(*best.HeatMap, expected) {
		t.Errorf("%v, %v", best, err)
	}
	// An empty label is one that the model does not have.
	for _, expected.Label = range []string{"dog", ""} {
		one, err := client.Detect(ctx, picture, "m", visavis.ExplainLabel(expected.Label))
		if err != nil || !reflect.DeepEqual(*one.HeatMap, expected) {
			t.Errorf("%v, %v", one, err)
		}
	}
}

func TestUnusableSettingsAreRejected(t *testing.T) {
	for address, option := range map[string]visavis.Option{
		"http://localhost:8001": visavis.WithTimeout(1),
		"localhost":             visavis.WithTimeout(1),
		"localhost:0":           visavis.WithTimeout(1),
		"localhost:65536":       visavis.WithTimeout(1),
		"localhost:1":           visavis.WithTimeout(0),
		"localhost:2":           visavis.WithToken("two\nlines"),
		"192.0.2.1:8001":        visavis.WithToken("in the clear"),
		"dns:///localhost:8001": visavis.WithToken("in the clear"),
		"localhost:3":           visavis.WithTLSFiles("/nonexistent", "", ""),
		"localhost:4":           visavis.WithTLSFiles("", "certificate.pem", ""),
	} {
		if _, err := visavis.New(address, option); !errors.Is(err, visavis.ErrInvalidSettings) {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/tmp/s"} {
		client, err := visavis.New(address, visavis.WithToken("secret"))
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		client.Close()
	}
}

func TestUnusablePicturesAreRejectedBeforeTheCall(t *testing.T) {
	f := &fake{}
	client := serve(t, f)
	for _, unusable := range []visavis.Picture{
		visavis.Encoded(nil), visavis.File("https://example.org/bus.jpg"), visavis.Raw{},
	} {
		_, err := client.Classify(context.Background(), unusable, "m")
		var invalid *visavis.Error
		if !errors.As(err, &invalid) || invalid.Field() != "image" {
			t.Errorf("%v: %v", unusable, err)
		}
	}
	_, err := client.Detect(context.Background(), visavis.File("/nonexistent.jpg"), "m")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if f.calls != 0 {
		t.Errorf("%d calls", f.calls)
	}
}

func TestImagesInMemoryAreSentAsPixels(t *testing.T) {
	gray := image.NewGray(image.Rect(0, 0, 3, 2))
	copy(gray.Pix, []byte{1, 2, 3, 4, 5, 6})
	part := gray.SubImage(image.Rect(1, 0, 3, 2))
	clear := image.NewNRGBA(image.Rect(5, 5, 6, 6))
	clear.Set(5, 5, color.NRGBA{R: 200, G: 100, B: 50, A: 128})
	for _, c := range []struct {
		source image.Image
		format pb.PixelFormat
		pixels string
	}{
		{part, pb.PixelFormat_PIXEL_FORMAT_GRAY, "\x02\x03\x05\x06"},
		{clear, pb.PixelFormat_PIXEL_FORMAT_RGB, "\xc8\x64\x32"},
	} {
		f := &fake{}
		_, err := serve(t, f).Classify(context.Background(), visavis.Decoded(c.source), "m")
		if err != nil {
			t.Fatal(err)
		}
		raw, size := f.request.GetImage().GetRaw(), c.source.Bounds()
		if raw.Format != c.format || string(raw.Data) != c.pixels ||
			int(raw.Width) != size.Dx() || int(raw.Height) != size.Dy() {
			t.Errorf("sent %v", raw)
		}
	}
}
