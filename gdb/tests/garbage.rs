//! What a client sends, whatever it is, ends at most the session: seeded mutations of real packets, fed to the whole
//! stub with a guest behind it that checks what is asked of it.

#[path = "support/model_guest.rs"]
mod model_guest;
#[path = "../../tests/support/packets.rs"]
mod packets;

use packets::{Spoiler, packet};
use tulk_frontend::debug::Registers;
use tulk_gdb::server::End;
use tulk_ir::{RegLayout, Type};

const BODIES: &[&[u8]] = &[
    b"qSupported:multiprocess+;swbreak+;hwbreak+",
    b"?",
    b"Hgp7.7",
    b"Hg0",
    b"g",
    b"p0",
    b"p2",
    b"p63",
    b"P0=1122334455667788",
    b"P1=00",
    b"G0011",
    b"m0,10",
    b"mfff,ffff",
    b"mffffffffffffffff,10",
    b"M0,2:aabb",
    b"X0,2:ab",
    b"Z0,10,4",
    b"z0,10,4",
    b"Z2,0,ffffffffffffffff",
    b"z2,0,8",
    b"Z9,1,1",
    b"vCont?",
    b"vCont;c",
    b"vCont;s:p7.7;c",
    b"vCont;r0,ffff:p7.8",
    b"vCont;C0b:p7.7;c",
    b"c",
    b"s",
    b"qXfer:features:read:target.xml:0,ffb",
    b"qXfer:features:read:x:ffffffffffffffff,ffff",
    b"qXfer:auxv:read::0,1000",
    b"qXfer:exec-file:read:7:0,100",
    b"vFile:open:2f78,0,0",
    b"vFile:pread:0,fffff,0",
    b"vFile:pread:0,10,ffffffffffffffff",
    b"vFile:fstat:0",
    b"vFile:close:0",
    b"vFile:readlink:2f78",
    b"vFile:setfs:0",
    b"qfThreadInfo",
    b"qThreadExtraInfo,p7.7",
    b"Tp7.9",
    b"QCatchSyscalls:1;1;2",
    b"QCatchSyscalls:0",
    b"qRcmd,68656c70",
    b"QStartNoAckMode",
    b"vRun;;",
    b"vAttach;7",
    b"!",
];

fn talk(input: Vec<u8>) -> (End, Vec<u8>) {
    let mut layout = RegLayout::new();
    layout.add("r0", Type::I64, Some(0));
    layout.add("v0", Type::V128, Some(1));
    model_guest::talk(Registers::plain(&layout), vec![0; 4096], vec![1; 40], None, input)
}

#[test]
fn packets_are_answered() {
    for body in BODIES {
        let (end, out) = talk([packet(body), packet(b"D;7")].concat());
        assert!(out.contains(&b'$'), "{}", String::from_utf8_lossy(body));
        assert!(matches!(end, End::Detached | End::Lost), "{}", String::from_utf8_lossy(body));
    }
    let (end, out) = talk([packet(b"g"), packet(b"vKill;7")].concat());
    assert_eq!(end, End::Killed);
    assert!(String::from_utf8_lossy(&out).ends_with("OK#9a"));
}

#[test]
fn garbage() {
    let mut spoiler = Spoiler::new();
    for _ in 0..20_000 {
        let mut input = Vec::new();
        for _ in 0..1 + spoiler.below(6) {
            input.extend(spoiler.packet(BODIES, 4));
            if spoiler.below(8) == 0 {
                input.push([3, b'+', b'-', 0xff][spoiler.below(4)]);
            }
        }
        talk(input);
    }
}
