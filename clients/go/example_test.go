package visavis_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"visavis.internal/visavis"
)

func Example() {
	client, err := visavis.New(visavis.DefaultAddress)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	picture := visavis.File("bus.jpg")
	result, err := client.Detect(context.Background(), picture, "yolov5n", visavis.ScoreThreshold(0.4))
	if err != nil {
		log.Fatal(err)
	}
	for _, found := range result.Detections {
		fmt.Printf("%.2f %s %v\n", found.Score, found.Label, found.Box)
	}
}

func ExampleWithToken() {
	client, err := visavis.New("vision.example.org:443",
		visavis.WithTLSFiles("ca.pem", "", ""), visavis.WithToken("secret"))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
}

func ExampleClient_CompareStream() {
	client, err := visavis.New(visavis.DefaultAddress)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	stream := client.CompareStream(context.Background(), visavis.File("bus.jpg"))
	defer stream.Close()
	for stream.Next() {
		fmt.Println(stream.Answer().ServedBy.Model, "has answered")
	}
	comparison, err := stream.Summary()
	if err != nil {
		log.Fatal(err)
	}
	for _, task := range comparison.Tasks {
		for _, answer := range task.Answers {
			fmt.Println(task.Task, answer.ServedBy.Model, answer.DetectionAgreement)
		}
	}
}

func ExampleError() {
	client, err := visavis.New(visavis.DefaultAddress)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err = client.Classify(ctx, visavis.File("bus.jpg"), "resnet50")
	var failed *visavis.Error
	switch {
	case errors.Is(err, visavis.ErrOverloaded) && errors.As(err, &failed):
		fmt.Println("try again in", failed.RetryDelay)
	case errors.Is(err, context.DeadlineExceeded):
		fmt.Println("too slow")
	case err != nil:
		log.Fatal(err)
	}
}
