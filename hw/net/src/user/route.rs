//! Where on the host an address of the guest's world is: [`Route`].

use super::UserOptions;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(super) const DNS_PORT: u16 = 53;
/// How long the list of resolvers is believed.
const FRESH: Duration = Duration::from_secs(2);

/// The host's side of addresses.
pub(super) struct Route {
    resolv_conf: PathBuf,
    resolvers: Vec<IpAddr>,
    read: Option<Instant>,
}

/// Addresses in no network, that Linux takes for the host itself or for many hosts: RFC 6890, 2.2.2.
fn is_special(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    matches!(first, 0 | 127) || first >= 224
}

impl Route {
    pub fn new(resolv_conf: PathBuf) -> Route {
        Route { resolv_conf, resolvers: Vec::new(), read: None }
    }

    /// The host's resolvers, in their order: resolv.conf(5).
    pub fn refresh(&mut self) {
        if self.read.is_some_and(|read| read.elapsed() < FRESH) {
            return;
        }
        self.read = Some(Instant::now());
        let text = std::fs::read_to_string(&self.resolv_conf).unwrap_or_default();
        self.resolvers = resolvers(&text);
    }

    pub fn resolver(&self, index: usize) -> Option<SocketAddr> {
        let list = &self.resolvers;
        Some(SocketAddr::new(*list.get(index % list.len().max(1))?, DNS_PORT))
    }

    /// Where a TCP connection goes. `None`: nowhere.
    pub fn stream(&self, options: &UserOptions, to: SocketAddrV4) -> Option<SocketAddr> {
        if options.restrict {
            return None;
        }
        let (address, port) = (*to.ip(), to.port());
        if address == options.dns {
            return if port == DNS_PORT { self.resolver(0) } else { None };
        }
        self.outside(options, address).map(|address| SocketAddr::new(address, port))
    }

    /// Where an address that is not the resolver's is.
    pub fn outside(&self, options: &UserOptions, address: Ipv4Addr) -> Option<IpAddr> {
        if options.restrict || is_special(address) {
            None
        } else if address == options.gateway {
            Some(Ipv4Addr::LOCALHOST.into())
        } else if options.contains(address) {
            None
        } else {
            Some(address.into())
        }
    }
}

fn resolvers(text: &str) -> Vec<IpAddr> {
    let servers: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
            address.parse().ok()
        })
        .take(3)
        .collect();
    // Without a list the resolver is on the host itself.
    if servers.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { servers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let text = "# nameserver 1.1.1.1\nsearch a\nnameserver 10.0.0.1\n nameserver  ::1 \nnameserver x\n";
        assert_eq!(
            resolvers(text),
            ["10.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]
        );
        assert_eq!(resolvers(""), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    }

    #[test]
    fn no_way_to_the_host_but_the_gateway() {
        let route = Route::new("/nonexistent".into());
        let options = UserOptions::default();
        let to = |text: &str| route.stream(&options, format!("{text}:80").parse().unwrap());
        assert_eq!(to("10.0.2.2"), Some("127.0.0.1:80".parse().unwrap()));
        assert_eq!(to("8.8.8.8"), Some("8.8.8.8:80".parse().unwrap()));
        for nowhere in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "10.0.2.3",
            "10.0.2.77",
            "10.0.2.255",
        ] {
            assert_eq!(to(nowhere), None, "{nowhere}");
        }
        let restricted = UserOptions { restrict: true, ..UserOptions::default() };
        for address in ["10.0.2.2", "10.0.2.3", "8.8.8.8"] {
            let address: Ipv4Addr = address.parse().unwrap();
            assert_eq!(route.outside(&restricted, address), None);
            assert_eq!(route.stream(&restricted, SocketAddrV4::new(address, 53)), None);
        }
    }
}
