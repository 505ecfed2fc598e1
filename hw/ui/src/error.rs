//! What can go wrong with consoles.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{spec}: {message}")]
    Option { spec: String, message: String },
    #[error("{spec}: the option {option} is not supported")]
    UnknownOption { spec: String, option: String },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("stdio is in use already: it can be shared by mon:stdio only")]
    StdioTaken,
    #[error("standard input is no terminal, -display curses needs one")]
    NoTerminal,
    #[error("the display is off")]
    Blank,
    #[error("writing the picture: {0}")]
    Picture(#[from] png::EncodingError),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::Io { what: what.into(), source: source.into() }
    }
    pub(crate) fn option(spec: &str, message: impl Into<String>) -> Error {
        Error::Option { spec: spec.into(), message: message.into() }
    }
}
