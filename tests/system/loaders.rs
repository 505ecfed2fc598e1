//! Boot loaders of others: ISOLINUX and GRUB on CDs and sticks, GRUB on a floppy; memtest86+ behind the kernel's boot
//! protocol.

use crate::console::Console;
use crate::support::initramfs::linux;
use crate::support::{cache, missing};
use crate::{firmware, soak, system};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a tool of a Debian package with these options; whether it is there. It must succeed.
pub fn tool(package: &str, command: &mut Command) -> bool {
    match command.output() {
        Err(_) => {
            missing(package);
            false
        }
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command:?}: {errors}");
            true
        }
    }
}

/// A kernel's boot options that a loader passes on.
const APPEND: &str = "console=ttyS0 quiet loglevel=1 panic=-1 by=loader";

/// A folder for a CD with the cloud kernel as `/linux` and an initial RAM disk `/initrd` that shows its command line,
/// and these files.
fn cd_content(files: &[(&str, &[u8])]) -> Option<tempfile::TempDir> {
    let script = "cat /proc/cmdline; echo END; poweroff -f";
    let (kernel, initrd) = linux("kernels", &[], script)?;
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(kernel, folder.path().join("linux")).unwrap();
    std::fs::copy(initrd.path(), folder.path().join("initrd")).unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    Some(folder)
}

/// Boots Linux from this CD, the only drive, and from the same image written on a disk.
fn cd_boots_linux(image: &Path) {
    let image = image.to_str().unwrap();
    let disk = format!("file={image},format=raw,if=virtio,readonly=on");
    for drive in [["-cdrom", image], ["-drive", &disk]].iter().take(if soak() { 2 } else { 1 }) {
        let run = system(300, &[&["-m", "256", "-no-reboot", "-nographic"], &drive[..]].concat());
        let text = run.text().replace('\r', "");
        assert_eq!(run.status, 0, "{drive:?}: {text}\n{}", run.errors());
        let shown = text.split_once("BEGIN\n").and_then(|(_, rest)| rest.split_once("\nEND\n"));
        let shown = shown.unwrap_or_else(|| panic!("{drive:?}: {text}")).0;
        assert!(shown.contains(APPEND), "{drive:?}: {shown}");
    }
}

#[test]
fn isolinux_cds_boot_linux() {
    if !firmware() {
        return;
    }
    let read = |path: &str| std::fs::read(Path::new("/usr/lib").join(path)).ok();
    let loader = read("ISOLINUX/isolinux.bin");
    let module = read("syslinux/modules/bios/ldlinux.c32");
    let (Some(loader), Some(module)) = (loader, module) else {
        return missing("isolinux and syslinux-common");
    };
    let config = format!(
        "SERIAL 0 115200\nDEFAULT linux\nLABEL linux\n KERNEL /linux\n APPEND initrd=/initrd {APPEND}\n"
    );
    let files = [
        ("isolinux/isolinux.bin", &loader[..]),
        ("isolinux/ldlinux.c32", &module),
        ("isolinux/isolinux.cfg", config.as_bytes()),
    ];
    let Some(folder) = cd_content(&files) else { return };
    let image = folder.path().with_extension("iso");
    let mut make = Command::new("xorriso");
    make.args(["-as", "mkisofs", "-quiet", "-b", "isolinux/isolinux.bin"]);
    make.args(["-c", "isolinux/boot.cat", "-no-emul-boot", "-boot-load-size", "4"]);
    make.args(["-boot-info-table", "-isohybrid-mbr", "/usr/lib/ISOLINUX/isohdpfx.bin", "-o"]);
    make.arg(&image).arg(folder.path());
    if tool("xorriso", &mut make) {
        cd_boots_linux(&image);
        std::fs::remove_file(image).unwrap();
    }
}

#[test]
fn grub_cds_boot_linux() {
    if !firmware() {
        return;
    }
    let config = format!(
        "serial --unit=0\nterminal_input serial\nterminal_output serial\n\
         linux /linux {APPEND}\ninitrd /initrd\nboot\n"
    );
    let Some(folder) = cd_content(&[("boot/grub/grub.cfg", config.as_bytes())]) else { return };
    let image = folder.path().with_extension("iso");
    let mut make = Command::new("grub-mkrescue");
    make.args(["-d", "/usr/lib/grub/i386-pc", "--locales=", "--fonts=", "--themes="]);
    make.args(["--install-modules=biosdisk iso9660 normal linux serial terminal boot", "-o"]);
    make.arg(&image).arg(folder.path());
    if tool("grub-pc-bin, grub-common and xorriso", &mut make) {
        cd_boots_linux(&image);
        std::fs::remove_file(image).unwrap();
    }
}

/// GRUB's own image with its commands built in: from the floppy's sectors to a reset.
#[test]
fn grub_starts_from_a_floppy() {
    if !firmware() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = "serial --unit=0\nterminal_output serial\necho GRUB reads $root\nls\nreboot\n";
    std::fs::write(at("config"), config).unwrap();
    let mut make = Command::new("grub-mkimage");
    make.args(["-O", "i386-pc", "-p", "/", "-c"]).arg(at("config")).arg("-o").arg(at("core"));
    make.args(["biosdisk", "serial", "terminal", "echo", "ls", "reboot"]);
    if !tool("grub-pc-bin and grub-common", &mut make) {
        return;
    }
    let mut floppy = std::fs::read("/usr/lib/grub/i386-pc/boot.img").unwrap();
    floppy.extend(std::fs::read(at("core")).unwrap());
    floppy.resize(1440 << 10, 0);
    std::fs::write(at("floppy"), floppy).unwrap();
    let image = at("floppy");
    let run = system(120, &["-no-reboot", "-nographic", "-fda", image.to_str().unwrap()]);
    assert_eq!(run.status, 0, "{}\n{}", run.text(), run.errors());
    assert!(run.text().contains("GRUB reads fd0"), "{}", run.text());
    assert!(run.text().contains("(fd0)"), "{}", run.text());
}

/// One pass over a small machine's memory, in long mode and in protected mode with two processors.
#[test]
fn memtest86_passes() {
    if !soak() || !firmware() {
        return;
    }
    for (kernel, processors) in [("memtest86+x64.bin", "1"), ("memtest86+ia32.bin", "2")] {
        let kernel: PathBuf = cache().join("memtest/boot").join(kernel);
        if !kernel.exists() {
            return missing("Debian's memtest86+ (tests/packages)");
        }
        let kernel = kernel.to_str().unwrap();
        let append = "console=ttyS0,115200";
        let options = ["-m", "16", "-smp", processors, "-kernel", kernel, "-append", append];
        let mut console = Console::start(&options);
        console.expect("Memtest86+", 60);
        let before = console.expect("Pass:  1 ", 1200);
        assert!(before.contains("Errors: 0 "), "{before}");
        console.expect("Errors: 0 ", 60);
    }
}

/// A CD made of one bootable floppy's image (El Torito's emulation of floppies).
pub fn cd_of_floppy(floppy: &[u8]) -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let content = folder.path().join("content");
    std::fs::create_dir(&content).unwrap();
    std::fs::write(content.join("floppy.img"), floppy).unwrap();
    let mut make = Command::new("xorriso");
    make.args(["-as", "mkisofs", "-quiet", "-b", "floppy.img", "-c", "boot.cat", "-o"]);
    make.arg(folder.path().join("cd.iso")).arg(content);
    tool("xorriso", &mut make).then_some(folder)
}
