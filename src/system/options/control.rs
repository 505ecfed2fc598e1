//! `-action`, `-msg`.

use super::super::keyval::KeyValues;
use super::super::settings::*;

pub(super) fn action(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-action", value, None)?;
    let reboot = [("reset", OnReboot::Reset), ("shutdown", OnReboot::Exit)];
    let shutdown = [("poweroff", OnShutdown::Exit), ("pause", OnShutdown::Pause)];
    s.on_reboot = kv.choice("reboot", &reboot)?.unwrap_or(s.on_reboot);
    s.on_shutdown = kv.choice("shutdown", &shutdown)?.unwrap_or(s.on_shutdown);
    kv.finish()
}

pub(super) fn msg(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-msg", value, None)?;
    s.messages.time = kv.flag("timestamp")?.unwrap_or(s.messages.time);
    s.messages.guest = kv.flag("guest-name")?.unwrap_or(s.messages.guest);
    kv.finish()
}
