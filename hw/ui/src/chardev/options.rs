//! Backends as `-serial`, `-monitor` and `-chardev` spell them: [`ChardevOptions`].

use crate::Error;
use std::path::PathBuf;
use std::time::Duration;

/// What a character device is connected to on the host.
#[derive(Clone, Debug, PartialEq)]
pub enum ChardevOptions {
    /// Swallows output.
    Null,
    /// Keeps the last `size` bytes of output.
    Ringbuf {
        size: usize,
    },
    /// Standard input and output. With `signal`, Ctrl-C ends tulk and does not reach the guest.
    Stdio {
        signal: bool,
    },
    /// Output only.
    File {
        path: PathBuf,
        append: bool,
    },
    /// `PATH.in` and `PATH.out`, or `PATH` for both directions.
    Pipe {
        path: PathBuf,
    },
    Pty,
    Socket(SocketOptions),
    /// Shared by several users: [`crate::Mux`].
    Mux(Box<ChardevOptions>),
}

/// A stream socket's other end.
#[derive(Clone, Debug, PartialEq)]
pub struct SocketOptions {
    pub address: SocketAddress,
    /// Waits for a connection instead of making one.
    pub server: bool,
    /// A server waits for its first client before the machine starts.
    pub wait: bool,
    pub nodelay: bool,
    pub telnet: bool,
    /// A client that has lost its peer tries again after this time.
    pub reconnect: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SocketAddress {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

/// Sub-options that are left, of the option `spec`.
struct Rest<'a> {
    spec: &'a str,
    pairs: Vec<(String, String)>,
}

impl Rest<'_> {
    /// The last value of a key. All of them are taken.
    fn take(&mut self, key: &str) -> Option<String> {
        let mut found = None;
        self.pairs.retain(|(name, value)| {
            if name == key {
                found = Some(value.clone());
            }
            name != key
        });
        found
    }
    fn required(&mut self, key: &str) -> Result<String, Error> {
        self.take(key)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Error::option(self.spec, format!("{key}= is missing")))
    }
    /// `KEY`, `KEY=on|yes|true`, `KEY=off|no|false`, and `noKEY`.
    fn flag(&mut self, key: &str) -> Result<Option<bool>, Error> {
        let negated = self.take(&format!("no{key}")).is_some();
        match self.take(key).as_deref() {
            _ if negated => Ok(Some(false)),
            None => Ok(None),
            Some("" | "on" | "yes" | "true" | "y") => Ok(Some(true)),
            Some("off" | "no" | "false" | "n") => Ok(Some(false)),
            Some(other) => {
                Err(Error::option(self.spec, format!("{key}={other} is neither on nor off")))
            }
        }
    }
    fn number<T: std::str::FromStr>(&mut self, key: &str) -> Result<Option<T>, Error> {
        self.take(key)
            .map(|text| {
                text.parse()
                    .map_err(|_| Error::option(self.spec, format!("{key}={text} is no number")))
            })
            .transpose()
    }
    fn finish(self) -> Result<(), Error> {
        match self.pairs.into_iter().next() {
            None => Ok(()),
            Some((option, _)) => Err(Error::UnknownOption { spec: self.spec.into(), option }),
        }
    }
}

/// `a,b=c,d` in pairs; `,,` is a comma in a value.
fn pairs(text: &str) -> Vec<(String, String)> {
    let text = text.replace(",,", "\0");
    text.split(',')
        .filter(|item| !item.is_empty())
        .map(|item| {
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            (key.to_string(), value.replace('\0', ","))
        })
        .collect()
}

