//! Host ends of character devices: from what the command line says to what `hw/ui` opens.

use super::settings::CharSpec;
use std::sync::Arc;
use tulk_ui::chardev::{SocketAddress, SocketOptions};
use tulk_ui::{CharBackend, ChardevOptions};

/// Opens what a specification says; `None` for `none`.
///
/// # Errors
/// The host refuses.
pub fn open(spec: &CharSpec) -> anyhow::Result<Option<Arc<dyn CharBackend>>> {
    let socket = |address, server: bool, wait: bool, nodelay, telnet| {
        let reconnect = None;
        let options = SocketOptions { address, server, wait, nodelay, telnet, reconnect };
        ChardevOptions::Socket(options)
    };
    let options = match spec {
        CharSpec::None => return Ok(None),
        CharSpec::Null => ChardevOptions::Null,
        CharSpec::Stdio { signal } => ChardevOptions::Stdio { signal: *signal },
        CharSpec::File { path, append } => {
            ChardevOptions::File { path: path.clone(), append: *append }
        }
        CharSpec::Pty => ChardevOptions::Pty,
        CharSpec::Unix { path, server, wait } => {
            socket(SocketAddress::Unix(path.clone()), *server, *wait, false, false)
        }
        CharSpec::Tcp { host, port, server, wait, nodelay, telnet } => {
            let address = SocketAddress::Tcp { host: host.clone(), port: *port };
            socket(address, *server, *wait, *nodelay, *telnet)
        }
        CharSpec::Named(_) | CharSpec::Mux(_) => {
            unreachable!("names and switches are resolved before")
        }
    };
    Ok(Some(options.open()?))
}
