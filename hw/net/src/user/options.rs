//! How a user network is laid out: [`UserOptions`].

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

/// Addresses that DHCP gives out, from [`UserOptions::dhcp_start`] on.
const LEASES: u32 = 16;

/// A port of the host that leads to a port of the guest.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    pub udp: bool,
    /// Port 0: any free one.
    pub host: SocketAddrV4,
    pub guest: SocketAddrV4,
}

#[derive(Clone, Debug, PartialEq)]
pub struct UserOptions {
    pub network: Ipv4Addr,
    /// Bits of the network part.
    pub prefix: u8,
    /// Gateway and DHCP server; the host's loopback for the guest.
    pub gateway: Ipv4Addr,
    pub dns: Ipv4Addr,
    pub dhcp_start: Ipv4Addr,
    /// No way out, except for answers to [`Forward`]s.
    pub restrict: bool,
    pub hostname: Option<String>,
    pub domain: Option<String>,
    /// Domains to search names in.
    pub search: Vec<String>,
    /// What the TFTP server gives out.
    pub tftp: Option<PathBuf>,
    pub tftp_server_name: Option<String>,
    pub bootfile: Option<String>,
    pub forwards: Vec<Forward>,
}

impl Default for UserOptions {
    fn default() -> UserOptions {
        UserOptions::in_network(Ipv4Addr::new(10, 0, 2, 0), 24)
    }
}

impl UserOptions {
    /// Gateway at 2, DNS at 3, guests from 15 on (5 in networks with fewer than 32 addresses).
    pub fn in_network(network: Ipv4Addr, prefix: u8) -> UserOptions {
        let at = |n: u32| Ipv4Addr::from_bits(network.to_bits() | n);
        UserOptions {
            network,
            prefix,
            gateway: at(2),
            dns: at(3),
            dhcp_start: at(if prefix > 27 { 5 } else { 15 }),
            restrict: false,
            hostname: None,
            domain: None,
            search: Vec::new(),
            tftp: None,
            tftp_server_name: None,
            bootfile: None,
            forwards: Vec::new(),
        }
    }

    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0))
    }
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | !self.mask().to_bits())
    }
    /// In the network, whoever's.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask().to_bits() == self.network.to_bits()
    }
    /// An address that a guest may have.
    pub fn is_guest(&self, address: Ipv4Addr) -> bool {
        self.contains(address)
            && ![self.network, self.broadcast(), self.gateway, self.dns].contains(&address)
    }

    /// How many addresses DHCP gives out, from `dhcp_start` on.
    pub fn leases(&self) -> u32 {
        if self.prefix > 27 { 4 } else { LEASES }
    }

    /// What is wrong with the addresses.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (key, address) in
            [("host", self.gateway), ("dns", self.dns), ("dhcpstart", self.dhcp_start)]
        {
            if !self.contains(address) || [self.network, self.broadcast()].contains(&address) {
                return Err(format!(
                    "{key}={address} is no address in {}/{}",
                    self.network, self.prefix
                ));
            }
        }
        if self.gateway == self.dns {
            return Err(format!("host and dns are both {}", self.dns));
        }
        let room = self.leases();
        let last = Ipv4Addr::from_bits(self.dhcp_start.to_bits().saturating_add(room - 1));
        let inside = |a: Ipv4Addr| (self.dhcp_start..=last).contains(&a);
        if !self.contains(last)
            || last == self.broadcast()
            || inside(self.gateway)
            || inside(self.dns)
        {
            return Err(format!(
                "dhcpstart={}: {room} addresses are needed from there on",
                self.dhcp_start
            ));
        }
        Ok(())
    }
}
