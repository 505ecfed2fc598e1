//! `-display`, `-chardev`, and backends as `-serial`, `-monitor`, `-mon` and `-debugcon` spell them.

use super::super::keyval::{KeyValues, choose};
use super::super::settings::*;
use anyhow::{Context, bail};
use tulk_ui::ChardevOptions;

pub(super) fn display(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kinds = [("none", DisplayKind::None), ("curses", DisplayKind::Curses)];
    s.display = Some(choose(value, &kinds)?);
    Ok(())
}

pub(super) fn chardev(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-chardev", value, Some("backend"))?;
    let (backend, id) = (kv.required("backend")?, kv.required("id")?);
    if s.chardevs.iter().any(|(other, _)| *other == id) {
        bail!("there is a backend {id} already");
    }
    s.chardevs.push((id, ChardevOptions::from_pairs(&backend, kv.rest())?));
    Ok(())
}

/// A backend as `-serial` and others spell it.
pub(super) fn char_spec(text: &str) -> anyhow::Result<CharSpec> {
    Ok(match text.strip_prefix("chardev:") {
        Some(id) => CharSpec::Named(id.into()),
        None if text == "none" => CharSpec::None,
        None => CharSpec::Own(ChardevOptions::parse(text)?),
    })
}

pub(super) fn serial(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    if s.serials.len() == 4 {
        bail!("there are no more than 4 serial ports");
    }
    s.serials.push(char_spec(value)?);
    Ok(())
}

pub(super) fn mon(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-mon", value, Some("chardev"))?;
    s.monitors.push(CharSpec::Named(kv.required("chardev").context("of a -chardev")?));
    kv.only(&[("mode", &["readline"]), ("pretty", &["off"])])?;
    kv.finish()
}
