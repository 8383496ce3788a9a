//! What a program does with the crate; prints what it saw, a line for each name.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use visavis::{Agreement, Client, Code, CompareEvent, Error, Image, Task, Tls};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [plain, socket, tls, files @ .., token] = <[String; 7]>::try_from(arguments).unwrap();
    let client = Client::builder(&*plain)
        .header("X-Team", "vision")
        .build()?;
    client.wait_until_ready(Duration::from_secs(20)).await?;
    results(&client).await?;
    refusals(&client).await?;
    many(&client).await?;
    secured(&socket, &tls, files, &token).await
}

async fn results(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    let image = Image::encoded(&b"jpeg"[..]);
    let models = client.models().send().await?;
    say(
        "models",
        models.iter().map(|card| &card.name).collect::<Vec<_>>(),
    );
    let card = client.model("yolov5n").send().await?;
    let receipt = card.receipt.unwrap();
    say(
        "card",
        (
            card.facts.parameter_count,
            card.tasks,
            receipt.rows.unwrap().count,
            receipt.heat_map_tolerance,
            receipt.max_heat_map_difference,
        ),
    );
    let labels = client
        .classify("resnet50", image.clone())
        .send()
        .await?
        .classifications;
    say(
        "labels",
        labels.iter().map(|found| &found.label).collect::<Vec<_>>(),
    );
    let detect = client
        .detect("yolov5n", image.clone())
        .score_threshold(0.0)
        .labels(["bus"]);
    let detected = detect.annotate().explain_label("bus").send().await?;
    let bus = &detected.detections[2];
    let edges = [
        bus.bounds.x_min,
        bus.bounds.y_min,
        bus.bounds.x_max,
        bus.bounds.y_max,
    ];
    say(
        "bus",
        (&bus.label, bus.class_id, edges.map(|edge| edge.round())),
    );
    say(
        "served_by",
        (
            &detected.served_by.model,
            &detected.served_by.execution_provider,
        ),
    );
    say("inference_ms", detected.timings.inference_ms);
    say(
        "size",
        (detected.image_size.width, detected.image_size.height),
    );
    say("drawn", detected.annotated_image.unwrap().encoded.len());
    let map = detected.heat_map.unwrap();
    say(
        "map",
        (&map.label, map.class_id, map.width, map.height, map.values),
    );
    let edges = [
        map.area.x_min,
        map.area.y_min,
        map.area.x_max,
        map.area.y_max,
    ];
    say("scale and area", (map.min, map.max, edges));
    let best = client.classify("resnet50", image.clone()).explain();
    say("best", best.send().await?.heat_map.map(|map| map.label));
    let raw = Image::bgr(2, 1, vec![0; 6])?;
    let compare = client
        .compare(raw)
        .tasks([Task::Detection])
        .models(["a", "b"])
        .baseline("b")
        .annotate_difference();
    let compared = compare.send().await?;
    say("difference", compared.annotated_image.unwrap().encoded.len());
    say("left_out", &compared.left_out[0].model);
    for task in &compared.comparisons {
        for answer in &task.answers {
            assert!(answer.heat_map.is_none());
            let agreement = match &answer.agreement {
                Some(Agreement::Classification(of)) => of.jensen_shannon_divergence,
                Some(Agreement::Detection(of)) => of.mean_iou,
                _ => None,
            };
            let name = format!("agreement {}", answer.served_by.model);
            say(&name, (task.task, answer.status.code, agreement));
        }
    }
    let mut streamed = Vec::new();
    let mut events = client
        .compare_stream(image)
        .explain_label("")
        .annotate_difference()
        .send()
        .await?;
    while let Some(event) = events.next().await? {
        match event {
            CompareEvent::Answer { answer, .. } => {
                let ok = answer.status.code == Code::Ok;
                assert_eq!(answer.heat_map.is_some(), ok);
                streamed.push(answer.served_by.model);
            }
            CompareEvent::Comparison(whole) => {
                say("comparisons", whole.comparisons.len());
                assert!(whole.annotated_image.is_some());
            }
            _ => unreachable!(),
        }
    }
    say("streamed", streamed);
    say("after the end", events.next().await?.is_none());
    Ok(())
}

