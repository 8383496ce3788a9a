package visavis

import (
	"context"
	"math/rand"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	pb "visavis.internal/visavis/v1"
)

const (
	// Larger than the usual server limit of 32 MiB, so that the server decides what is too large.
	maxMessageBytes = 96 << 20
	// How often a call is tried, and the longest pause before the second attempt. Each further
	// pause is twice as long.
	attempts   = 4
	firstPause = 100 * time.Millisecond
	readyPoll  = 100 * time.Millisecond
)

// A Client is a connection to one server, which is opened by the first call and again whenever it
// breaks. Its methods may be called from several goroutines, which share the connection.
type Client struct {
	address    string
	timeout    time.Duration
	connection *grpc.ClientConn
	vision     pb.VisionServiceClient
	health     health.HealthClient
}

// New returns a client of the server at an address: HOST:PORT, unix:PATH, or a target of gRPC such
// as dns:///HOST:PORT. It connects with the first call. The error is [ErrInvalidSettings].
func New(address string, options ...Option) (*Client, error) {
	s := settings{timeout: DefaultTimeout, headers: headers{}}
	for _, option := range options {
		if err := option(&s); err != nil {
			return nil, err
		}
	}
	local, err := checkAddress(address)
	if err != nil {
		return nil, err
	}
	if s.token != "" {
		if s.tls == nil && !local {
			return nil, invalidSettings(
				"the token for %s would be sent in the clear; use WithTLS", address)
		}
		s.headers["authorization"] = "Bearer " + s.token
	}
	connection, err := grpc.Dial(address, s.dialOptions(local)...)
	if err != nil {
		return nil, invalidSettings("can't use %q: %v", address, err)
	}
	return &Client{
		address:    address,
		timeout:    s.timeout,
		connection: connection,
		vision:     pb.NewVisionServiceClient(connection),
		health:     health.NewHealthClient(connection),
	}, nil
}

func (s *settings) dialOptions(local bool) []grpc.DialOption {
	security := grpc.WithInsecure()
	if s.tls != nil {
		security = grpc.WithTransportCredentials(credentials.NewTLS(s.tls))
	}
	reconnect := backoff.DefaultConfig
	// By default gRPC waits for a second at first, and for up to two minutes later.
	reconnect.BaseDelay, reconnect.MaxDelay = 100*time.Millisecond, 5*time.Second
	options := []grpc.DialOption{
		security,
		grpc.WithPerRPCCredentials(s.headers),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		// Detect a dead connection within 80 s, but ping only during calls: servers close
		// connections that ping too often.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: time.Minute, Timeout: 20 * time.Second,
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: reconnect, MinConnectTimeout: 20 * time.Second,
		}),
	}
	if local {
		options = append(options, grpc.WithNoProxy())
	}
	return append(options, s.dial...)
}

// Close closes the connection; calls in progress fail as [context.Canceled].
func (c *Client) Close() error { return c.connection.Close() }

// Conn returns the connection, for stubs of other services. It sends the token and the metadata,
// but neither sets deadlines nor retries.
func (c *Client) Conn() *grpc.ClientConn { return c.connection }

// Classify returns one model's labels for the whole picture, highest score first.
func (c *Client) Classify(
	ctx context.Context, picture Picture, model string, options ...ClassifyOption,
) (*ClassifyResult, error) {
	image, err := picture.image()
	if err != nil {
		return nil, err
	}
	var o requestOptions
	for _, option := range options {
		option.forClassify(&o)
	}
	return call(ctx, c, c.vision.Classify, o.classifyRequest(image, model), readClassifyResult)
}

// Detect returns the objects that one model finds in the picture, highest score first.
func (c *Client) Detect(
	ctx context.Context, picture Picture, model string, options ...DetectOption,
) (*DetectResult, error) {
	image, err := picture.image()
	if err != nil {
		return nil, err
	}
	var o requestOptions
	for _, option := range options {
		option.forDetect(&o)
	}
	return call(ctx, c, c.vision.Detect, o.detectRequest(image, model), readDetectResult)
}

