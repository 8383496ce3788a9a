//! Runs the scenario of clients/README.md against a visavis server.

mod json;

use std::error::Error as StdError;
use std::process::ExitCode;
use std::time::Duration;

use json::{array, object, rounded, text};
use visavis::{Agreement, BoundingBox, Client, CompareEvent, Error, Image, ModelAnswer, Tls};

type Result<T> = std::result::Result<T, Box<dyn StdError>>;

const PATIENCE: Duration = Duration::from_secs(30);

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
    let image = Image::open(picture).map_err(|error| format!("{picture}: {error}"))?;
    let client = Client::builder(server).timeout(PATIENCE).build()?;
    client.wait_until_ready(PATIENCE).await?;
    say(&[("step", text("health")), ("status", text("SERVING"))]);
    list(&client).await?;
    classify(&client, &image).await?;
    detect(&client, &image).await?;
    compare(&client, &image).await?;
    miss_deadline(&client, &image).await?;
    be_refused(&client, &image).await?;
    if let Some((server, ca_file, token)) = tls {
        list_over_tls(server, ca_file, token).await?;
    }
    Ok(())
}

async fn list(client: &Client) -> Result<()> {
    let models = client.models().send().await?;
    let models = models.iter().map(|card| {
        object(&[
            ("name", text(&card.name)),
            ("task", text(&card.tasks[0].to_string())),
            ("precision", text(&card.precision)),
            ("random_weights", card.random_weights.to_string()),
        ])
    });
    say(&[("step", text("list")), ("models", array(models))]);
    Ok(())
}

async fn classify(client: &Client, image: &Image) -> Result<()> {
    let answer = client.classify("resnet50", image.clone()).top_k(3).send().await?;
    let labels = answer
        .classifications
        .iter()
        .map(|found| object(&[("label", text(&found.label)), ("score", rounded(found.score, 4))]));
    let model = text(&answer.served_by.model);
    say(&[("step", text("classify")), ("model", model), ("labels", array(labels))]);
    Ok(())
}

async fn detect(client: &Client, image: &Image) -> Result<()> {
    let answer = client.detect("yolov5n", image.clone()).score_threshold(0.4).send().await?;
    let detections = answer.detections.iter().map(|found| {
        let BoundingBox { x_min, y_min, x_max, y_max, .. } = found.bounds;
        let edges = [x_min, y_min, x_max, y_max].into_iter();
        object(&[
            ("label", text(&found.label)),
            ("score", rounded(found.score, 4)),
            ("box", array(edges.map(|edge| rounded(edge, 1)))),
        ])
    });
    let model = text(&answer.served_by.model);
    say(&[("step", text("detect")), ("model", model), ("detections", array(detections))]);
    Ok(())
}

async fn compare(client: &Client, image: &Image) -> Result<()> {
    let mut events = client.compare_stream(image.clone()).send().await?;
    while let Some(event) = events.next().await? {
        match event {
            CompareEvent::Answer { answer, .. } => {
                let answers = answer.classifications.len() + answer.detections.len();
                say(&[
                    ("step", text("compare")),
                    ("arrived", text(&answer.served_by.model)),
                    ("answers", answers.to_string()),
                ]);
            }
            CompareEvent::Comparison(whole) => {
                for comparison in &whole.comparisons {
                    for answer in &comparison.answers {
                        say(&[
                            ("step", text("compare")),
                            ("task", text(&comparison.task.to_string())),
                            ("model", text(&answer.served_by.model)),
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
        Some(Agreement::Classification(of)) => object(&[
            ("same_top1", of.same_top1.to_string()),
            ("top_k_overlap", rounded(of.top_k_overlap, 4)),
        ]),
        Some(Agreement::Detection(of)) => object(&[
            ("matched", of.matched.to_string()),
            ("only_here", of.only_here.to_string()),
            ("only_in_baseline", of.only_in_baseline.to_string()),
            ("f1", rounded(of.f1, 4)),
        ]),
        _ => "null".into(),
    }
}

async fn miss_deadline(client: &Client, image: &Image) -> Result<()> {
    let request = client.classify("resnet50", image.clone()).timeout(Duration::from_millis(1));
    let late = failure(request.send().await)?;
    say(&[("step", text("deadline")), ("code", text(late.code().as_str_name()))]);
    Ok(())
}

async fn be_refused(client: &Client, image: &Image) -> Result<()> {
    let request = client.classify("resnet50", image.clone()).top_k(0);
    let refused = failure(request.header("x-request-id", "scenario").send().await)?;
    say(&[
        ("step", text("error")),
        ("code", text(refused.code().as_str_name())),
        ("field", text(refused.field().unwrap_or_default())),
        ("request_id", text(refused.request_id().unwrap_or_default())),
    ]);
    Ok(())
}

async fn list_over_tls(server: &str, ca_file: &str, token: &str) -> Result<()> {
    let authorities = std::fs::read(ca_file).map_err(|error| format!("{ca_file}: {error}"))?;
    let tls = Tls::new().authorities(authorities);
    let known = Client::builder(server).tls(tls.clone()).token(token).build()?;
    let stranger = Client::builder(server).tls(tls).build()?;
    let models = known.models().send().await?;
    let refused = failure(stranger.models().send().await)?;
    say(&[
        ("step", text("tls")),
        ("models", models.len().to_string()),
        ("without_token", text(refused.code().as_str_name())),
    ]);
    Ok(())
}

/// Returns the error of a call that must fail.
fn failure<Answer>(result: visavis::Result<Answer>) -> Result<Error> {
    result.err().ok_or_else(|| "a call that must fail did not".into())
}

/// Prints one line of JSON.
fn say(fields: &[(&str, String)]) {
    println!("{}", object(fields));
}
