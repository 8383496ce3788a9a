// Package visavis calls a visavis server, which runs vision models on pictures and compares their
// answers.
//
//	client, err := visavis.New("127.0.0.1:8001")
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	result, err := client.Detect(ctx, visavis.File("bus.jpg"), "yolov5n", visavis.ScoreThreshold(0.4))
//	if err != nil {
//		return err
//	}
//	for _, found := range result.Detections {
//		fmt.Println(found.Label, found.Score, found.Box)
//	}
//
// # Deadlines and retries
//
// A call ends when its context does. A context without a deadline gets one of 30 seconds, which
// [WithTimeout] changes. Calls that fail because no server answers, or because they are cut off on
// the way, are tried up to four times within the deadline: every method only reads. An overloaded
// server is not asked again; [Error] has the delay that it requests.
//
// # Metadata
//
// [WithMetadata] sends metadata with every call, and
// [google.golang.org/grpc/metadata.AppendToOutgoingContext] with one. The server logs a call under
// the id in its "x-request-id".
//
// # Other calls
//
// Package [visavis.internal/visavis/v1] has the generated messages and stubs; [Client.Conn] is a
// connection for them.
package visavis
