//! The DHCP server (RFC 2131, options RFC 2132 and 3397), which also answers BOOTP (RFC 951).

use super::UserOptions;
use std::net::Ipv4Addr;
use std::time::Instant;

pub(super) const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;

/// Fixed part of a message; the magic cookie follows.
const FIXED: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Old clients take no shorter messages (RFC 1542, 2.1).
const SHORTEST: usize = 300;
const LEASE_SECONDS: u32 = 86_400;

mod option {
    pub const PAD: u8 = 0;
    pub const MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOSTNAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const REQUESTED: u8 = 50;
    pub const LEASE: u8 = 51;
    pub const TYPE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const TFTP_SERVER: u8 = 66;
    pub const BOOTFILE: u8 = 67;
    pub const SEARCH: u8 = 119;
    pub const END: u8 = 255;
}

mod message {
    pub const DISCOVER: u8 = 1;
    pub const OFFER: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const DECLINE: u8 = 4;
    pub const ACK: u8 = 5;
    pub const NAK: u8 = 6;
    pub const RELEASE: u8 = 7;
    pub const INFORM: u8 = 8;
}

type Mac = [u8; 6];

struct Lease {
    address: Ipv4Addr,
    mac: Mac,
    used: Instant,
}

#[derive(Default)]
pub(super) struct Dhcp {
    leases: Vec<Lease>,
}

/// What goes back.
pub(super) struct Reply {
    pub bytes: Vec<u8>,
    pub mac: Mac,
    /// The guest's address if it has one and is to be answered there; it gets a broadcast otherwise.
    pub to: Option<Ipv4Addr>,
    /// On the link too, it asked for that.
    pub broadcast: bool,
}

/// A client's message.
struct Request<'a> {
    bytes: &'a [u8],
    kind: Option<u8>,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?))
}

impl<'a> Request<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Request<'a>> {
        // BOOTREQUEST from Ethernet.
        if bytes.len() < FIXED || bytes[..3] != [1, 1, 6] {
            return None;
        }
        let mut request = Request { bytes, kind: None, requested: None, server: None };
        let mut rest = bytes[FIXED..].strip_prefix(&COOKIE).unwrap_or(&[]);
        while let [code, behind @ ..] = rest {
            rest = match (*code, behind) {
                (option::PAD, _) => behind,
                (option::END, _) => break,
                (code, [length, behind @ ..]) => {
                    let Some((value, behind)) = behind.split_at_checked(usize::from(*length))
                    else {
                        break;
                    };
                    match code {
                        option::TYPE => request.kind = value.first().copied(),
                        option::REQUESTED => request.requested = address(value),
                        option::SERVER => request.server = address(value),
                        _ => {}
                    }
                    behind
                }
                _ => break,
            };
        }
        Some(request)
    }
    fn mac(&self) -> Mac {
        self.bytes[28..34].try_into().unwrap_or_default()
    }
    /// The address that the client has already (`ciaddr`).
    fn client(&self) -> Option<Ipv4Addr> {
        address(&self.bytes[12..]).filter(|a| !a.is_unspecified())
    }
}

impl Dhcp {
    /// The answer to a client's message, if it gets one.
    pub fn receive(&mut self, payload: &[u8], options: &UserOptions) -> Option<Reply> {
        let request = Request::parse(payload)?;
        let mac = request.mac();
        match request.kind {
            None => {
                let address = self.lease(mac, None, options)?;
                Some(reply(&request, None, Some(address), options))
            }
            Some(message::DISCOVER) => {
                let address = self.lease(mac, request.requested, options)?;
                Some(reply(&request, Some(message::OFFER), Some(address), options))
            }
            Some(message::REQUEST) => {
                if request.server.is_some_and(|server| server != options.gateway) {
                    // Another server's offer was taken. There is none, but the client says so.
                    self.leases.retain(|lease| lease.mac != mac);
                    return None;
                }
                let wanted = request.requested.or(request.client())?;
                match self.lease(mac, Some(wanted), options) {
                    Some(address) if address == wanted => {
                        Some(reply(&request, Some(message::ACK), Some(address), options))
                    }
                    _ => Some(reply(&request, Some(message::NAK), None, options)),
                }
            }
            Some(message::INFORM) => Some(reply(&request, Some(message::ACK), None, options)),
            Some(message::RELEASE | message::DECLINE) => {
                self.leases.retain(|lease| lease.mac != mac);
                None
            }
            Some(_) => None,
        }
    }

