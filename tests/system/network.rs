//! Network cards in Linux: an address by DHCP, HTTP in both directions, a port of the host that leads to the guest.

use crate::initramfs::{boot_on, modules};
use crate::soak;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What `udhcpc` runs.
const DHCP: &[u8] = b"#!/bin/sh\n[ $1 = bound ] || exit 0\n\
    ifconfig $interface $ip netmask $subnet\nroute add default gw $router\necho lease $ip $router $dns\n";

/// Bytes without a pattern, so that lost, doubled or exchanged packets show.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..count.div_ceil(8)).flat_map(|_| next()).take(count).collect()
}

/// Answers a GET with `content`, and a POST with whether that was the same.
fn answer(stream: TcpStream, content: &[u8]) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let same: &[u8] = if body == content { b"the same\n" } else { b"something else\n" };
    let reply = if request.starts_with("GET") { content } else { same };
    let mut stream = reader.into_inner();
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", reply.len())?;
    stream.write_all(reply)
}

/// A web server on the host's loopback; its port.
fn serve(content: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // The guest shows what went wrong.
            let _ = answer(stream, &content);
        }
    });
    port
}

/// Connects to a port of the host until a guest answers there; what it said to "ping".
fn call(address: SocketAddr) -> String {
    let until = Instant::now() + Duration::from_secs(240);
    while Instant::now() < until {
        let once = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"ping\n")?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(line)
        };
        match once() {
            Ok(line) if !line.is_empty() => return line,
            _ => std::thread::sleep(Duration::from_millis(200)),
        }
    }
    String::new()
}

/// Everything about a card of this kind on the kernel in this folder, whose modules get these arguments.
fn a_card_works(folder: &str, device: &str, paths: &[&'static str], arguments: &str) {
    let content = noise(8 << 20);
    let sum = {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &content).unwrap();
        let mut command = std::process::Command::new("sha256sum");
        command.arg(file.path());
        crate::support::finish(command).text()[..64].to_string()
    };
    let Some(mut files) = modules(folder, paths) else { return };
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    let names = names.join(" ");
    files.push(("dhcp", DHCP.to_vec()));
    // A port that is free now; somebody else could take it only by chance.
    let forwarded = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let length = content.len();
    let web = serve(content);
    let script = format!(
        "for m in {names}; do insmod /bin/$m {arguments}; done\n\
         mount -t sysfs sysfs /sys\n\
         ifconfig lo 127.0.0.1; ifconfig eth0 up\n\
         udhcpc -i eth0 -n -q -f -s /bin/dhcp 2>/dev/null\n\
         wget -q -O /tmp/f http://10.0.2.2:{web}/f; sha256sum </tmp/f\n\
         (printf 'POST / HTTP/1.0\\r\\nContent-Length: {length}\\r\\n\\r\\n'; cat /tmp/f) |\
         nc 10.0.2.2 {web} | tail -n 1\n\
         ping -c 3 -i 0.2 -q 10.0.2.2 | grep -o '3 packets received'\n\
         echo pong | nc -l -p 7000\n"
    );
    let network = format!("user,id=n,hostfwd=tcp:127.0.0.1:{}-:7000", forwarded.port());
    let card = format!("{device},netdev=n,mac=52:54:00:0a:0b:0c");
    let caller = std::thread::spawn(move || call(forwarded));
    let options = ["-netdev", &network, "-device", &card];
    let Some(printed) = boot_on(folder, &options, &files, &script) else { return };
    let lease = "lease 10.0.2.15 10.0.2.2 10.0.2.3";
    let expected = format!("{lease}\n{sum}  -\nthe same\n3 packets received\nping\n");
    assert_eq!(printed, expected, "{card}");
    assert_eq!(caller.join().unwrap(), "pong\n", "{card}");
}

#[test]
fn linux_downloads_over_virtio_net() {
    let paths = [
        "drivers/virtio/virtio",
        "drivers/virtio/virtio_ring",
        "drivers/virtio/virtio_pci_modern_dev",
        "drivers/virtio/virtio_pci_legacy_dev",
        "drivers/virtio/virtio_pci",
        "net/core/failover",
        "drivers/net/net_failover",
        "drivers/net/virtio_net",
    ];
    a_card_works("kernels", "virtio-net-pci", &paths, "");
    if soak() {
        a_card_works("kernels", "virtio-net-pci", &paths, "force_legacy=1");
    }
}

#[test]
fn linux_downloads_over_e1000() {
    a_card_works("kernels-amd64", "e1000", &["drivers/net/ethernet/intel/e1000/e1000"], "");
}
