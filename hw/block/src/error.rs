//! What goes wrong when an image is opened, made or checked. Each message is one line that says what the user can do.

use crate::file::printable;
use std::io;
use std::path::PathBuf;

/// Why an image cannot be used, causes included (so that nobody prints them twice). Errors of a disk that is in use are [`io::Error`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host refused.
    #[error("cannot {doing} '{}': {cause}", printable(path))]
    Host { doing: &'static str, path: PathBuf, cause: io::Error },
    /// Neither a file nor a block device.
    #[error("'{}' is {what}, not a disk image", printable(path))]
    NotAnImage { path: PathBuf, what: &'static str },
    /// Another process has the image open in a way that excludes this one.
    #[error(
        "'{}' is in use: {holder} {claim}; end it, or open the image with locking=off if you are certain that it does no harm",
        printable(path)
    )]
    InUse { path: PathBuf, holder: String, claim: String },
    /// A header or table that contradicts itself, the file or the specification.
    #[error("'{}' is not a valid qcow2 image: {what}", printable(path))]
    BadImage { path: PathBuf, what: String },
    /// A valid image, but with something that we lack.
    #[error("'{}' {what}", printable(path))]
    Unsupported { path: PathBuf, what: String },
    /// An image below the one that was asked for.
    #[error("backing file of '{}': {cause}", printable(path))]
    Backing { path: PathBuf, cause: Box<Error> },
    /// Options that exclude each other, or a value out of range.
    #[error("{0}")]
    Option(String),
}

impl Error {
    pub(crate) fn host(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |cause| Error::Host { doing, path, cause }
    }
    pub(crate) fn bad(path: impl Into<PathBuf>, what: impl Into<String>) -> Error {
        Error::BadImage { path: path.into(), what: what.into() }
    }
}

/// An error of `imago` on one line, its kind kept (`StorageFull` stays what it is).
pub(crate) fn one_line(error: io::Error) -> io::Error {
    let text = error.to_string();
    if text.contains('\n') {
        return io::Error::new(error.kind(), text.replace('\n', " "));
    }
    error
}
