//! A guest that scribbles: random values to random ports, PCI configuration registers and device memory, by processors
//! that never stop. Whatever it does, tulk does not panic and the monitor answers.

mod support;

use std::time::{Duration, Instant};
use support::console::{Machine, boot_image, firmware};

/// 16-bit code with 4 GiB data segments ("big real mode"). Registers: ESI the random state; EDX and EBX random values.
fn scribbler(seed: u32) -> Vec<u8> {
    let mut code = vec![
        0xfa, // cli
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, 0x8e, 0xd0, // mov ds, ax; mov ss, ax
        0xbc, 0x00, 0x7c, // mov sp, 0x7c00
        0x0f, 0x01, 0x16, 0xf0, 0x7d, // lgdt [0x7df0]
        0x0f, 0x20, 0xc0, // mov eax, cr0
        0x66, 0x83, 0xc8, 0x01, // or eax, 1
        0x0f, 0x22, 0xc0, // mov cr0, eax
        0xbb, 0x08, 0x00, 0x8e, 0xdb, // mov bx, 8; mov ds, bx
        0x66, 0x83, 0xe0, 0xfe, // and eax, ~1
        0x0f, 0x22, 0xc0, // mov cr0, eax
        0xba, 0xf8, 0x03, 0xb0, b'>', 0xee, // mov dx, 0x3f8; mov al, '>'; out dx, al
        0x66, 0xbe, // mov esi, seed
    ];
    code.extend(seed.to_le_bytes());
    // Numerical Recipes' generator, its better half on top.
    let random = [
        0x66, 0x69, 0xf6, 0x0d, 0x66, 0x19, 0x00, // imul esi, esi, 1664525
        0x66, 0x81, 0xc6, 0x5f, 0xf3, 0x6e, 0x3c, // add esi, 1013904223
        0x66, 0x89, 0xf0, 0x66, 0xc1, 0xc0, 0x10, // mov eax, esi; rol eax, 16
        0xc3, // ret
    ];
    code.extend([0xeb, random.len() as u8]);
    let random_at = code.len();
    code.extend(random);
    let start = code.len();
    let call = |code: &mut Vec<u8>| {
        code.push(0xe8);
        code.extend((random_at as i16 - (code.len() as i16 + 2)).to_le_bytes());
    };
    call(&mut code);
    code.extend([0x66, 0x89, 0xc2]); // mov edx, eax
    call(&mut code);
    code.extend([0x66, 0x89, 0xc3]); // mov ebx, eax
    call(&mut code);
    code.extend([0x24, 0x07]); // and al, 7
    let actions: [&[u8]; 8] = [
        &[0x88, 0xd8, 0xee],             // mov al, bl; out dx, al
        &[0x89, 0xd8, 0xef],             // mov ax, bx; out dx, ax
        &[0x66, 0x89, 0xd8, 0x66, 0xef], // mov eax, ebx; out dx, eax
        &[0xec, 0xed, 0x66, 0xed],       // in al, dx; in ax, dx; in eax, dx
        // The ports of a PC's own devices, but for those that would only reset it: 0x64 and 0x92.
        &[
            0x81, 0xe2, 0xff, 0x03, // and dx, 0x3ff
            0x83, 0xfa, 0x64, 0x74, 0x09, // cmp dx, 0x64; je end
            0x81, 0xfa, 0x92, 0x00, 0x74, 0x03, // cmp dx, 0x92; je end
            0x88, 0xd8, 0xee, // mov al, bl; out dx, al
        ],
        // Configuration registers of slots 0 to 7.
        &[
            0x66, 0x89, 0xd0, // mov eax, edx
            0x66, 0x25, 0xfc, 0x3f, 0x00, 0x00, // and eax, 0x3ffc
            0x66, 0x0d, 0x00, 0x00, 0x00, 0x80, // or eax, 0x80000000
            0xba, 0xf8, 0x0c, 0x66, 0xef, // mov dx, 0xcf8; out dx, eax
            0xba, 0xfc, 0x0c, 0x66, 0x89, 0xd8, 0x66,
            0xef, // mov dx, 0xcfc; mov eax, ebx; out dx, eax
            0x66, 0xed, // in eax, dx
        ],
        // The top 32 MiB below 4 GiB: windows of PCI devices, I/O APIC, HPET, local APIC, ROM.
        &[
            0x66, 0x89, 0xd7, // mov edi, edx
            0x66, 0x81, 0xcf, 0x00, 0x00, 0x00, 0xfe, // or edi, 0xfe000000
            0x67, 0x66, 0x89, 0x1f, // mov [edi], ebx
            0x67, 0x66, 0x8b, 0x07, // mov eax, [edi]
        ],
        // The display's window.
        &[
            0x66, 0x89, 0xd7, // mov edi, edx
            0x66, 0x81, 0xe7, 0xff, 0xff, 0x01, 0x00, // and edi, 0x1ffff
            0x66, 0x81, 0xcf, 0x00, 0x00, 0x0a, 0x00, // or edi, 0xa0000
            0x67, 0x88, 0x1f, // mov [edi], bl
            0x67, 0x66, 0x8b, 0x07, // mov eax, [edi]
        ],
    ];
    for (n, action) in actions.iter().enumerate() {
        // cmp al, n; jne behind; action; jmp start
        code.extend([0x3c, n as u8, 0x75, action.len() as u8 + 3]);
        code.extend(*action);
        code.push(0xe9);
        code.extend((start as i16 - (code.len() as i16 + 2)).to_le_bytes());
    }
    assert!(code.len() <= 0x1e0, "{} bytes", code.len());
    code.resize(0x1e0, 0);
    // The descriptors: none, data of 4 GiB; and where they are.
    code.extend([0; 8]);
    code.extend([0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0]);
    code.extend([0x0f, 0x00, 0xe0, 0x7d, 0, 0]);
    code
}

