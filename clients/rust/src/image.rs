//! The pictures that a client sends.

use std::fmt;
use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::proto::v1::{image::Source, Image as Message, PixelFormat, RawImage};

/// A picture: the bytes of a JPEG, PNG or WebP file, or decoded pixels. Clones share the bytes.
#[derive(Clone)]
pub struct Image(Message);

impl Image {
    /// Reads a JPEG, PNG or WebP file.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::encoded(std::fs::read(path)?))
    }

    /// Takes the bytes of a JPEG, PNG or WebP file.
    pub fn encoded(file: impl Into<Bytes>) -> Self {
        Self(Message { source: Some(Source::Encoded(file.into())) })
    }

    /// Takes upright pixels, red, green, blue: 3 bytes per pixel, top row first.
    pub fn rgb(width: u16, height: u16, data: impl Into<Bytes>) -> Result<Self> {
        Self::raw(PixelFormat::Rgb, width, height, data.into())
    }

    /// Takes upright pixels as OpenCV has them: blue, green, red. Sent as RGB, they would give
    /// wrong scores.
    pub fn bgr(width: u16, height: u16, data: impl Into<Bytes>) -> Result<Self> {
        Self::raw(PixelFormat::Bgr, width, height, data.into())
    }

    /// Takes upright grey pixels, one byte each; 0 is black.
    pub fn gray(width: u16, height: u16, data: impl Into<Bytes>) -> Result<Self> {
        Self::raw(PixelFormat::Gray, width, height, data.into())
    }

    /// Takes a camera's upright pixels: a Y plane, then interleaved U and V at half resolution.
    pub fn nv12(width: u16, height: u16, data: impl Into<Bytes>) -> Result<Self> {
        Self::raw(PixelFormat::Nv12, width, height, data.into())
    }

    fn raw(format: PixelFormat, width: u16, height: u16, data: Bytes) -> Result<Self> {
        let pixels = usize::from(width) * usize::from(height);
        let expected = match format {
            PixelFormat::Gray => pixels,
            PixelFormat::Nv12 => pixels / 2 * 3,
            _ => pixels * 3,
        };
        if data.len() != expected {
            return Err(Error::invalid_image(format!(
                "image has {} bytes; {width}×{height} pixels in this format have {expected}",
                data.len()
            )));
        }
        let raw =
            RawImage { format: format as i32, width: width.into(), height: height.into(), data };
        Ok(Self(Message { source: Some(Source::Raw(raw)) }))
    }

    pub(crate) fn into_message(self) -> Message {
        self.0
    }
}

impl From<Vec<u8>> for Image {
    fn from(file: Vec<u8>) -> Self {
        Self::encoded(file)
    }
}

impl From<Bytes> for Image {
    fn from(file: Bytes) -> Self {
        Self::encoded(file)
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        let (kind, size) = match &self.0.source {
            Some(Source::Encoded(file)) => ("encoded", file.len()),
            Some(Source::Raw(raw)) => ("raw", raw.data.len()),
            None => ("none", 0),
        };
        write!(to, "Image({kind}, {size} bytes)")
    }
}