    /// The client's address: the one it has, the one it wants, or any.
    fn lease(
        &mut self,
        mac: Mac,
        wanted: Option<Ipv4Addr>,
        options: &UserOptions,
    ) -> Option<Ipv4Addr> {
        let used = Instant::now();
        let first = options.dhcp_start.to_bits();
        let mut pool = (first..first + options.leases()).map(Ipv4Addr::from_bits);
        let wanted = wanted.filter(|address| pool.clone().any(|a| a == *address));
        if let Some(lease) = self.leases.iter_mut().find(|lease| lease.mac == mac) {
            lease.used = used;
            return Some(lease.address);
        }
        let taken = |a: &Ipv4Addr| self.leases.iter().any(|lease| lease.address == *a);
        let address = match wanted.filter(|a| !taken(a)).or_else(|| pool.find(|a| !taken(a))) {
            Some(address) => address,
            None => {
                // All are given out: the one that was not heard of for longest has gone, most likely.
                let oldest = (0..self.leases.len()).min_by_key(|&n| self.leases[n].used)?;
                self.leases.swap_remove(oldest).address
            }
        };
        self.leases.push(Lease { address, mac, used });
        Some(address)
    }
}

fn reply(
    request: &Request<'_>,
    kind: Option<u8>,
    given: Option<Ipv4Addr>,
    options: &UserOptions,
) -> Reply {
    let nak = kind == Some(message::NAK);
    let mut bytes = vec![0; FIXED];
    // BOOTREPLY; transaction, flags, relay and client are the request's.
    bytes[..3].copy_from_slice(&[2, 1, 6]);
    for part in [4..8, 10..12, 24..28, 28..44] {
        bytes[part.clone()].copy_from_slice(&request.bytes[part]);
    }
    if !nak {
        bytes[12..16].copy_from_slice(&request.bytes[12..16]);
        if let Some(given) = given {
            bytes[16..20].copy_from_slice(&given.octets());
        }
        bytes[20..24].copy_from_slice(&options.gateway.octets());
        if let Some(name) = &options.bootfile
            && name.len() < 128
        {
            bytes[108..108 + name.len()].copy_from_slice(name.as_bytes());
        }
    }
    bytes.extend_from_slice(&COOKIE);
    let mut put = |code: u8, value: &[u8]| {
        if !value.is_empty() && value.len() <= 255 {
            bytes.extend_from_slice(&[code, value.len() as u8]);
            bytes.extend_from_slice(value);
        }
    };
    if let Some(kind) = kind {
        put(option::TYPE, &[kind]);
        put(option::SERVER, &options.gateway.octets());
    }
    if !nak {
        if kind.is_some() && given.is_some() {
            put(option::LEASE, &LEASE_SECONDS.to_be_bytes());
        }
        put(option::MASK, &options.mask().octets());
        if !options.restrict {
            put(option::ROUTER, &options.gateway.octets());
            put(option::DNS, &options.dns.octets());
        }
        let texts = [
            (option::HOSTNAME, &options.hostname),
            (option::DOMAIN, &options.domain),
            (option::TFTP_SERVER, &options.tftp_server_name),
            (option::BOOTFILE, &options.bootfile),
        ];
        for (code, text) in texts {
            put(code, text.as_deref().unwrap_or_default().as_bytes());
        }
        put(option::SEARCH, &domain_list(&options.search));
    }
    bytes.push(option::END);
    bytes.resize(bytes.len().max(SHORTEST), option::PAD);
    let broadcast = request.bytes[10] & 0x80 != 0 || nak;
    let to = request.client().filter(|_| !nak);
    Reply { bytes, mac: request.mac(), to, broadcast }
}

