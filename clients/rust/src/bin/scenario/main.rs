//! Runs the scenario of clients/README.md against a visavis server.

mod json;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use json::{array, object, rounded, text};
use tokio::time::{sleep, timeout};
use visavis::google::rpc::{BadRequest, RequestInfo};
use visavis::grpc::{Call, Channel, Code, Status};
use visavis::health::health_check_response::ServingStatus;
use visavis::health::{HealthCheckRequest, HealthStub};
use visavis::v1::compare_stream_response::Event;
use visavis::v1::image::Source;
use visavis::v1::model_answer::Agreement;
use visavis::v1::*;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const POLL: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scenario: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[&str]) -> Result<()> {
    let (server, picture, tls) = match *arguments {
        [server, picture] => (server, picture, None),
        [server, picture, tls_server, ca_file, token] => {
            (server, picture, Some((tls_server, ca_file, token)))
        }
        _ => return Err("usage: scenario SERVER PICTURE [TLS_SERVER CA_FILE TOKEN]".into()),
    };
    let encoded = std::fs::read(picture).map_err(|error| format!("{picture}: {error}"))?;
    let image = Image { source: Some(Source::Encoded(encoded)) };
    let channel = Channel::plaintext(server);
    timeout(Call::default().timeout, serving(&channel))
        .await
        .map_err(|_| format!("{server} is not ready"))??;
    let vision = VisionServiceStub(&channel);
    list(&vision).await?;
    classify(&vision, &image).await?;
    detect(&vision, &image).await?;
    compare(&vision, &image).await?;
    miss_deadline(&vision, &image).await?;
    be_refused(&vision, &image).await?;
    if let Some((server, ca_file, token)) = tls {
        list_over_tls(server, ca_file, token).await?;
    }
    Ok(())
}

/// Returns once the server reports SERVING.
async fn serving(channel: &Channel) -> Result<()> {
    let health = HealthStub(channel);
    loop {
        match health.check(&HealthCheckRequest::default(), &Call::default()).await {
            Ok(answer) if answer.status() == ServingStatus::Serving => {
                let status = text(answer.status().as_str_name());
                say(&[("step", text("health")), ("status", status)]);
                return Ok(());
            }
            Err(status) if status.code != Code::Unavailable => return Err(status.into()),
            _ => sleep(POLL).await,
        }
    }
}

async fn list(vision: &VisionServiceStub<'_>) -> Result<()> {
    let answer = vision.list_models(&ListModelsRequest {}, &Call::default()).await?;
    let models = answer.models.iter().map(|card| {
        object(&[
            ("name", text(&card.name)),
            ("task", task_name(card.tasks().next())),
            ("precision", text(&card.precision)),
            ("random_weights", card.random_weights.to_string()),
        ])
    });
    say(&[("step", text("list")), ("models", array(models))]);
    Ok(())
}

async fn classify(vision: &VisionServiceStub<'_>, image: &Image) -> Result<()> {
    let request = ClassifyRequest {
        image: Some(image.clone()),
        model: "resnet50".into(),
        top_k: Some(3),
        ..Default::default()
    };
    let answer = vision.classify(&request, &Call::default()).await?;
    let labels = answer.classifications.iter();
    let labels = labels
        .map(|found| object(&[("label", text(&found.label)), ("score", rounded(found.score, 4))]));
    let model = model_name(&answer.served_by);
    say(&[("step", text("classify")), ("model", model), ("labels", array(labels))]);
    Ok(())
}

async fn detect(vision: &VisionServiceStub<'_>, image: &Image) -> Result<()> {
    let request = DetectRequest {
        image: Some(image.clone()),
        model: "yolov5n".into(),
        score_threshold: Some(0.4),
        ..Default::default()
    };
    let answer = vision.detect(&request, &Call::default()).await?;
    let detections = answer.detections.iter().map(|found| {
        let edges = found.r#box.iter().flat_map(|at| [at.x_min, at.y_min, at.x_max, at.y_max]);
        object(&[
            ("label", text(&found.label)),
            ("score", rounded(found.score, 4)),
            ("box", array(edges.map(|edge| rounded(edge, 1)))),
        ])
    });
    let model = model_name(&answer.served_by);
    say(&[("step", text("detect")), ("model", model), ("detections", array(detections))]);
    Ok(())
}