impl ChardevOptions {
    /// Reads `stdio`, `mon:stdio`, `null`, `pty`, `file:PATH`, `pipe:PATH`, `unix:PATH[,OPTION...]`,
    /// `tcp:[HOST]:PORT[,OPTION...]`, `telnet:...`, `ringbuf[,size=N]`; and a `-chardev`'s own spelling without its id:
    /// `socket,path=PATH,server=on`.
    ///
    /// # Errors
    /// Backends and sub-options that there are not, and values that cannot be, by name.
    pub fn parse(spec: &str) -> Result<ChardevOptions, Error> {
        if let Some(inner) = spec.strip_prefix("mon:") {
            return Ok(match ChardevOptions::parse(inner)? {
                // On a shared terminal Ctrl-A x ends the machine, and Ctrl-C is the guest's.
                ChardevOptions::Stdio { .. } => {
                    ChardevOptions::Mux(Box::new(ChardevOptions::Stdio { signal: false }))
                }
                mux @ ChardevOptions::Mux(_) => mux,
                other => ChardevOptions::Mux(Box::new(other)),
            });
        }
        let end = spec.find([':', ',']).unwrap_or(spec.len());
        let (kind, rest) = spec.split_at(end);
        let Some(rest) = rest.strip_prefix(':') else {
            return ChardevOptions::from_pairs(kind, pairs(rest));
        };
        let (place, options) = split_place(rest);
        let missing = || Error::option(spec, "a name is missing behind the colon");
        let place = Some(place).filter(|place| !place.is_empty()).ok_or_else(missing)?;
        let mut options = pairs(options);
        let mut set = |key: &str, value: &str| options.push((key.into(), value.into()));
        let backend = match kind {
            "file" | "pipe" => {
                set("path", &place);
                kind
            }
            "unix" => {
                set("path", &place);
                "socket"
            }
            "tcp" | "telnet" => {
                let (host, port) = place
                    .rsplit_once(':')
                    .ok_or_else(|| Error::option(spec, "expected HOST:PORT"))?;
                set("host", host.trim_start_matches('[').trim_end_matches(']'));
                set("port", port);
                if kind == "telnet" {
                    set("telnet", "on");
                }
                "socket"
            }
            _ => return Err(Error::option(spec, "there is no such backend")),
        };
        ChardevOptions::from_pairs(backend, options)
    }

    /// From a `-chardev`'s backend name and its sub-options, without `id`.
    ///
    /// # Errors
    /// As [`ChardevOptions::parse`].
    pub fn from_pairs(
        backend: &str,
        pairs: Vec<(String, String)>,
    ) -> Result<ChardevOptions, Error> {
        let mut rest = Rest { spec: backend, pairs };
        let mux = rest.flag("mux")?.unwrap_or(false);
        let options = match backend {
            "null" | "none" => ChardevOptions::Null,
            "pty" => ChardevOptions::Pty,
            "stdio" => ChardevOptions::Stdio { signal: rest.flag("signal")?.unwrap_or(!mux) },
            "ringbuf" | "memory" => {
                let size = rest.number("size")?.unwrap_or(65536);
                if !(1..=1 << 30).contains(&size) {
                    return Err(Error::option(backend, format!("size={size} is out of range")));
                }
                ChardevOptions::Ringbuf { size }
            }
            "file" => ChardevOptions::File {
                path: rest.required("path")?.into(),
                append: rest.flag("append")?.unwrap_or(false),
            },
            "pipe" => ChardevOptions::Pipe { path: rest.required("path")?.into() },
            "socket" => ChardevOptions::Socket(SocketOptions::take(&mut rest)?),
            _ => return Err(Error::option(backend, "there is no such backend")),
        };
        rest.finish()?;
        Ok(if mux { ChardevOptions::Mux(Box::new(options)) } else { options })
    }
}

/// The file or address in front of the first single comma, its commas undoubled; and the sub-options behind it.
fn split_place(text: &str) -> (String, &str) {
    let mut from = 0;
    while let Some(at) = text[from..].find(',').map(|at| from + at) {
        if !text[at + 1..].starts_with(',') {
            return (text[..at].replace(",,", ","), &text[at + 1..]);
        }
        from = at + 2;
    }
    (text.replace(",,", ","), "")
}

