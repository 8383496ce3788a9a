package main

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The largest answer that is taken; gRPC takes 4 MiB unless it is set to more.
const maxAnswerBytes = 96 << 20

// How often a call is made that meets UNAVAILABLE or is cut off; and the first pause, which
// doubles.
const (
	attempts   = 4
	firstPause = 100 * time.Millisecond
)

// dial returns a connection to a server, which is made anew whenever it breaks.
func dial(server string, security grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.Dial(
		server, security,
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)),
		grpc.WithUnaryInterceptor(repeat),
	)
}

// repeat makes a call again that meets UNAVAILABLE or is cut off, until its context ends. All
// methods only read, so a call may be made again. gRPC's own retries would do the same, but for
// requests of up to 256 KiB, and before version 1.40 only with GRPC_GO_RETRY=on.
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
