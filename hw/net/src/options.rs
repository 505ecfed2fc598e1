//! Networks as `-netdev` spells them: [`NetdevOptions`].

use crate::Error;
use crate::user::{Forward, UserOptions};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What a network card is connected to.
#[derive(Clone, Debug, PartialEq)]
pub enum NetdevOptions {
    User(Box<UserOptions>),
    /// Frames over a stream socket, each behind its length.
    Stream(StreamOptions),
    /// Frames in datagrams.
    Dgram(DgramOptions),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Endpoint {
    Unix(PathBuf),
    /// Host name or address, and port.
    Inet(String, u16),
}

#[derive(Clone, Debug, PartialEq)]
pub struct StreamOptions {
    pub endpoint: Endpoint,
    pub server: bool,
    /// A client that has lost its peer tries again after this time.
    pub reconnect: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DgramOptions {
    /// Where frames come to. Needed for a Unix socket, any free port otherwise.
    pub local: Option<Endpoint>,
    pub remote: Endpoint,
}

/// Sub-options that are left.
struct Rest<'a> {
    kind: &'a str,
    pairs: Vec<(String, String)>,
}

impl Rest<'_> {
    fn error(&self, message: impl Into<String>) -> Error {
        Error::Option { kind: self.kind.into(), message: message.into() }
    }
    fn all(&mut self, key: &str) -> Vec<String> {
        let (found, left) =
            std::mem::take(&mut self.pairs).into_iter().partition(|(name, _)| name == key);
        self.pairs = left;
        let found: Vec<(String, String)> = found;
        found.into_iter().map(|(_, value)| value).collect()
    }
    fn text(&mut self, key: &str) -> Option<String> {
        self.all(key).pop()
    }
    fn parsed<T: FromStr>(&mut self, key: &str, wanted: &str) -> Result<Option<T>, Error> {
        self.text(key)
            .map(|text| {
                text.parse().map_err(|_| self.error(format!("{key}={text}: expected {wanted}")))
            })
            .transpose()
    }
    fn address(&mut self, key: &str) -> Result<Option<Ipv4Addr>, Error> {
        self.parsed(key, "an IPv4 address")
    }
    fn flag(&mut self, key: &str) -> Result<Option<bool>, Error> {
        let value = self.text(key);
        match value.as_deref() {
            None => Ok(None),
            Some("" | "on" | "yes" | "true" | "y") => Ok(Some(true)),
            Some("off" | "no" | "false" | "n") => Ok(Some(false)),
            Some(other) => Err(self.error(format!("{key}={other} is neither on nor off"))),
        }
    }
    fn finish(self) -> Result<(), Error> {
        match self.pairs.into_iter().next() {
            None => Ok(()),
            Some((option, _)) => Err(Error::UnknownOption { kind: self.kind.into(), option }),
        }
    }
}

impl NetdevOptions {
    /// Reads `user,id=n0,hostfwd=tcp::2222-:22` and the like. `id` is left out of account.
    ///
    /// # Errors
    /// Networks and sub-options that there are not, and values that cannot be, by name.
    pub fn parse(text: &str) -> Result<NetdevOptions, Error> {
        let text = text.replace(",,", "\0");
        let mut items = text.split(',');
        let kind = items.next().unwrap_or_default().trim_start_matches("type=");
        let pairs = items.filter(|item| !item.is_empty()).map(|item| {
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            (key.to_string(), value.replace('\0', ","))
        });
        NetdevOptions::from_pairs(kind, pairs.collect())
    }

    /// From a kind and its sub-options in their order.
    ///
    /// # Errors
    /// As [`NetdevOptions::parse`].
    pub fn from_pairs(kind: &str, pairs: Vec<(String, String)>) -> Result<NetdevOptions, Error> {
        let mut rest = Rest { kind, pairs };
        rest.all("id");
        let options = match kind {
            "user" => NetdevOptions::User(Box::new(user(&mut rest)?)),
            "socket" => socket(&mut rest)?,
            "stream" => NetdevOptions::Stream(stream(&mut rest)?),
            "dgram" => NetdevOptions::Dgram(dgram(&mut rest)?),
            other => return Err(Error::UnknownKind(other.into())),
        };
        rest.finish()?;
        Ok(options)
    }
}

