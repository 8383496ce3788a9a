package visavis

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// The details of google.rpc are read without their generated types: older and newer gRPC modules
// take these from different modules, and a program with both does not build.

// parseBadRequest reads google.rpc.BadRequest: field_violations = 1.
func parseBadRequest(message []byte) (violations []FieldViolation) {
	eachField(message, func(number protowire.Number, violation []byte, _ uint64) {
		if number != 1 {
			return
		}
		var read FieldViolation
		eachField(violation, func(number protowire.Number, text []byte, _ uint64) {
			switch number {
			case 1:
				read.Field = string(text)
			case 2:
				read.Description = string(text)
			}
		})
		violations = append(violations, read)
	})
	return violations
}

// parseRequestInfo reads the request_id = 1 of google.rpc.RequestInfo.
func parseRequestInfo(message []byte) (id string) {
	eachField(message, func(number protowire.Number, text []byte, _ uint64) {
		if number == 1 {
			id = string(text)
		}
	})
	return id
}

// parseRetryInfo reads google.rpc.RetryInfo: retry_delay = 1, a google.protobuf.Duration of
// seconds = 1 and nanos = 2.
func parseRetryInfo(message []byte) (delay time.Duration) {
	eachField(message, func(number protowire.Number, duration []byte, _ uint64) {
		if number != 1 {
			return
		}
		eachField(duration, func(number protowire.Number, _ []byte, value uint64) {
			switch number {
			case 1:
				delay += time.Duration(value) * time.Second
			case 2:
				delay += time.Duration(value)
			}
		})
	})
	return delay
}

// eachField calls see with the bytes or the integer of every field of a message, up to the first
// byte that is no protobuf.
func eachField(message []byte, see func(protowire.Number, []byte, uint64)) {
	for len(message) > 0 {
		number, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return
		}
		message = message[size:]
		var text []byte
		var value uint64
		switch kind {
		case protowire.BytesType:
			text, size = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			value, size = protowire.ConsumeVarint(message)
		default:
			size = protowire.ConsumeFieldValue(number, kind, message)
		}
		if size < 0 {
			return
		}
		see(number, text, value)
		message = message[size:]
	}
}