async fn compare(vision: &VisionServiceStub<'_>, image: &Image) -> Result<()> {
    let request = CompareStreamRequest { image: Some(image.clone()), ..Default::default() };
    let mut events = vision.compare_stream(&request, &Call::default()).await?;
    while let Some(message) = events.next().await? {
        match message.event {
            Some(Event::Answer(StreamedAnswer { answer: Some(answer), .. })) => {
                let answers = answer.classifications.len() + answer.detections.len();
                say(&[
                    ("step", text("compare")),
                    ("arrived", model_name(&answer.served_by)),
                    ("answers", answers.to_string()),
                ]);
            }
            Some(Event::Summary(summary)) => {
                for comparison in &summary.comparisons {
                    for answer in &comparison.answers {
                        say(&[
                            ("step", text("compare")),
                            ("task", task_name(Some(comparison.task()))),
                            ("model", model_name(&answer.served_by)),
                            ("agreement", agreement(answer)),
                        ]);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The agreement of an answer with the baseline's; null if it has none.
fn agreement(answer: &ModelAnswer) -> String {
    match &answer.agreement {
        Some(Agreement::ClassificationAgreement(of)) => object(&[
            ("same_top1", of.same_top1.to_string()),
            ("top_k_overlap", rounded(of.top_k_overlap, 4)),
        ]),
        Some(Agreement::DetectionAgreement(of)) => object(&[
            ("matched", of.matched.to_string()),
            ("only_here", of.only_here.to_string()),
            ("only_in_baseline", of.only_in_baseline.to_string()),
            ("f1", rounded(of.f1, 4)),
        ]),
        None => "null".into(),
    }
}

async fn miss_deadline(vision: &VisionServiceStub<'_>, image: &Image) -> Result<()> {
    let request = ClassifyRequest {
        image: Some(image.clone()),
        model: "resnet50".into(),
        ..Default::default()
    };
    let call = Call { timeout: Duration::from_millis(1), ..Default::default() };
    let late = failure(vision.classify(&request, &call).await)?;
    say(&[("step", text("deadline")), ("code", text(late.code.as_str_name()))]);
    Ok(())
}

async fn be_refused(vision: &VisionServiceStub<'_>, image: &Image) -> Result<()> {
    let request = ClassifyRequest {
        image: Some(image.clone()),
        model: "resnet50".into(),
        top_k: Some(0),
        ..Default::default()
    };
    let metadata = vec![("x-request-id", "scenario".into())];
    let call = Call { metadata, ..Default::default() };
    let refused = failure(vision.classify(&request, &call).await)?;
    let bad_request: BadRequest = refused.detail("google.rpc.BadRequest").unwrap_or_default();
    let info: RequestInfo = refused.detail("google.rpc.RequestInfo").unwrap_or_default();
    let field = bad_request.field_violations.first().map_or("", |violation| &violation.field);
    say(&[
        ("step", text("error")),
        ("code", text(refused.code.as_str_name())),
        ("field", text(field)),
        ("request_id", text(&info.request_id)),
    ]);
    Ok(())
}

async fn list_over_tls(server: &str, ca_file: &str, token: &str) -> Result<()> {
    let authorities = std::fs::read(ca_file).map_err(|error| format!("{ca_file}: {error}"))?;
    let channel = Channel::tls(server, &authorities)?;
    let vision = VisionServiceStub(&channel);
    let metadata = vec![("authorization", format!("Bearer {token}"))];
    let with_token = Call { metadata, ..Default::default() };
    let answer = vision.list_models(&ListModelsRequest {}, &with_token).await?;
    let refused = failure(vision.list_models(&ListModelsRequest {}, &Call::default()).await)?;
    say(&[
        ("step", text("tls")),
        ("models", answer.models.len().to_string()),
        ("without_token", text(refused.code.as_str_name())),
    ]);
    Ok(())
}

fn model_name(served_by: &Option<ServedBy>) -> String {
    text(served_by.as_ref().map_or("", |served_by| &served_by.model))
}

fn task_name(task: Option<Task>) -> String {
    text(match task {
        Some(Task::Classification) => "classification",
        Some(Task::ObjectDetection) => "object detection",
        Some(Task::Unspecified) | None => "",
    })
}

/// Returns the status of a call that must fail.
fn failure<Answer>(result: std::result::Result<Answer, Status>) -> Result<Status> {
    result.err().ok_or_else(|| "a call that must fail did not".into())
}

/// Prints one line of JSON.
fn say(fields: &[(&str, String)]) {
    println!("{}", object(fields));
}