/// `10.0.2.0/24`, or with a mask behind the slash.
fn network(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "24"));
    let prefix = match prefix.parse::<Ipv4Addr>() {
        Ok(mask) => {
            let ones = mask.to_bits().leading_ones();
            (mask.to_bits().checked_shl(ones).unwrap_or(0) == 0).then_some(ones as u8)?
        }
        Err(_) => prefix.parse().ok()?,
    };
    let address: Ipv4Addr = address.parse().ok()?;
    // Smaller networks have no room for gateway, DNS and guests.
    (4..=28)
        .contains(&prefix)
        .then(|| (Ipv4Addr::from_bits(address.to_bits() & !(u32::MAX >> prefix)), prefix))
}

fn user(rest: &mut Rest<'_>) -> Result<UserOptions, Error> {
    let mut options = UserOptions::default();
    if let Some(text) = rest.text("net") {
        let (network, prefix) = network(&text)
            .ok_or_else(|| rest.error(format!("net={text}: expected ADDRESS/PREFIX")))?;
        options = UserOptions::in_network(network, prefix);
    }
    if rest.flag("ipv4")? == Some(false) {
        return Err(rest.error("ipv4=off is not supported"));
    }
    if rest.flag("ipv6")? == Some(true) {
        return Err(rest.error("ipv6=on is not supported"));
    }
    for (key, place) in [
        ("host", &mut options.gateway),
        ("dns", &mut options.dns),
        ("dhcpstart", &mut options.dhcp_start),
    ] {
        if let Some(address) = rest.address(key)? {
            *place = address;
        }
    }
    options.restrict = rest.flag("restrict")?.unwrap_or(false);
    options.hostname = rest.text("hostname");
    options.domain = rest.text("domainname");
    options.search = rest.all("dnssearch");
    options.tftp = rest.text("tftp").map(PathBuf::from);
    options.tftp_server_name = rest.text("tftp-server-name");
    options.bootfile = rest.text("bootfile");
    for text in rest.all("hostfwd") {
        options.forwards.push(
            forward(&text, &options)
                .map_err(|message| rest.error(format!("hostfwd={text}: {message}")))?,
        );
    }
    options.check().map_err(|message| rest.error(message))?;
    Ok(options)
}

/// `tcp|udp:[hostaddr]:hostport-[guestaddr]:guestport`.
fn forward(text: &str, options: &UserOptions) -> Result<Forward, String> {
    const FORM: &str = "expected tcp|udp:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT";
    let (protocol, rest) = text.split_once(':').ok_or(FORM)?;
    let udp = match protocol {
        "tcp" | "" => false,
        "udp" => true,
        other => return Err(format!("the protocol {other} is not supported")),
    };
    let (host, guest) = rest.split_once('-').ok_or(FORM)?;
    let side = |text: &str, default: Ipv4Addr| {
        let (address, port) = text.rsplit_once(':').ok_or(FORM)?;
        let address = match address {
            "" => default,
            address => address.parse().map_err(|_| format!("{address} is no IPv4 address"))?,
        };
        let port = port.parse().map_err(|_| format!("{port} is no port"))?;
        Ok::<_, String>(SocketAddrV4::new(address, port))
    };
    let host = side(host, Ipv4Addr::LOCALHOST)?;
    let guest = side(guest, options.dhcp_start)?;
    if guest.port() == 0 {
        return Err("the guest's port is 0".into());
    }
    if !options.is_guest(*guest.ip()) {
        return Err(format!("{} is no guest's address in the network", guest.ip()));
    }
    Ok(Forward { udp, host, guest })
}

