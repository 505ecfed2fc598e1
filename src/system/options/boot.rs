//! `-boot`, `-fw_cfg`.

use super::super::keyval::{KeyValues, parse_number};
use super::super::settings::*;
use anyhow::{Context, bail};

pub(super) fn boot(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-boot", value, Some("order"))?;
    let drives = |text: Option<String>| -> anyhow::Result<Option<String>> {
        if let Some(bad) = text.iter().flat_map(|t| t.chars()).find(|c| !"abcdn".contains(*c)) {
            bail!("{bad}: there are the boot devices a, b, c, d and n");
        }
        Ok(text)
    };
    s.boot_order = drives(kv.text("order"))?.or(s.boot_order.take());
    s.boot_once = drives(kv.text("once"))?;
    s.boot_menu = kv.flag("menu")?.or(s.boot_menu);
    if let Some(ms) = kv.number("splash-time")? {
        s.boot_menu_wait = Some(u16::try_from(ms).context("splash-time")?);
    }
    if let Some(ms) = kv.text("reboot-timeout").filter(|t| t != "-1") {
        s.reboot_timeout = Some(parse_number(&ms)?.try_into().context("reboot-timeout")?);
    }
    s.boot_strict = kv.flag("strict")?.unwrap_or(s.boot_strict);
    kv.finish()
}

pub(super) fn fw_cfg(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-fw_cfg", value, Some("name"))?;
    let name = kv.required("name")?;
    if name.len() > 55 {
        bail!("a name of more than 55 characters");
    }
    if !name.starts_with("opt/") && !name.starts_with("etc/") && !name.starts_with("genroms/") {
        bail!("names of users' files begin with opt/");
    }
    let content = match (kv.text("file"), kv.text("string")) {
        (Some(file), None) => FwCfgContent::File(file.into()),
        (None, Some(text)) => FwCfgContent::Text(text),
        _ => bail!("either file= or string="),
    };
    kv.finish()?;
    s.fw_cfg.push((name, content));
    Ok(())
}
