//! The errors of calls.

use std::fmt;
use std::time::Duration;

use crate::proto::google::rpc::Code;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// A call that failed, or options that no call can be made with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The address, the certificates, the token or a header is unusable. No call was made.
    InvalidSettings(String),
    /// The request is invalid; [`Error::field`] names the field.
    InvalidRequest(Failure),
    /// The server has no such model, or no such version of it.
    ModelNotFound(Failure),
    /// The token is missing or wrong, or does not allow this call.
    AccessDenied(Failure),
    /// The server lacks this method: it is older than the client, or not a visavis server.
    Unsupported(Failure),
    /// The server is overloaded; [`Error::retry_after`] says how long to wait before a retry.
    Overloaded(Failure),
    /// The deadline passed, or the server predicted that it would.
    DeadlineExceeded(Failure),
    /// No server answers at the address, or it is starting or stopping.
    Unavailable(Failure),
    /// A proxy or a stopping server cut the call off.
    Cancelled(Failure),
    /// The server failed; its log has details under [`Error::request_id`].
    ServerFailed(Failure),
}

/// The status of a call that failed, with the server's details.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The gRPC status.
    pub code: Code,
    /// A message for people.
    pub message: String,
    /// All invalid fields of the request.
    pub violations: Vec<FieldViolation>,
    /// The call's id in the server's log.
    pub request_id: Option<String>,
    /// Time to wait before a retry, as the server requests.
    pub retry_after: Option<Duration>,
}

/// One invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldViolation {
    /// Path of the field in the contract's message, such as `top_k`.
    pub field: String,
    /// The reason.
    pub description: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message, violations: Vec::new(), request_id: None, retry_after: None }
    }
}

impl Error {
    /// Returns the status of the call; None if no call was made.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::InvalidSettings(_) => None,
            Self::InvalidRequest(failure)
            | Self::ModelNotFound(failure)
            | Self::AccessDenied(failure)
            | Self::Unsupported(failure)
            | Self::Overloaded(failure)
            | Self::DeadlineExceeded(failure)
            | Self::Unavailable(failure)
            | Self::Cancelled(failure)
            | Self::ServerFailed(failure) => Some(failure),
        }
    }

    /// Returns the gRPC status; `InvalidArgument` if no call was made.
    pub fn code(&self) -> Code {
        self.failure().map_or(Code::InvalidArgument, |failure| failure.code)
    }

    /// Returns the path of the first invalid field of the request, such as `top_k`.
    pub fn field(&self) -> Option<&str> {
        let violation = self.failure()?.violations.first()?;
        Some(&violation.field)
    }

    /// Returns the call's id in the server's log.
    pub fn request_id(&self) -> Option<&str> {
        self.failure()?.request_id.as_deref()
    }

    /// Returns the time to wait before a retry, as the server requests.
    pub fn retry_after(&self) -> Option<Duration> {
        self.failure()?.retry_after
    }

    pub(crate) fn of(code: Code, message: impl Into<String>) -> Self {
        Failure::new(code, message).into()
    }

    pub(crate) fn invalid_image(message: impl Into<String>) -> Self {
        let description = message.into();
        let mut failure = Failure::new(Code::InvalidArgument, description.clone());
        failure.violations.push(FieldViolation { field: "image".into(), description });
        failure.into()
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure.code {
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => {
                Self::InvalidRequest(failure)
            }
            Code::NotFound => Self::ModelNotFound(failure),
            Code::Unauthenticated | Code::PermissionDenied => Self::AccessDenied(failure),
            Code::Unimplemented => Self::Unsupported(failure),
            Code::ResourceExhausted => Self::Overloaded(failure),
            Code::DeadlineExceeded => Self::DeadlineExceeded(failure),
            Code::Unavailable => Self::Unavailable(failure),
            Code::Cancelled => Self::Cancelled(failure),
            _ => Self::ServerFailed(failure),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        match self.failure() {
            Some(failure) => write!(to, "{}: {}", failure.code.as_str_name(), failure.message),
            None => match self {
                Self::InvalidSettings(message) => to.write_str(message),
                _ => unreachable!("every other error has a failure"),
            },
        }
    }
}

impl std::error::Error for Error {}
