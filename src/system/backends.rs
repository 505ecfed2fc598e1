//! The host ends of serial ports, debug consoles and monitors.

use super::devices::io_port;
use super::machine::Notice;
use super::settings::*;
use anyhow::{Context, bail};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use tulk_ui::{CharBackend, ChardevOptions, Mux};

/// What the command line connects, open.
pub struct Backends<'a> {
    settings: &'a Settings,
    notices: Sender<Notice>,
    pub serial: [Option<Arc<dyn CharBackend>>; 4],
    pub debug: Vec<(u16, Arc<dyn CharBackend>)>,
    /// With whether it says hello.
    pub monitors: Vec<(Arc<dyn CharBackend>, bool)>,
    /// Switches by what they stand on, so that a second user of a name shares it.
    switches: Vec<(ChardevOptions, Mux)>,
    /// What was opened, with the name of its first user.
    pub opened: Vec<(String, Arc<dyn CharBackend>)>,
}

impl Backends<'_> {
    /// Opens a backend for one more user, whose name is for messages and `info chardev`.
    ///
    /// # Errors
    /// The host refuses, or there is no such name.
    pub fn open(
        &mut self,
        user: &str,
        spec: &CharSpec,
    ) -> anyhow::Result<Option<Arc<dyn CharBackend>>> {
        match spec {
            CharSpec::None => Ok(None),
            CharSpec::Named(id) => {
                let mut all = self.settings.chardevs.iter();
                let found = all.find(|(name, _)| name == id);
                let options =
                    &found.with_context(|| format!("there is no -chardev with id={id}"))?.1;
                self.open_options(id, &options.clone()).map(Some)
            }
            CharSpec::Own(options) => self.open_options(user, options).map(Some),
        }
    }

    fn open_options(
        &mut self,
        name: &str,
        options: &ChardevOptions,
    ) -> anyhow::Result<Arc<dyn CharBackend>> {
        let curses = self.settings.display == Some(DisplayKind::Curses);
        let (inner, shared) = match options {
            ChardevOptions::Mux(inner) => (&**inner, true),
            own => (own, false),
        };
        if curses && matches!(inner, ChardevOptions::Stdio { .. }) {
            bail!("-display curses and stdio both want the terminal");
        }
        if shared && let Some((_, mux)) = self.switches.iter().find(|(known, _)| known == inner) {
            return Ok(mux.port());
        }
        let backend = inner.open()?;
        self.opened.push((name.to_string(), backend.clone()));
        if !shared {
            return Ok(backend);
        }
        let notices = self.notices.clone();
        let mux = Mux::new(backend, move |command| {
            let _ = notices.send(command.into());
        });
        let port = mux.port();
        self.switches.push((inner.clone(), mux));
        Ok(port)
    }
}

/// The serial ports and the monitor share the terminal, unless the guest's screen is in it.
fn default_serial(settings: &Settings) -> CharSpec {
    CharSpec::Own(match settings.display {
        Some(DisplayKind::Curses) => ChardevOptions::Null,
        _ => ChardevOptions::Mux(Box::new(ChardevOptions::Stdio { signal: false })),
    })
}

/// Opens what serial ports, monitors and debug consoles are connected to.
///
/// # Errors
/// As [`Backends::open`].
pub fn backends(settings: &Settings, notices: Sender<Notice>) -> anyhow::Result<Backends<'_>> {
    let mut serials = settings.serials.clone();
    let mut monitors = settings.monitors.clone();
    if serials.is_empty() && settings.default_devices {
        serials.push(default_serial(settings));
    }
    let is_switch = |spec: &&CharSpec| match spec {
        CharSpec::Own(options) => matches!(options, ChardevOptions::Mux(_)),
        _ => false,
    };
    // A switch without a monitor of its own gets one.
    if monitors.is_empty() {
        monitors.extend(serials.iter().find(is_switch).cloned());
    }
    let mut backends = Backends {
        settings,
        notices,
        serial: Default::default(),
        debug: Vec::new(),
        monitors: Vec::new(),
        switches: Vec::new(),
        opened: Vec::new(),
    };
    for (n, spec) in serials.iter().enumerate() {
        let opened = backends.open(&format!("serial{n}"), spec);
        backends.serial[n] = opened.with_context(|| format!("serial port {}", n + 1))?;
    }
    for (n, spec) in monitors.iter().enumerate() {
        let greet = !serials.contains(spec);
        let backend = backends.open(&format!("monitor{n}"), spec).context("-monitor")?;
        backends.monitors.extend(backend.map(|backend| (backend, greet)));
    }
    if let Some(spec) = &settings.debugcon {
        let port = settings.globals.iter().rev().find(|g| g.0 == "isa-debugcon");
        let port = match port {
            Some((_, _, value)) => io_port(value)?,
            None => 0xe9,
        };
        if let Some(backend) = backends.open("debugcon", spec).context("-debugcon")? {
            backends.debug.push((port, backend));
        }
    }
    Ok(backends)
}