/// The older spelling of streams and datagrams.
fn socket(rest: &mut Rest<'_>) -> Result<NetdevOptions, Error> {
    let endpoint = |rest: &Rest<'_>, text: &str, default: &str| {
        let bad = || rest.error(format!("{text}: expected HOST:PORT"));
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let host = if host.is_empty() { default } else { host };
        Ok::<_, Error>(Endpoint::Inet(host.into(), port.parse().map_err(|_| bad())?))
    };
    let (listen, connect, udp) = (rest.text("listen"), rest.text("connect"), rest.text("udp"));
    match (listen, connect, udp) {
        (Some(text), None, None) => Ok(NetdevOptions::Stream(StreamOptions {
            endpoint: endpoint(rest, &text, "0.0.0.0")?,
            server: true,
            reconnect: None,
        })),
        (None, Some(text), None) => Ok(NetdevOptions::Stream(StreamOptions {
            endpoint: endpoint(rest, &text, "127.0.0.1")?,
            server: false,
            reconnect: None,
        })),
        (None, None, Some(text)) => {
            let local = rest
                .text("localaddr")
                .ok_or_else(|| rest.error("localaddr= is missing, udp= needs it"))?;
            Ok(NetdevOptions::Dgram(DgramOptions {
                local: Some(endpoint(rest, &local, "0.0.0.0")?),
                remote: endpoint(rest, &text, "127.0.0.1")?,
            }))
        }
        _ => Err(match rest.pairs.first() {
            Some((option, _)) => {
                Error::UnknownOption { kind: rest.kind.into(), option: option.clone() }
            }
            None => rest.error("expected one of listen=, connect=, udp="),
        }),
    }
}

/// `PREFIX.type=inet|unix` and what belongs to it. `None`: there is none.
fn endpoint(rest: &mut Rest<'_>, prefix: &str) -> Result<Option<Endpoint>, Error> {
    let key = |name: &str| format!("{prefix}.{name}");
    let Some(kind) = rest.text(&key("type")) else { return Ok(None) };
    let missing = |rest: &Rest<'_>, name: &str| rest.error(format!("{} is missing", key(name)));
    match &*kind {
        "unix" => {
            let path = rest.text(&key("path")).ok_or_else(|| missing(rest, "path"))?;
            Ok(Some(Endpoint::Unix(path.into())))
        }
        "inet" => {
            // IPv4 and IPv6 both work; there is no choice between them.
            let host = rest.text(&key("host")).ok_or_else(|| missing(rest, "host"))?;
            let port = rest.parsed(&key("port"), "a port")?.ok_or_else(|| missing(rest, "port"))?;
            Ok(Some(Endpoint::Inet(host, port)))
        }
        other => Err(rest.error(format!("{}={other} is not supported", key("type")))),
    }
}

fn stream(rest: &mut Rest<'_>) -> Result<StreamOptions, Error> {
    let endpoint = endpoint(rest, "addr")?.ok_or_else(|| rest.error("addr.type= is missing"))?;
    let server = rest.flag("server")?.unwrap_or(false);
    let seconds = rest.parsed("reconnect", "seconds")?.map(Duration::from_secs);
    let reconnect = rest
        .parsed("reconnect-ms", "milliseconds")?
        .map(Duration::from_millis)
        .or(seconds)
        .filter(|time| !time.is_zero());
    if server && reconnect.is_some() {
        return Err(rest.error("reconnect is for clients, not with server=on"));
    }
    Ok(StreamOptions { endpoint, server, reconnect })
}

