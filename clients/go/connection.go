package main

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The largest accepted response; gRPC's default is 4 MiB.
const maxAnswerBytes = 96 << 20

// The attempts of a call that fails as UNAVAILABLE or is cut off, and the pause before the second
// one. Each further pause is twice as long.
const (
	attempts   = 4
	firstPause = 100 * time.Millisecond
)

// dial returns a connection to a server that reconnects whenever it breaks.
func dial(server string, security grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.Dial(
		server, security,
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)),
		grpc.WithUnaryInterceptor(repeat),
	)
}

// repeat retries calls that fail as UNAVAILABLE or are cut off, until their context ends. All
// methods are read-only, so retries are safe. gRPC's own retries are limited to requests of 256
// KiB, and before version 1.40 they need GRPC_GO_RETRY=on.
func repeat(
	ctx context.Context, method string, request, answer any, connection *grpc.ClientConn,
	call grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		err := call(ctx, method, request, answer, connection, options...)
		code := status.Code(err)
		if code != codes.Unavailable && code != codes.Canceled || attempt == attempts {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
			pause *= 2
		}
	}
}