impl SocketOptions {
    fn take(rest: &mut Rest<'_>) -> Result<SocketOptions, Error> {
        let address = match rest.take("path") {
            Some(path) => SocketAddress::Unix(path.into()),
            None => SocketAddress::Tcp {
                host: rest.take("host").unwrap_or_default(),
                port: rest
                    .number("port")?
                    .ok_or_else(|| Error::option(rest.spec, "port= or path= is missing"))?,
            },
        };
        let server = rest.flag("server")?.unwrap_or(false);
        let seconds = rest.number("reconnect")?.map(Duration::from_secs);
        let reconnect = rest.number("reconnect-ms")?.map(Duration::from_millis).or(seconds);
        let reconnect = reconnect.filter(|time| !time.is_zero());
        let wait = rest.flag("wait")?;
        if server && reconnect.is_some() {
            return Err(Error::option(rest.spec, "reconnect= is for clients, not with server=on"));
        }
        if !server && wait == Some(true) {
            return Err(Error::option(rest.spec, "wait=on is for servers"));
        }
        let delay = rest.flag("delay")?.map(|delay| !delay);
        Ok(SocketOptions {
            address,
            server,
            wait: wait.unwrap_or(server),
            nodelay: rest.flag("nodelay")?.or(delay).unwrap_or(false),
            telnet: rest.flag("telnet")?.unwrap_or(false),
            reconnect,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(spec: &str) -> SocketOptions {
        match ChardevOptions::parse(spec).unwrap() {
            ChardevOptions::Socket(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn spellings() {
        use ChardevOptions::*;
        for (spec, wanted) in [
            ("null", Null),
            ("none", Null),
            ("stdio", Stdio { signal: true }),
            ("stdio,signal=off", Stdio { signal: false }),
            ("mon:stdio", Mux(Box::new(Stdio { signal: false }))),
            ("stdio,mux=on", Mux(Box::new(Stdio { signal: false }))),
            ("pty", Pty),
            ("file:/tmp/a,,b", File { path: "/tmp/a,b".into(), append: false }),
            ("file,path=x,append=on", File { path: "x".into(), append: true }),
            ("pipe:/tmp/p", Pipe { path: "/tmp/p".into() }),
            ("ringbuf,size=4096", Ringbuf { size: 4096 }),
        ] {
            assert_eq!(ChardevOptions::parse(spec).unwrap(), wanted, "{spec}");
        }
        let server = socket("unix:/tmp/s,server,nowait");
        assert_eq!(server.address, SocketAddress::Unix("/tmp/s".into()));
        assert!(server.server && !server.wait);
        assert!(socket("tcp::4444,server=on").wait);
        let client = socket("tcp:[::1]:4444,nodelay,reconnect=2");
        assert_eq!(client.address, SocketAddress::Tcp { host: "::1".into(), port: 4444 });
        assert_eq!(client.reconnect, Some(Duration::from_secs(2)));
        assert!(client.nodelay && !client.server && !client.wait);
        assert!(socket("telnet:localhost:23,server=on,wait=off").telnet);
        assert!(!socket("socket,path=a,server=on,wait=off").telnet);
    }

    #[test]
    fn mistakes_are_named() {
        for (spec, part) in [
            ("", "no such backend"),
            ("tap", "no such backend"),
            ("vc:80x24", "no such backend"),
            ("file:", "name is missing"),
            ("null,size=3", "size"),
            ("unix:/tmp/s,fish=on", "fish"),
            ("unix:/tmp/s,server=maybe", "server=maybe"),
            ("tcp:localhost", "HOST:PORT"),
            ("tcp:localhost:99999", "99999"),
            ("tcp:localhost:1,server=on,reconnect=1", "reconnect"),
            ("tcp:localhost:1,wait=on", "wait"),
            ("ringbuf,size=0", "size"),
            ("file,append=on", "path"),
        ] {
            let error = ChardevOptions::parse(spec).unwrap_err().to_string();
            assert!(error.contains(part), "{spec}: {error}");
        }
    }
}