fn dgram(rest: &mut Rest<'_>) -> Result<DgramOptions, Error> {
    let local = endpoint(rest, "local")?;
    let remote = endpoint(rest, "remote")?.ok_or_else(|| rest.error("remote.type= is missing"))?;
    let same = |l: &Endpoint| matches!(l, Endpoint::Unix(_)) == matches!(remote, Endpoint::Unix(_));
    if !local.as_ref().is_none_or(same) {
        return Err(rest.error("local and remote are of different types"));
    }
    if local.is_none() && matches!(remote, Endpoint::Unix(_)) {
        return Err(rest.error("local.type= is missing"));
    }
    Ok(DgramOptions { local, remote })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> UserOptions {
        match NetdevOptions::parse(text).unwrap() {
            NetdevOptions::User(options) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn user_networks() {
        let plain = user("user,id=n0");
        assert_eq!(plain, UserOptions::default());
        let all = user(
            "user,id=n0,net=192.168.76.0/24,restrict=on,hostname=box,domainname=a.org,dnssearch=b,dnssearch=c,\
             tftp=/srv,bootfile=pxe.0,hostfwd=tcp::2222-:22,hostfwd=udp:0.0.0.0:53-192.168.76.20:5353",
        );
        assert_eq!(all.gateway, Ipv4Addr::new(192, 168, 76, 2));
        assert_eq!(all.dns, Ipv4Addr::new(192, 168, 76, 3));
        assert_eq!(all.dhcp_start, Ipv4Addr::new(192, 168, 76, 15));
        assert!(all.restrict);
        assert_eq!(all.search, ["b", "c"]);
        assert_eq!(
            all.forwards,
            [
                Forward {
                    udp: false,
                    host: "127.0.0.1:2222".parse().unwrap(),
                    guest: "192.168.76.15:22".parse().unwrap()
                },
                Forward {
                    udp: true,
                    host: "0.0.0.0:53".parse().unwrap(),
                    guest: "192.168.76.20:5353".parse().unwrap()
                }
            ]
        );
        assert_eq!(
            user("user,net=10.1.0.0/255.255.0.0,host=10.1.9.9").gateway,
            Ipv4Addr::new(10, 1, 9, 9)
        );
    }

    #[test]
    fn streams_and_datagrams() {
        let inet = |host: &str, port| Endpoint::Inet(host.into(), port);
        let stream = |endpoint, server, ms: u64| {
            let reconnect = (ms > 0).then(|| Duration::from_millis(ms));
            NetdevOptions::Stream(StreamOptions { endpoint, server, reconnect })
        };
        for (text, wanted) in [
            ("socket,id=a,listen=:1234", stream(inet("0.0.0.0", 1234), true, 0)),
            ("socket,connect=h:1", stream(inet("h", 1), false, 0)),
            (
                "stream,addr.type=inet,addr.host=::1,addr.port=9,server=on",
                stream(inet("::1", 9), true, 0),
            ),
            (
                "stream,addr.type=unix,addr.path=/p,reconnect=2",
                stream(Endpoint::Unix("/p".into()), false, 2000),
            ),
            (
                "stream,addr.type=unix,addr.path=/p,reconnect-ms=20",
                stream(Endpoint::Unix("/p".into()), false, 20),
            ),
            (
                "socket,udp=10.0.0.1:5,localaddr=:6",
                NetdevOptions::Dgram(DgramOptions {
                    local: Some(inet("0.0.0.0", 6)),
                    remote: inet("10.0.0.1", 5),
                }),
            ),
            (
                "dgram,local.type=unix,local.path=/a,remote.type=unix,remote.path=/b",
                NetdevOptions::Dgram(DgramOptions {
                    local: Some(Endpoint::Unix("/a".into())),
                    remote: Endpoint::Unix("/b".into()),
                }),
            ),
        ] {
            assert_eq!(NetdevOptions::parse(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("tap,id=n", "tap"),
            ("user,fish=1", "fish"),
            ("user,guestfwd=tcp:10.0.2.9:1-cmd:cat", "guestfwd"),
            ("user,smb=/x", "smb"),
            ("user,ipv6=on", "ipv6"),
            ("user,restrict=maybe", "restrict=maybe"),
            ("user,net=10.0.2.0/33", "net="),
            ("user,host=10.0.3.2", "10.0.3.2"),
            ("user,dns=10.0.2.2", "10.0.2.2"),
            ("user,dhcpstart=10.0.2.254", "dhcpstart"),
            ("user,hostfwd=tcp:2222-22", "2222"),
            ("user,hostfwd=sctp::1-:1", "sctp"),
            ("user,hostfwd=tcp::1-:70000", "70000"),
            ("user,hostfwd=tcp::1-:0", "port is 0"),
            ("user,hostfwd=tcp::1-10.0.2.2:9", "10.0.2.2"),
            ("user,hostfwd=tcp::1-8.8.8.8:9", "8.8.8.8"),
            ("user,bootfile=x,tftp=/srv,id=1,speed=3", "speed"),
            ("socket,id=x", "listen="),
            ("socket,fd=3", "fd"),
            ("socket,mcast=230.0.0.1:1", "mcast"),
            ("socket,udp=a:1", "localaddr"),
            ("stream,server=on", "addr.type"),
            ("stream,addr.type=fd,addr.str=3", "fd"),
            ("stream,addr.type=inet,addr.host=x", "addr.port"),
            ("stream,addr.type=unix,addr.path=/x,server=on,reconnect=1", "reconnect"),
            ("dgram,remote.type=unix,remote.path=/x", "local.type"),
        ] {
            let error = NetdevOptions::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
