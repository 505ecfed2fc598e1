use super::machine::parse_date;
use super::*;
use tulk_block::{Cache, OnError};
use tulk_ui::ChardevOptions;
use tulk_ui::chardev::SocketAddress;

fn settings(line: &[&str]) -> anyhow::Result<Settings> {
    let arguments: Vec<OsString> = line.iter().map(Into::into).collect();
    match parse(&arguments)? {
        Request::Run(settings) => Ok(*settings),
        other => panic!("{other:?}"),
    }
}

fn error(line: &[&str]) -> String {
    format!("{:#}", settings(line).unwrap_err())
}

#[test]
fn a_usual_command_line() {
    let s = settings(&[
        "-m",
        "2G",
        "-smp",
        "2",
        "-nographic",
        "-kernel",
        "bzImage",
        "-append",
        "console=ttyS0",
        "-drive",
        "file=disk.qcow2,if=virtio,format=qcow2,cache=none",
        "-netdev",
        "user,id=n0,hostfwd=tcp::2222-:22",
        "-device",
        "virtio-net-pci,netdev=n0",
        "-no-reboot",
        "-boot",
        "d",
        "-rtc",
        "base=utc",
        "disk.img",
    ])
    .unwrap();
    assert_eq!((s.memory, s.cpus), (2 << 30, 2));
    assert_eq!(s.drives.len(), 2);
    assert_eq!(s.drives[0].interface, Interface::Virtio);
    assert_eq!(s.drives[0].cache, Cache::None);
    assert_eq!(s.drives[1].index, Some(0));
    assert_eq!(s.netdevs[0].options, [("hostfwd".into(), "tcp::2222-:22".into())]);
    assert_eq!(s.devices[0].driver, "virtio-net-pci");
    assert_eq!(s.on_reboot, OnReboot::Exit);
    assert_eq!(s.boot_order.as_deref(), Some("d"));
    assert!(!s.default_net);
}

#[test]
fn errors_name_the_option() {
    for (line, word) in [
        (&["-usbdevice", "tablet"][..], "-usbdevice"),
        (&["-m"], "-m"),
        (&["-m", "12X"], "-m 12X"),
        (&["-machine", "q35"], "q35"),
        (&["-machine", "pc,nvdimm=on"], "nvdimm"),
        (&["-accel", "kvm"], "kvm"),
        (&["-smp", "0"], "-smp 0"),
        (&["-smp", "4,cores=3"], "3 places"),
        (&["-drive", "file=x,if=scsi"], "if=scsi"),
        (&["-drive", "file=x,bps=1"], "bps"),
        (&["-drive", "file=x,index=4"], "index"),
        (&["-drive", "if=ide"], "file="),
        (&["-hda", "a", "b"], "two drives"),
        (&["-boot", "x"], "x: there are"),
        (&["-netdev", "tap,id=n"], "tap"),
        (&["-netdev", "user"], "id="),
        (&["-netdev", "user,id=n", "-netdev", "user,id=n"], "network n already"),
        (&["-net", "user", "-net", "user"], "use -nic"),
        (&["-serial", "carrier-pigeon"], "carrier-pigeon"),
        (&["-vga", "qxl"], "qxl"),
        (&["-display", "gtk"], "gtk"),
        (&["-k", "de"], "de"),
        (&["-global", "foo.bar=1"], "foo.bar"),
        (&["-uuid", "1234"], "-uuid"),
        (&["-rtc", "base=yesterday"], "yesterday"),
        (&["-append", "x"], "-kernel"),
        (&["-fw_cfg", "name=opt/x"], "file= or string="),
        (&["-action", "watchdog=none"], "watchdog"),
        (&["-action", "panic=pause"], "panic"),
        (&["-global", "PIIX4_PM.disable_s3=1"], "disable_s3"),
        (&["-accel", "tcg,tb-size=99999999999999"], "tb-size"),
        (&["-drive", "file=x,werror=maybe"], "werror"),
        (&["-drive", "file=x,rerror=enospc"], "rerror"),
        (&["-cdrom", "x", "-drive", "file=x,media=cdrom,werror=stop"], "disks"),
        (&["-drive", "file=x,cache=fast"], "fast"),
        (&["-drive", "file=x,file.locking=sometimes"], "sometimes"),
        (&["-rtc", "clock=rt"], "clock=rt"),
        (&["-machine", "accel=kvm:hvf"], "kvm"),
        (&["-machine", "pc,smm=on"], "smm"),
        (&["-nographic", "-curses"], "terminal"),
        (&["-msg", "colour=on"], "colour"),
        (&["-mon", "mode=control"], "chardev="),
        (&["-parallel", "null"], "-parallel"),
    ] {
        let error = error(line);
        assert!(error.contains(word), "{line:?}: {error}");
    }
}

