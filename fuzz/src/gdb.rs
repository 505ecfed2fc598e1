//! What a debugger's client sends, to the whole stub with a guest behind it that has a real guest's registers. The input is the memory of that
//! guest, too, in which the stub looks for the list of libraries.

#[path = "../../gdb/tests/support/model_guest.rs"]
mod model_guest;
#[allow(dead_code)] // the tests spoil packets, too
#[path = "../../tests/support/packets.rs"]
mod packets;

use packets::packet;
use std::sync::LazyLock;
use tulk_frontend::GuestIsa;
use tulk_frontend::debug::Registers;
use tulk_gdb::server::End;
use tulk_x86::{CpuModel, Mode, X86};

/// The first byte says which guest it is, and whether the rest are bytes as they come (bit 1) or lines, of which each becomes a packet.
pub fn seeds() -> Vec<Vec<u8>> {
    let lines = [
        "qSupported:multiprocess+;swbreak+;hwbreak+;xmlRegisters=i386\n?\nHg0\ng\np0\np30\nP10=1122334455667788\nG0011\nqC",
        "QStartNoAckMode\nm0,10\nmfff,ffff\nmffffffffffffffff,10\nM0,2:aabb\nX0,2:ab\nx0,10",
        "Z0,10,4\nz0,10,4\nZ1,10,1\nZ2,0,ffffffffffffffff\nz2,0,8\nZ3,8,1\nZ4,fff,2\nZ9,1,1",
        "vCont?\nvCont;c\nvCont;s:p7.7;c\nvCont;r0,ffff:p7.8\nvCont;C0b:p7.7;c\nvCont;t\nc\ns\nHc-1\nC05",
        "qXfer:features:read:target.xml:0,ffb\nqXfer:features:read:x:ffffffffffffffff,ffff\nqXfer:siginfo:read::0,1000\n\
         qXfer:memory-map:read::0,fff\nqXfer:auxv:read::0,1000\nqXfer:exec-file:read:7:0,100\nqXfer:libraries-svr4:read::0,ffff",
        "vFile:setfs:0\nvFile:open:2f78,0,0\nvFile:pread:0,fffff,0\nvFile:pread:0,10,ffffffffffffffff\nvFile:fstat:0\nvFile:close:0\n\
         vFile:readlink:2f78\nvFile:unlink:2f78",
        "qfThreadInfo\nqsThreadInfo\nqThreadExtraInfo,p7.7\nTp7.9\nQCatchSyscalls:1;1;2\nQCatchSyscalls:0\nqHostInfo\nqProcessInfo",
        "qRcmd,68656c70\nqqemu.sstep\nQqemu.PhyMemMode:1\nvRun;;\nvAttach;7\nqAttached:7\n!\nR00\nvKill;7",
        "D;7\ng",
    ];
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        seeds.push([&[(n as u8 % 4) << 2], line.as_bytes()].concat());
    }
    seeds.push(b"\x02+$?#3f-$g#67\x03$qXfer:siginfo:read::0,1#ff}*$#".to_vec());
    seeds.push(program());
    seeds
}

/// A program's memory: auxiliary vector, program headers, dynamic section, `r_debug`, two entries.
fn program() -> Vec<u8> {
    let mut memory = b"\x08qXfer:libraries-svr4:read::0,fff\n".to_vec();
    memory.resize(AUXV, 0);
    let mut words = |words: &[u64]| memory.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    // AT_PHDR, AT_PHENT, AT_PHNUM.
    words(&[3, 0xa0, 4, 56, 5, 2, 0, 0]);
    // PT_PHDR and PT_DYNAMIC at 0xa0, the section at 0x110 with DT_DEBUG.
    words(&[6, 0, 0xa0, 0, 0, 0, 0, 2, 0, 0x110, 0, 0, 0, 0]);
    words(&[1, 7, 21, 0x140, 0, 0]);
    // struct r_debug, two of struct link_map, a name.
    words(&[1, 0x150, 0, 0, 0, 0x170, 0x1000, 0x190, 0x140, 0, 0x62696c, 0]);
    memory
}

/// Where the auxiliary vector is in the input.
const AUXV: usize = 0x60;

/// AArch64, i386, x86-64, a PC.
static GUESTS: LazyLock<[Registers; 4]> = LazyLock::new(|| {
    let model = || CpuModel::by_name("max").expect("a known model");
    let arm = tulk_arm::a64::CpuModel::by_name("max").expect("a known model");
    [
        tulk_arm::a64::Aarch64::new(arm).debug_registers(),
        X86::new(Mode::I386, model()).debug_registers(),
        X86::new(Mode::X86_64, model()).debug_registers(),
        X86::new_system(model()).debug_registers(),
    ]
});

pub fn run(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    let registers = GUESTS[(kind >> 2) as usize % GUESTS.len()].clone();
    let input = match kind & 2 {
        0 => rest.split(|b| *b == b'\n').flat_map(|body| [b"+".to_vec(), packet(body)].concat()),
        _ => return talk(registers, data, rest.to_vec()),
    };
    talk(registers, data, input.collect());
}

fn talk(registers: Registers, data: &[u8], input: Vec<u8>) {
    let rest = data.get(AUXV..).unwrap_or_default();
    let auxv = rest[..rest.len().min(128)].to_vec();
    let (end, out) = model_guest::talk(registers, data.to_vec(), auxv, Some("GNU/Linux"), input);
    assert!(end != End::GuestEnded, "it goes on");
    // Every answer is whole: what a client would hang on.
    let text = String::from_utf8_lossy(&out);
    for packet in text.split('$').skip(1) {
        assert!(packet.contains('#') || end != End::Detached, "{packet:?}");
    }
}