/// Names as DNS writes them (RFC 1035, 3.1), without compression, as many as there is room for.
fn domain_list(domains: &[String]) -> Vec<u8> {
    let mut list = Vec::new();
    for domain in domains {
        let mut name = Vec::new();
        for label in domain.split('.').filter(|label| (1..64).contains(&label.len())) {
            name.push(label.len() as u8);
            name.extend_from_slice(label.as_bytes());
        }
        name.push(0);
        if list.len() + name.len() <= 255 {
            list.extend(name);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(mac: u8, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
        bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 0, mac]);
        if !options.is_empty() {
            bytes.extend_from_slice(&COOKIE);
            bytes.extend_from_slice(options);
        }
        bytes
    }

    fn value(reply: &Reply, wanted: u8) -> Option<Vec<u8>> {
        let mut rest = &reply.bytes[FIXED + 4..];
        while let [code, length, behind @ ..] = rest {
            if *code == wanted {
                return Some(behind[..usize::from(*length)].to_vec());
            }
            rest = &behind[usize::from(*length)..];
        }
        None
    }

    fn given(reply: &Reply) -> Ipv4Addr {
        address(&reply.bytes[16..]).unwrap()
    }

    #[test]
    fn an_address_is_offered_given_and_kept() {
        let options = UserOptions {
            hostname: Some("box".into()),
            search: vec!["a.example".into(), "b".into()],
            bootfile: Some("pxe.0".into()),
            ..UserOptions::default()
        };
        let mut dhcp = Dhcp::default();
        let offer = dhcp.receive(&request(1, &[53, 1, 1, 255]), &options).unwrap();
        assert_eq!(value(&offer, 53), Some(vec![message::OFFER]));
        assert_eq!(given(&offer), Ipv4Addr::new(10, 0, 2, 15));
        assert_eq!(&offer.bytes[4..8], &[1, 2, 3, 4]);
        assert_eq!(value(&offer, 1), Some(vec![255, 255, 255, 0]));
        assert_eq!(value(&offer, 3), Some(vec![10, 0, 2, 2]));
        assert_eq!(value(&offer, 6), Some(vec![10, 0, 2, 3]));
        assert_eq!(value(&offer, 12).as_deref(), Some(&b"box"[..]));
        assert_eq!(value(&offer, 67).as_deref(), Some(&b"pxe.0"[..]));
        assert_eq!(&offer.bytes[108..114], b"pxe.0\0");
        assert_eq!(value(&offer, 119).as_deref(), Some(&b"\x01a\x07example\0\x01b\0"[..]));
        let ask = [53, 1, 3, 50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2, 255];
        let ack = dhcp.receive(&request(1, &ask), &options).unwrap();
        assert_eq!(value(&ack, 53), Some(vec![message::ACK]));
        let other = dhcp.receive(&request(2, &[53, 1, 1, 255]), &options).unwrap();
        assert_eq!(given(&other), Ipv4Addr::new(10, 0, 2, 16));
        let again = dhcp.receive(&request(1, &[53, 1, 1, 255]), &options).unwrap();
        assert_eq!(given(&again), Ipv4Addr::new(10, 0, 2, 15));
        // Somebody else's address is refused.
        let nak = dhcp.receive(&request(2, &ask), &options).unwrap();
        assert_eq!(value(&nak, 53), Some(vec![message::NAK]));
        assert!(given(&nak).is_unspecified() && nak.broadcast);
        // BOOTP has no options.
        assert_eq!(
            given(&dhcp.receive(&request(3, &[]), &options).unwrap()),
            Ipv4Addr::new(10, 0, 2, 17)
        );
    }

    #[test]
    fn leases_do_not_run_out_and_restriction_gives_no_way() {
        let options = UserOptions { restrict: true, ..UserOptions::default() };
        let mut dhcp = Dhcp::default();
        for mac in 0..100 {
            let offer = dhcp.receive(&request(mac, &[53, 1, 1, 255]), &options).unwrap();
            assert!((15..31).contains(&given(&offer).octets()[3]));
            assert_eq!((value(&offer, 3), value(&offer, 6)), (None, None));
        }
        assert_eq!(dhcp.leases.len(), 16);
    }

    #[test]
    fn broken_messages_get_no_answer_or_a_right_one() {
        let mut dhcp = Dhcp::default();
        let options = UserOptions::default();
        let whole = request(1, &[53, 1, 1, 50, 200, 1]);
        for length in 0..whole.len() {
            let reply = dhcp.receive(&whole[..length], &options);
            assert_eq!(reply.is_some(), length >= FIXED);
        }
    }
}