#[test]
fn backends() {
    let s = settings(&[
        "-serial",
        "mon:stdio",
        "-serial",
        "unix:/tmp/s,server=on,wait=off",
        "-serial",
        "tcp::4444,server,nowait",
        "-monitor",
        "none",
        "-chardev",
        "socket,id=c,path=/x,server=on",
        "-serial",
        "chardev:c",
    ])
    .unwrap();
    let shared = ChardevOptions::Mux(Box::new(ChardevOptions::Stdio { signal: false }));
    assert_eq!(s.serials[0], CharSpec::Own(shared));
    for (n, address) in [
        (1, SocketAddress::Unix("/tmp/s".into())),
        (2, SocketAddress::Tcp { host: String::new(), port: 4444 }),
    ] {
        let CharSpec::Own(ChardevOptions::Socket(socket)) = &s.serials[n] else { panic!() };
        assert_eq!((&socket.address, socket.server, socket.wait), (&address, true, false));
    }
    assert_eq!(s.serials[3], CharSpec::Named("c".into()));
    assert_eq!(s.monitors, [CharSpec::None]);
    assert!(
        error(&[
            "-serial", "null", "-serial", "null", "-serial", "null", "-serial", "null", "-serial",
            "null"
        ])
        .contains("4 serial")
    );
}

#[test]
fn networks() {
    let cards = |line: &[&str]| -> Vec<String> {
        let s = settings(line).unwrap();
        let on = |d: &DeviceOption| format!("{} {}", d.driver, d.properties[0].1);
        s.devices.iter().map(on).collect()
    };
    assert_eq!(cards(&[]), ["e1000 #net0"]);
    assert!(cards(&["-nodefaults"]).is_empty());
    assert!(cards(&["-nic", "none"]).is_empty());
    assert!(cards(&["-net", "none"]).is_empty());
    assert_eq!(cards(&["-nic", "user,model=virtio"]), ["virtio-net-pci #net0"]);
    assert_eq!(cards(&["-nic", "user", "-nic", "user"]), ["e1000 #net0", "e1000 #net1"]);
    assert_eq!(cards(&["-net", "nic", "-net", "user"]), ["e1000 #net"]);
}

#[test]
fn accelerators_are_tried_in_order() {
    for line in [&["-machine", "pc,accel=kvm:tcg"][..], &["-accel", "kvm", "-accel", "tcg"]] {
        settings(line).unwrap();
    }
}

#[test]
fn errors_of_the_host() {
    let policy = |drive| settings(&["-drive", drive]).unwrap().drives[0].policy;
    assert_eq!(policy("file=x").write, OnError::PauseIfFull);
    assert_eq!(policy("file=x").read, OnError::Report);
    assert_eq!(policy("file=x,werror=stop,rerror=ignore").write, OnError::Pause);
    assert_eq!(policy("file=x,werror=stop,rerror=ignore").read, OnError::Ignore);
}

#[test]
fn names_and_messages() {
    let s = settings(&["-name", "web,process=vm-web", "-msg", "timestamp=on,guest-name=on"]);
    let s = s.unwrap();
    assert_eq!((s.name.as_deref(), s.process_name.as_deref()), (Some("web"), Some("vm-web")));
    assert_eq!(s.messages, MessageStyle { time: true, guest: true });
}

#[test]
fn dates() {
    let seconds =
        |text| parse_date(text).unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(seconds("1970-01-01"), 0);
    assert_eq!(seconds("2006-06-17T16:01:21"), 1_150_560_081);
    assert_eq!(seconds("2000-02-29T00:00:01"), 951_782_401);
    assert!(parse_date("2006-13-01").is_err());
    assert!(parse_date("2006").is_err());
}

#[test]
fn the_help_lists_every_option() {
    let help = help("tulk system");
    for (_, rows) in OPTIONS {
        for row in rows.iter().filter(|row| !row.2.is_empty()) {
            assert!(help.contains(&format!("  {} ", row.0.join(", "))), "{}", row.0[0]);
        }
    }
    assert!(matches!(parse(&["--help".into()]), Ok(Request::Help)));
    assert!(matches!(parse(&["-cpu".into(), "help".into()]), Ok(Request::List("-cpu"))));
}
