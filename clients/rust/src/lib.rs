//! A client for visavis, a server that runs and compares vision models.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use visavis::{Client, Image};
//!
//! let client = Client::new("127.0.0.1:8001")?;
//! let image = Image::open("bus.jpg")?;
//! let answer = client.detect("yolov5n", image).score_threshold(0.4).send().await?;
//! for found in &answer.detections {
//!     println!("{:.3} {} {:?}", found.score, found.label, found.bounds);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is a connection that any number of tasks can share, and that is opened by the first
//! call and again after it breaks. Every call has a deadline. Calls that fail as `UNAVAILABLE` or
//! are cut off are retried up to three times within it; all of them are read-only. [`Error`] says
//! what went wrong, and when an overloaded server wants to be asked again.

#![warn(missing_docs)]

/// Its examples are compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod builder;
mod cards;
mod client;
mod error;
mod image;
mod requests;
mod results;
mod transport;

/// The messages, written by `make generate`.
mod proto {
    #![allow(missing_docs, clippy::all)]

    pub mod google {
        pub mod rpc {
            include!("generated/google.rpc.rs");
        }
    }

    pub mod health {
        include!("generated/grpc.health.v1.rs");
    }

    pub mod v1 {
        include!("generated/visavis.v1.rs");
    }
}

pub use builder::{ClientBuilder, Tls};
pub use cards::Model;
pub use client::Client;
pub use error::{Error, Failure, FieldViolation, Result};
pub use image::Image;
pub use proto::google::rpc::Code;
pub use proto::v1::{
    Accuracy, AnnotatedImage, BoundingBox, Classification, ClassificationAgreement,
    DetectionAgreement, DetectionDefaults, DetectionMatch, ImageSize, LabelSet, LeftOutModel,
    ModelFacts, ModelInput, Provenance, Receipt, ReceiptPicture, RowComparison, ServedBy, Timings,
    Verification,
};
pub use requests::{Classify, Compare, CompareStream, CompareStreaming, Detect, GetModel, Models};
pub use results::{
    Agreement, AnswerStatus, ClassifyResult, CompareEvent, Comparison, DetectResult, Detection,
    HeatMap, ModelAnswer, Task, TaskComparison,
};
