//! gRPC's framing of messages, and the status at the end of a call.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use percent_encoding::percent_decode;
use prost::Message;

use crate::error::{Error, Failure, FieldViolation, Result};
use crate::proto::google::rpc::{self, Code};

/// The largest accepted response. Larger than a server's limits, so that the server decides.
const ANSWER_BYTES_MAX: usize = 96 << 20;

/// Returns a message in gRPC's framing: compression flag, length, bytes.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(length as u32);
    message.encode(&mut frame).expect("there is room");
    frame.freeze()
}

/// Removes the first message from the received bytes, if it is complete.
pub(crate) fn unframed(arrived: &mut BytesMut) -> Result<Option<Bytes>> {
    // The first byte is the compression flag; this client does not request compression.
    let length = match arrived.get(1..5) {
        Some(mut length) => length.get_u32() as usize,
        None => return Ok(None),
    };
    if length > ANSWER_BYTES_MAX {
        let text = format!(
            "the response is {length} bytes; this client's limit is {ANSWER_BYTES_MAX}; \
             request fewer models or no annotated picture"
        );
        return Err(Error::InvalidRequest(Failure::new(Code::ResourceExhausted, text)));
    }
    if arrived.len() < 5 + length {
        return Ok(None);
    }
    arrived.advance(5);
    Ok(Some(arrived.split_to(length).freeze()))
}

/// Returns the error in the trailers of a call, if any.
pub(crate) fn check(trailers: &HeaderMap) -> Result<()> {
    let header = |name| trailers.get(name).map(|value| value.as_bytes()).unwrap_or_default();
    let code = std::str::from_utf8(header("grpc-status")).unwrap_or_default().parse();
    let code = code.ok().and_then(Code::from_i32).unwrap_or(Code::Unknown);
    if code == Code::Ok {
        return Ok(());
    }
    let message = percent_decode(header("grpc-message")).decode_utf8_lossy();
    let mut failure = Failure::new(code, message);
    // gRPC's binary headers may come with padding or without.
    let encoded = header("grpc-status-details-bin");
    let details = base64::decode_config(encoded, base64::STANDARD_NO_PAD)
        .or_else(|_| base64::decode(encoded))
        .unwrap_or_default();
    for any in rpc::Status::decode(&*details).unwrap_or_default().details {
        read_detail(&any, &mut failure);
    }
    Err(failure.into())
}

fn read_detail(any: &prost_types::Any, failure: &mut Failure) {
    match any.type_url.rsplit('/').next() {
        Some("google.rpc.BadRequest") => {
            let bad = rpc::BadRequest::decode(&*any.value).unwrap_or_default();
            failure.violations = bad
                .field_violations
                .into_iter()
                .map(|of| FieldViolation { field: of.field, description: of.description })
                .collect();
        }
        Some("google.rpc.RequestInfo") => {
            let info = rpc::RequestInfo::decode(&*any.value).unwrap_or_default();
            failure.request_id = Some(info.request_id).filter(|id| !id.is_empty());
        }
        Some("google.rpc.RetryInfo") => {
            let info = rpc::RetryInfo::decode(&*any.value).unwrap_or_default();
            failure.retry_after = info.retry_delay.map(|delay| {
                let seconds = u64::try_from(delay.seconds).unwrap_or_default();
                Duration::new(seconds, u32::try_from(delay.nanos).unwrap_or_default())
            });
        }
        _ => {}
    }
}
