//! `-netdev`, `-nic`, `-net`.

use super::super::keyval::{KeyValues, choose};
use super::super::settings::*;
use anyhow::{Context, bail};

/// Networks that there are; the rest of their options is read when they are made.
pub const NETWORKS: [&str; 4] = ["user", "socket", "stream", "dgram"];

pub(super) fn netdev(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-netdev", value, Some("type"))?;
    let kind = kv.required("type")?;
    choose(&kind, &NETWORKS.map(|n| (n, ())))?;
    let id = kv.required("id")?;
    s.default_net = false;
    add_network(s, Netdev { id, kind, options: kv.rest() })
}

fn add_network(s: &mut Settings, network: Netdev) -> anyhow::Result<()> {
    if s.netdevs.iter().any(|other| other.id == network.id) {
        bail!("there is a network {} already", network.id);
    }
    s.netdevs.push(network);
    Ok(())
}

/// Short names of network cards.
const CARDS: [(&str, &str); 5] = [
    ("e1000", "e1000"),
    ("e1000-82540em", "e1000"),
    ("virtio", "virtio-net-pci"),
    ("virtio-net", "virtio-net-pci"),
    ("virtio-net-pci", "virtio-net-pci"),
];

/// A card with the properties that `-nic` and `-net nic` know.
fn card(kv: &KeyValues, network: &str) -> anyhow::Result<DeviceOption> {
    let driver = kv.choice("model", &CARDS)?.unwrap_or("e1000");
    let mut properties = vec![("netdev".to_string(), network.to_string())];
    for (key, property) in [("mac", "mac"), ("macaddr", "mac"), ("addr", "addr")] {
        properties.extend(kv.text(key).map(|value| (property.to_string(), value)));
    }
    Ok(DeviceOption { driver: driver.into(), properties })
}

pub(super) fn nic(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    s.default_net = false;
    if value == "none" {
        return Ok(());
    }
    let kv = KeyValues::parse("-nic", value, Some("type"))?;
    let kind = kv.required("type")?;
    choose(&kind, &NETWORKS.map(|n| (n, ())))?;
    let id = kv.text("id").unwrap_or_else(|| format!("#net{}", s.netdevs.len()));
    s.devices.push(card(&kv, &id)?);
    add_network(s, Netdev { id, kind, options: kv.rest() })
}

/// The card and network that there are when no option says anything about networks.
pub(super) fn default_network(s: &mut Settings) {
    let id = "#net0".to_string();
    let properties = vec![("netdev".to_string(), id.clone())];
    s.devices.insert(0, DeviceOption { driver: "e1000".into(), properties });
    s.netdevs.push(Netdev { id, kind: "user".into(), options: Vec::new() });
}

/// What `-net nic` and `-net user` meet on: one card and one network.
pub const HUB: &str = "#net";

pub(super) fn net(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    s.default_net = false;
    let kv = KeyValues::parse("-net", value, Some("type"))?;
    match &*kv.required("type")? {
        "none" => {}
        "nic" => s.devices.push(card(&kv, HUB)?),
        kind => {
            choose(kind, &NETWORKS.map(|n| (n, ())))?;
            let options = kv.rest();
            add_network(s, Netdev { id: HUB.into(), kind: kind.into(), options })
                .context("one network of -net is all that is supported (use -nic)")?;
        }
    }
    kv.finish()
}
