package visavis

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The kinds of errors, for [errors.Is]. A missed deadline is [context.DeadlineExceeded] and a
// cancelled call [context.Canceled].
var (
	// ErrInvalidSettings means that the address, a TLS file or the token is unusable.
	ErrInvalidSettings = errors.New("invalid settings")
	// ErrInvalidRequest means that the request is invalid; [Error.Violations] names the fields.
	ErrInvalidRequest = errors.New("invalid request")
	// ErrModelNotFound means that the server has no such model, or no such version of it.
	ErrModelNotFound = errors.New("model not found")
	// ErrAccessDenied means that the token is missing or wrong, or does not allow this call.
	ErrAccessDenied = errors.New("access denied")
	// ErrUnsupported means that the server lacks the method: it is older, or not a visavis server.
	ErrUnsupported = errors.New("unsupported")
	// ErrOverloaded means that the server is overloaded; [Error.RetryDelay] says how long to wait.
	ErrOverloaded = errors.New("overloaded")
	// ErrUnavailable means that no server answers, or that it is starting or stopping.
	ErrUnavailable = errors.New("unavailable")
	// ErrServerFailed means that the server failed; its log has [Error.RequestID].
	ErrServerFailed = errors.New("server failed")
)

// All other codes are the server's fault: Internal, Unknown, DataLoss, Aborted.
var kinds = map[codes.Code]error{
	codes.InvalidArgument:    ErrInvalidRequest,
	codes.OutOfRange:         ErrInvalidRequest,
	codes.FailedPrecondition: ErrInvalidRequest,
	codes.NotFound:           ErrModelNotFound,
	codes.Unauthenticated:    ErrAccessDenied,
	codes.PermissionDenied:   ErrAccessDenied,
	codes.Unimplemented:      ErrUnsupported,
	codes.ResourceExhausted:  ErrOverloaded,
	codes.DeadlineExceeded:   context.DeadlineExceeded,
	codes.Unavailable:        ErrUnavailable,
	codes.Canceled:           context.Canceled,
}

// An Error is the failure of a call, or unusable settings. Every method of this package returns
// this type, except for a picture's file that can't be read.
type Error struct {
	// Code is the gRPC status.
	Code codes.Code
	// Message says what is wrong, for people.
	Message string
	// Violations are the invalid fields of the request.
	Violations []FieldViolation
	// RequestID identifies the call in the server's log; empty if the server did not say.
	RequestID string
	// RetryDelay is how long to wait before a retry; 0 if the server did not say.
	RetryDelay time.Duration

	kind   error
	status *status.Status
}

// A FieldViolation is one invalid field of a request.
type FieldViolation struct {
	// Field is the path of the field in the message, such as "image" or "top_k".
	Field string
	// Description says why it is invalid.
	Description string
}

func (e *Error) Error() string { return e.Message }

// Is reports whether target is the kind of this error.
func (e *Error) Is(target error) bool { return e.kind == target }

// GRPCStatus returns the gRPC status with all its details.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Field returns the path of the first invalid field; empty if there is none.
func (e *Error) Field() string {
	if len(e.Violations) == 0 {
		return ""
	}
	return e.Violations[0].Field
}

func invalidSettings(format string, arguments ...any) *Error {
	return localError(ErrInvalidSettings, fmt.Sprintf(format, arguments...))
}

func invalidPicture(format string, arguments ...any) *Error {
	message := fmt.Sprintf(format, arguments...)
	err := localError(ErrInvalidRequest, message)
	err.Violations = []FieldViolation{{Field: "image", Description: message}}
	return err
}

// localError returns an error that was found before any call.
func localError(kind error, message string) *Error {
	return &Error{
		Code: codes.InvalidArgument, Message: message, kind: kind,
		status: status.New(codes.InvalidArgument, message),
	}
}

// gRPC reports messages that are too large with the code of an overloaded server: its Go library as
// "grpc: received …", the server as "Received …" or "SERVER: Received …".
var tooLarge = regexp.MustCompile(`(?i)(grpc: )?received message larger than max \((\d+) vs\. (\d+)\)`)

// translated returns the error for a failed call to a server. timeout: what the call had.
func translated(err error, address string, timeout time.Duration) error {
	if err == nil {
		return nil
	}
	from := status.Convert(err)
	e := &Error{Code: from.Code(), Message: from.Message(), status: from}
	e.kind = kinds[e.Code]
	if e.kind == nil {
		e.kind = ErrServerFailed
	}
	details := from.Proto().GetDetails()
	for _, detail := range details {
		switch detail.GetTypeUrl() {
		case "type.googleapis.com/google.rpc.BadRequest":
			e.Violations = parseBadRequest(detail.GetValue())
		case "type.googleapis.com/google.rpc.RequestInfo":
			e.RequestID = parseRequestInfo(detail.GetValue())
		case "type.googleapis.com/google.rpc.RetryInfo":
			e.RetryDelay = parseRetryInfo(detail.GetValue())
		}
	}
	if len(details) == 0 {
		e.explain(address, timeout)
	}
	if e.kind == ErrServerFailed && !strings.Contains(e.Message, e.RequestID) {
		e.Message += fmt.Sprintf(" (request id %s; see the server's log)", e.RequestID)
	}
	return e
}

// explain replaces a message that comes from gRPC itself, since it has no details.
func (e *Error) explain(address string, timeout time.Duration) {
	switch e.Code {
	case codes.Unavailable:
		e.Message = fmt.Sprintf("no answer from %s: %s", address, e.Message)
	case codes.DeadlineExceeded:
		e.Message = fmt.Sprintf("no answer from %s within %v; try a longer timeout",
			address, timeout.Round(time.Millisecond))
	case codes.Unimplemented:
		e.Message = fmt.Sprintf("the server at %s doesn't support this call: %s",
			address, e.Message)
	case codes.ResourceExhausted:
		found := tooLarge.FindStringSubmatch(e.Message)
		if found == nil {
			return
		}
		e.kind = ErrInvalidRequest
		if found[1] == "" {
			e.Message = fmt.Sprintf("the request is %s bytes; the server's limit "+
				"(max_message_bytes) is %s; send a smaller picture", found[2], found[3])
		} else {
			e.Message = fmt.Sprintf("the response is %s bytes; this client's limit is %s; "+
				"request fewer models or no annotated picture", found[2], found[3])
		}
	}
}
