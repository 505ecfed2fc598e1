//! Networks of `-netdev`, `-nic` and `-net`, and which card is on which.

use super::message::say;
use super::options::HUB;
use super::settings::Settings;
use anyhow::{Context, bail};
use std::sync::Arc;
use tulk_net::{NetdevOptions, Network};

/// What the settings name, open.
pub struct Networks {
    /// Those without a card, by name.
    free: Vec<(String, Arc<dyn Network>)>,
    taken: Vec<String>,
    /// Cards so far.
    cards: u8,
}

/// A network that nobody is on.
struct Unplugged;

impl Network for Unplugged {
    fn transmit(&self, _frame: &[u8]) {}
    fn connect(&self, _card: Arc<dyn tulk_net::FrameSink>) {}
    fn ready(&self) {}
    fn describe(&self) -> String {
        "unplugged".into()
    }
}

impl Networks {
    /// # Errors
    /// A network that there is not, a sub-option that it does not have, or what the host refuses.
    pub fn open(settings: &Settings) -> anyhow::Result<Networks> {
        let mut free = Vec::new();
        for network in &settings.netdevs {
            let options = NetdevOptions::from_pairs(&network.kind, network.options.clone())?;
            let opened = tulk_net::open_network(&options);
            free.push((
                network.id.clone(),
                opened.with_context(|| format!("the network {}", network.id))?,
            ));
        }
        Ok(Networks { free, taken: Vec::new(), cards: 0 })
    }

    /// The network of this name for one more card.
    ///
    /// # Errors
    /// It is not there, or has a card.
    pub fn connect(&mut self, name: Option<&str>) -> anyhow::Result<Arc<dyn Network>> {
        let Some(name) = name else { return Ok(Arc::new(Unplugged)) };
        if let Some(at) = self.free.iter().position(|(id, _)| id == name) {
            let (id, network) = self.free.remove(at);
            self.taken.push(id);
            return Ok(network);
        }
        match (name == HUB, self.taken.iter().any(|id| id == name)) {
            (true, false) => Ok(Arc::new(Unplugged)),
            (true, true) => bail!("one card of -net is all that is supported (use -nic)"),
            (false, true) => bail!("netdev={name}: the network has a card already"),
            (false, false) => bail!("netdev={name}: there is no such network"),
        }
    }

    /// A card's address: the user's, or the next one of those for emulators.
    ///
    /// # Errors
    /// Not the address of one card.
    pub fn mac(&mut self, text: Option<&str>) -> anyhow::Result<[u8; 6]> {
        let number = self.cards;
        self.cards = self.cards.wrapping_add(1);
        let Some(text) = text else {
            return Ok([0x52, 0x54, 0, 0x12, 0x34, 0x56u8.wrapping_add(number)]);
        };
        let bytes: Result<Vec<u8>, _> =
            text.split([':', '-']).map(|byte| u8::from_str_radix(byte, 16)).collect();
        let bytes: Option<[u8; 6]> = bytes.ok().and_then(|bytes| bytes.try_into().ok());
        let bytes = bytes.with_context(|| format!("mac={text}: six bytes in hexadecimal"))?;
        if bytes[0] & 1 != 0 {
            bail!("mac={text}: the address of a group (the first byte is odd)");
        }
        Ok(bytes)
    }

    /// Behind the last card: says which networks have none.
    pub fn finish(&self) {
        for (name, _) in &self.free {
            say(&format!("warning: no card is on the network {name}"));
        }
    }
}
