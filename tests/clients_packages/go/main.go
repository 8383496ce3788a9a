// Command check uses the module as another module would; its arguments are those of Arguments in
// test_packages.py.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"

	"visavis.internal/visavis"
)

func main() {
	server, tls, authority, certificate, key, token, unix, fake, file := os.Args[1], os.Args[2],
		os.Args[3], os.Args[4], os.Args[5], os.Args[6], os.Args[7], os.Args[8], os.Args[9]
	ctx := context.Background()
	client := open(server)
	defer client.Close()
	must(0, client.WaitUntilReady(ctx))
	picture := visavis.File(file)
	results(ctx, client, picture)
	comparison(ctx, client, picture)
	named := metadata.AppendToOutgoingContext(ctx, "x-request-id", "mine")
	_, err := client.Classify(named, picture, "colors", visavis.TopK(0))
	failed("rejected", err)
	_, err = client.Detect(ctx, picture, "nothing")
	failed("unknown", err)

	known := open(tls, visavis.WithTLSFiles(authority, certificate, key), visavis.WithToken(token))
	defer known.Close()
	fmt.Println("tls", names(must(known.Models(ctx))))
	stranger := open(tls, visavis.WithTLSFiles(authority, certificate, key))
	defer stranger.Close()
	_, err = stranger.Models(ctx)
	failed("stranger", err)
	nobody := open(tls, visavis.WithTLSFiles(authority, "", ""), visavis.WithToken(token))
	defer nobody.Close()
	_, err = nobody.Models(ctx)
	failed("nobody", err)
	_, err = visavis.New("192.0.2.1:8001", visavis.WithToken(token))
	failed("clear", err)

	local := open(unix)
	defer local.Close()
	fmt.Println("unix", names(must(local.Models(ctx))))
	receipt := must(local.Model(ctx, "yolov5n", 0)).Receipt
	fmt.Printf("receipt %.3f %.6f %.6f\n", receipt.HeatMapTolerance, *receipt.MaxHeatMapDifference,
		*receipt.Pictures[0].MaxHeatMapDifference)
	impatient := open(fake, visavis.WithTimeout(200*time.Millisecond),
		visavis.WithToken("secret"), visavis.WithMetadata("x-team", "vision"))
	defer impatient.Close()
	_, err = impatient.Classify(ctx, picture, "any")
	failed("overloaded", err)
	_, err = impatient.Detect(ctx, picture, "any")
	failed("late", err)
	again := open(fake, visavis.WithTimeout(20*time.Second))
	defer again.Close()
	fmt.Println("again", len(must(again.Compare(ctx, picture)).Tasks))
}

func results(ctx context.Context, client *visavis.Client, picture visavis.Picture) {
	fmt.Println("models", names(must(client.Models(ctx))))
	card := must(client.Model(ctx, "colors", 1))
	fmt.Println("card", card.Name, card.Version, card.Tasks[0], strings.Join(card.LabelSet.Labels, ","),
		card.Verification.GoldenSample, card.Receipt != nil)
	labels := must(client.Classify(ctx, picture, "colors", visavis.TopK(2), visavis.Annotate()))
	for _, found := range labels.Classifications {
		fmt.Printf("label %s %d %.3f\n", found.Label, found.ClassID, found.Score)
	}
	drawn := labels.AnnotatedImage
	fmt.Println("drawn", drawn.MediaType, drawn.Size.Width, drawn.Size.Height,
		bytes.HasPrefix(drawn.Encoded, []byte("\xff\xd8")))
	boxes := must(client.Detect(ctx, picture, "boxes", visavis.IoUThreshold(0.9), visavis.Labels("cat")))
	for _, found := range boxes.Detections {
		fmt.Printf("box %s %.3f %.1f %.1f %.1f %.1f\n", found.Label, found.Score,
			found.Box.XMin, found.Box.YMin, found.Box.XMax, found.Box.YMax)
	}
	fmt.Println(heatMap(must(client.Classify(ctx, picture, "paints", visavis.Explain())).HeatMap))
	green := visavis.ExplainLabel("green")
	fmt.Println(heatMap(must(client.Classify(ctx, picture, "paints", green)).HeatMap))
	fmt.Println(heatMap(must(client.Detect(ctx, picture, "heads", visavis.Explain())).HeatMap))
	bird := visavis.ExplainLabel("bird")
	fmt.Println(heatMap(must(client.Detect(ctx, picture, "heads", bird)).HeatMap))
	blue := visavis.Raw{
		Format: visavis.BGR, Width: 8, Height: 8, Pixels: bytes.Repeat([]byte{255, 0, 0}, 64),
	}
	raw := must(client.Classify(ctx, blue, "colors"))
	fmt.Println("raw", raw.Classifications[0].Label, raw.ServedBy.Model, raw.ServedBy.Version,
		raw.ImageSize.Width, raw.AnnotatedImage == nil)
}