/// How long each seed scribbles.
fn time() -> Duration {
    let soak = std::env::var_os("TULK_SOAK").is_some_and(|value| value == "yes");
    Duration::from_secs(if soak { 120 } else { 5 })
}

#[test]
fn a_scribbling_guest_harms_nobody() {
    if !firmware() {
        return;
    }
    for seed in [1, 0x1234_5678, 0xdead_beef, 0x8000_0001] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
        std::fs::write(at("boot"), boot_image(&scribbler(seed))).unwrap();
        for name in ["disk", "cd", "floppy"] {
            std::fs::write(at(name), vec![0x5a; 4 << 20]).unwrap();
        }
        std::fs::write(at("floppy"), vec![0x5a; 1440 << 10]).unwrap();
        let boot = format!("file={},format=raw,index=0", at("boot"));
        let disk = format!("file={},format=raw,if=none,id=d", at("disk"));
        let floppy = format!("file={},format=raw,if=floppy", at("floppy"));
        let cd = at("cd");
        let options = [
            "-no-reboot",
            "-snapshot",
            "-smp",
            "2",
            "-m",
            "64",
            "-boot",
            "c",
            "-drive",
            &boot,
            "-drive",
            &disk,
            "-drive",
            &floppy,
            "-cdrom",
            &cd,
            "-device",
            "virtio-blk-pci,drive=d",
            "-device",
            "virtio-net-pci",
            "-device",
            "e1000",
            "-device",
            "virtio-rng-pci",
            "-chardev",
            "null,id=c",
            "-device",
            "virtio-serial-pci",
            "-device",
            "virtconsole,chardev=c",
        ];
        let mut m = Machine::start(&options);
        m.serial_until(">");
        let start = Instant::now();
        let mut alive = true;
        while alive && start.elapsed() < time() {
            std::thread::sleep(Duration::from_millis(200));
            // It may have reset itself or powered off: then it has ended in order.
            alive = m.child.try_wait().unwrap().is_none();
            if !alive {
                break;
            }
            for command in
                ["info status", "info registers -a", "info pci", "info mtree", "info block"]
            {
                match m.try_ask(command) {
                    Some(answer) => assert!(!answer.is_empty(), "{seed:#x}: {command}"),
                    None => alive = false,
                }
                if !alive {
                    break;
                }
            }
        }
        let status = if alive { m.end("quit") } else { m.wait() };
        let errors = m.errors();
        assert_eq!(status, 0, "{seed:#x}: {errors}");
        assert!(!errors.contains("panicked"), "{seed:#x}: {errors}");
    }
}