// Compare returns the answers of all capable models for one picture, side by side.
func (c *Client) Compare(
	ctx context.Context, picture Picture, options ...CompareOption,
) (*Comparison, error) {
	image, err := picture.image()
	if err != nil {
		return nil, err
	}
	var o requestOptions
	for _, option := range options {
		option.forCompare(&o)
	}
	return call(ctx, c, c.vision.Compare, o.compareRequest(image), readComparison)
}

// CompareStream is like [Client.Compare], but gives each model's answer as soon as it is ready.
// Errors are reported by the stream. The deadline covers the whole stream.
func (c *Client) CompareStream(
	ctx context.Context, picture Picture, options ...CompareOption,
) *ComparisonStream {
	image, err := picture.image()
	if err != nil {
		return &ComparisonStream{err: err, cancel: func() {}}
	}
	var o requestOptions
	for _, option := range options {
		option.forCompare(&o)
	}
	ctx, cancel := c.bounded(ctx)
	return &ComparisonStream{
		client: c, ctx: ctx, cancel: cancel, timeout: untilDeadline(ctx),
		request: o.compareStreamRequest(image),
	}
}

// Models returns the cards of all models, ordered by name, without labels and receipts.
func (c *Client) Models(ctx context.Context) ([]*Model, error) {
	return call(ctx, c, c.vision.ListModels, &pb.ListModelsRequest{}, readModels)
}

// Model returns one model's card, with its labels and its receipt. version: 0 for the highest.
func (c *Client) Model(ctx context.Context, name string, version int) (*Model, error) {
	request := &pb.GetModelRequest{Model: name}
	if version != 0 {
		request.Version = int32Pointer(version)
	}
	read := func(response *pb.GetModelResponse) *Model { return readModel(response.GetModel()) }
	return call(ctx, c, c.vision.GetModel, request, read)
}

// WaitUntilReady returns once the server has loaded its models, or when the context ends.
func (c *Client) WaitUntilReady(ctx context.Context) error {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	timeout := untilDeadline(ctx)
	for {
		// If the server is not listening yet, gRPC retries until the context ends.
		answer, err := c.health.Check(ctx, &health.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return translated(err, c.address, timeout)
		}
		if answer.GetStatus() == health.HealthCheckResponse_SERVING {
			return nil
		}
		select {
		case <-ctx.Done():
			return translated(status.FromContextError(ctx.Err()).Err(), c.address, timeout)
		case <-time.After(readyPoll):
		}
	}
}

// call makes a unary call within its deadline, with retries, and reads the response.
func call[Request, Response, Result any](
	ctx context.Context, c *Client,
	method func(context.Context, *Request, ...grpc.CallOption) (*Response, error),
	request *Request, read func(*Response) Result,
) (result Result, err error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	timeout := untilDeadline(ctx)
	var response *Response
	err = retried(ctx, func() (err error) {
		response, err = method(ctx, request)
		return err
	})
	if err != nil {
		return result, translated(err, c.address, timeout)
	}
	return read(response), nil
}

// bounded returns a context with a deadline: its own, else the client's.
func (c *Client) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.timeout)
}

func untilDeadline(ctx context.Context) time.Duration {
	deadline, _ := ctx.Deadline()
	return time.Until(deadline)
}

// retried repeats a call that fails as Unavailable or is cut off, until its context ends. Every
// method only reads, so retries are safe. gRPC's own retries are limited to requests of 256 KiB, and
// before version 1.40 they need GRPC_GO_RETRY=on.
func retried(ctx context.Context, call func() error) error {
	for attempt, pause := 1, firstPause; ; attempt, pause = attempt+1, 2*pause {
		err := call()
		code := status.Code(err)
		again := code == codes.Unavailable || code == codes.Canceled && ctx.Err() == nil
		if !again || attempt == attempts {
			return err
		}
		// Between half and all of the pause: clients that failed together do not return together.
		timer := time.NewTimer(pause/2 + time.Duration(rand.Int63n(int64(pause/2)+1)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}
