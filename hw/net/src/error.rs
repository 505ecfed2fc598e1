//! What can go wrong with networks.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("-netdev {kind}: {message}")]
    Option { kind: String, message: String },
    #[error("-netdev {kind}: the option {option} is not supported")]
    UnknownOption { kind: String, option: String },
    #[error("there is no network {0} (there are user, socket, stream, dgram)")]
    UnknownKind(String),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::Io { what: what.into(), source: source.into() }
    }
}