func comparison(ctx context.Context, client *visavis.Client, picture visavis.Picture) {
	stream := client.CompareStream(ctx, picture, visavis.Baseline("colors"), visavis.TopK(2))
	defer stream.Close()
	arrived := 0
	for ; stream.Next(); arrived++ {
		if stream.Answer().ClassificationAgreement != nil {
			log.Fatal("a streamed answer has an agreement")
		}
	}
	fmt.Println("arrived", arrived)
	for _, compared := range must(stream.Summary()).Tasks {
		for _, answer := range compared.Answers {
			fmt.Print("compared ", compared.Task, " ", compared.Baseline, " ", answer.ServedBy.Model)
			if of := answer.ClassificationAgreement; of != nil {
				divergence := "none"
				if of.JensenShannonDivergence != nil {
					divergence = fmt.Sprintf("%.3f", *of.JensenShannonDivergence)
				}
				fmt.Printf(" %v %.3f %s %d %d", of.SameTop1, of.TopKOverlap, divergence,
					of.UnknownHere, of.UnknownInBaseline)
			}
			if of := answer.DetectionAgreement; of != nil {
				fmt.Printf(" %d %d %d %.3f %d %d", of.Matched, of.OnlyHere, of.OnlyInBaseline, of.F1,
					of.UnknownHere, of.UnknownInBaseline)
			}
			fmt.Println()
		}
	}
	one := must(client.Compare(ctx, picture,
		visavis.Tasks(visavis.TaskDetection), visavis.Models("boxes"), visavis.MaxDetections(1)))
	fmt.Println("alone", len(one.Tasks[0].Answers[0].Detections), one.Tasks[0].NothingToCompare != "")
	explained(ctx, client, picture)
	drawn(ctx, client, picture)
}

func explained(ctx context.Context, client *visavis.Client, picture visavis.Picture) {
	compared := must(client.Compare(
		ctx, picture, visavis.Models("boxes", "heads"), visavis.ExplainLabel("cat")))
	answers := compared.Tasks[0].Answers
	fmt.Println("boxes", answers[0].HeatMap != nil)
	fmt.Println("heads", heatMap(answers[1].HeatMap))
	stream := client.CompareStream(ctx, picture, visavis.Models("heads"), visavis.Explain())
	defer stream.Close()
	for stream.Next() {
		fmt.Println("streamed", stream.Answer().HeatMap != nil)
	}
}

func drawn(ctx context.Context, client *visavis.Client, picture visavis.Picture) {
	models := visavis.Models("boxes", "heads")
	sides := must(client.Compare(ctx, picture, models, visavis.Annotate()))
	fmt.Println("side by side", size(sides))
	difference := must(client.Compare(ctx, picture, models, visavis.AnnotateDifference()))
	stream := client.CompareStream(ctx, picture, models, visavis.AnnotateDifference())
	fmt.Println("difference", size(difference), size(must(stream.Summary())))
}

func size(comparison *visavis.Comparison) string {
	of := comparison.AnnotatedImage.Size
	return fmt.Sprint(of.Width, " ", of.Height)
}

// heatMap returns a map as a line: its second value tells rows from columns.
func heatMap(of *visavis.HeatMap) string {
	return fmt.Sprintf("map %s %d %d %d %d %.3f %.3f %.3f %.1f %.1f %.1f %.1f", of.Label, of.ClassID,
		of.Width, of.Height, len(of.Values), of.Values[1], of.Min, of.Max,
		of.Area.XMin, of.Area.YMin, of.Area.XMax, of.Area.YMax)
}

// failed prints the kind of an error and its details.
func failed(what string, err error) {
	var failure *visavis.Error
	if !errors.As(err, &failure) {
		log.Fatalf("%s: %v", what, err)
	}
	for kind, name := range map[error]string{
		visavis.ErrInvalidSettings: "InvalidSettings",
		visavis.ErrInvalidRequest:  "InvalidRequest",
		visavis.ErrModelNotFound:   "ModelNotFound",
		visavis.ErrAccessDenied:    "AccessDenied",
		visavis.ErrOverloaded:      "Overloaded",
		visavis.ErrUnavailable:     "Unavailable",
		context.DeadlineExceeded:   "DeadlineExceeded",
	} {
		if errors.Is(err, kind) {
			fmt.Printf("%s %s field=%s id=%s retry=%d\n", what, name, failure.Field(),
				id(failure.RequestID), failure.RetryDelay.Milliseconds())
		}
	}
}

// id hides the ids that the server makes.
func id(id string) string {
	if id == "" || id == "mine" {
		return id
	}
	return "some"
}

func names(models []*visavis.Model) string {
	var names []string
	for _, model := range models {
		names = append(names, model.Name)
	}
	return strings.Join(names, ",")
}

func open(address string, options ...visavis.Option) *visavis.Client {
	return must(visavis.New(address, options...))
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