async fn refusals(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    let image = Image::encoded(&b"jpeg"[..]);
    let classify = |model: &str| client.classify(model, image.clone());
    let invalid = classify("resnet50")
        .top_k(0)
        .header("x-request-id", "mine")
        .send()
        .await;
    let invalid = invalid.unwrap_err();
    assert!(matches!(invalid, Error::InvalidRequest(_)));
    say(
        "invalid",
        (
            invalid.code(),
            invalid.field(),
            invalid.request_id(),
            invalid.to_string(),
        ),
    );
    let overloaded = classify("busy").send().await.unwrap_err();
    assert!(matches!(overloaded, Error::Overloaded(_)));
    say("overloaded", (overloaded.code(), overloaded.retry_after()));
    let begun = Instant::now();
    let late = classify("slow")
        .timeout(Duration::from_millis(100))
        .send()
        .await
        .unwrap_err();
    assert!(matches!(late, Error::DeadlineExceeded(_)) && begun.elapsed().as_secs() < 10);
    say("late", late.code());
    say(
        "repeated",
        classify("starting").send().await?.classifications.len(),
    );
    let mut events = client
        .compare_stream(image.clone())
        .models(["starting"])
        .send()
        .await?;
    say("stream repeated", events.next().await?.is_some());
    say("pixels", Image::rgb(2, 2, vec![0; 6]).unwrap_err().field());
    say("address", Client::new("localhost").unwrap_err().to_string());
    let open = Client::builder("vision.example.org:8001")
        .token("secret")
        .build();
    say("in the clear", open.unwrap_err().to_string());
    let header = classify("resnet50")
        .header("authorization", "Bearer x")
        .send()
        .await;
    say("header", header.unwrap_err().to_string());
    let nobody = Client::builder("127.0.0.1:1")
        .timeout(Duration::from_millis(300))
        .build()?;
    let nobody = nobody.models().send().await.unwrap_err();
    say(
        "nobody",
        (
            nobody.code(),
            nobody.to_string().contains("no answer from 127.0.0.1:1"),
        ),
    );
    Ok(())
}

/// Many calls at a time share one connection; a dropped one is cancelled.
async fn many(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    let image = Image::encoded(vec![7; 300_000]);
    let calls: Vec<_> = (0..20)
        .map(|_| tokio::spawn(client.detect("yolov5n", image.clone()).send()))
        .collect();
    let mut found = 0;
    for call in calls {
        found += call.await??.detections.len();
    }
    say("many", found);
    let dropped = client.classify("slow", image).send();
    let ended = tokio::time::timeout(Duration::from_millis(100), dropped).await;
    say("dropped", ended.is_err());
    say("after dropped", client.models().send().await?.len());
    Ok(())
}

async fn secured(
    socket: &str,
    address: &str,
    files: [String; 3],
    token: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let local = Client::new(format!("unix:{socket}"))?;
    say("over a socket", local.models().send().await?.len());
    let [ca, certificate, key] = files.map(|path| std::fs::read(path).unwrap());
    let anonymous = Tls::new().authorities(ca);
    let tls = anonymous.clone().identity(certificate, key);
    let known = Client::builder(address)
        .tls(tls.clone())
        .token(token)
        .build()?;
    say("over TLS", known.models().send().await?.len());
    let stranger = Client::builder(address).tls(tls).build()?;
    let refused = stranger.models().send().await.unwrap_err();
    assert!(matches!(refused, Error::AccessDenied(_)));
    say("without a token", refused.code());
    let unknown = Client::builder(address).tls(anonymous).token(token);
    let unknown = unknown.timeout(Duration::from_secs(1)).build()?;
    say(
        "without a certificate",
        unknown.models().send().await.unwrap_err().code(),
    );
    let distrustful = Client::builder(address).tls(Tls::new()).token(token);
    let distrustful = distrustful.timeout(Duration::from_secs(1)).build()?;
    say(
        "untrusted",
        distrustful.models().send().await.unwrap_err().code(),
    );
    Ok(())
}

fn say(name: &str, value: impl Debug) {
    println!("{name}: {value:?}");
}
