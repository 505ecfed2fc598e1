//! Root file systems on disks.

use crate::initramfs::{modules, start};
use crate::soak;
use crate::support::{cache, finish, missing, tulk};
use std::process::Command;

/// A disk of one partition (MBR) with an ext4 file system of busybox and this `/sbin/init`; `None` without e2fsprogs.
fn disk(folder: &str, init: &str) -> Option<Vec<u8>> {
    let tree = tempfile::tempdir().unwrap();
    for name in ["bin", "dev", "proc", "sbin"] {
        std::fs::create_dir(tree.path().join(name)).unwrap();
    }
    let (busybox, script) = (tree.path().join("bin/busybox"), tree.path().join("sbin/init"));
    std::fs::copy(cache().join(folder).join("bin/busybox"), busybox).ok()?;
    std::os::unix::fs::symlink("busybox", tree.path().join("bin/sh")).unwrap();
    std::fs::write(&script, init).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let part = tempfile::NamedTempFile::new().unwrap();
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-F", "-t", "ext4", "-d"]).args([tree.path(), part.path()]).arg("47m");
    if !make.status().is_ok_and(|status| status.success()) {
        missing("mke2fs of e2fsprogs");
        return None;
    }
    let mut disk = vec![0; 1 << 20];
    let content = std::fs::read(part.path()).unwrap();
    let sectors = (content.len() / 512) as u32;
    disk[446..454].copy_from_slice(&[0x80, 0, 2, 0, 0x83, 0xff, 0xff, 0xff]);
    disk[454..458].copy_from_slice(&2048u32.to_le_bytes());
    disk[458..462].copy_from_slice(&sectors.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk.extend(content);
    Some(disk)
}

/// The modules of the cloud kernel that disks need, in the order to load them.
const MODULES: [&str; 11] = [
    "drivers/scsi/scsi_common",
    "drivers/scsi/scsi_mod",
    "drivers/scsi/sd_mod",
    "drivers/ata/libata",
    "drivers/ata/ata_piix",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
];

/// The root file system on a disk is written, and clean after power off.
#[test]
fn linux_runs_from_disks() {
    let init = "#!/bin/sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\nmkdir /data\n\
        seq 1 200000 >/data/numbers\nfor i in $(seq 1 50); do echo $i >/data/f$i; done\nrm /data/f7\n\
        sync\nmount -t proc proc /proc\necho 3 >/proc/sys/vm/drop_caches\nsha256sum </data/numbers\n\
        mount -o remount,ro /\necho END\npoweroff -f\n";
    let Some(files) = modules("kernels", &MODULES) else {
        missing("Debian's cloud kernel");
        return;
    };
    let Some(content) = disk("kernels", init) else { return };
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    let script = format!(
        "for m in {}; do insmod /bin/$m; done\n\
         for i in 1 2 3 4 5; do [ -b /dev/${{DISK}}1 ] || sleep 1; done\n\
         mount /dev/${{DISK}}1 /mnt\nexec switch_root /mnt /sbin/init\n",
        names.join(" ")
    );
    let all = [("raw", "ide", "sda"), ("qcow2", "virtio", "vda"), ("raw", "virtio", "vda")];
    for (format, interface, name) in all.into_iter().take(if soak() { 3 } else { 2 }) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
        let (raw, image) = (at("disk.raw"), at("disk"));
        std::fs::write(&raw, &content).unwrap();
        let convert = |from: &str, old: &str, to: &str, new: &str| {
            let mut command = Command::new(tulk());
            command.args(["img", "convert", "-f", from, "-O", to, old, new]);
            let run = finish(command);
            assert_eq!(run.status, 0, "{}", run.errors());
        };
        convert("raw", &raw, format, &image);
        let drive = format!("file={image},format={format},if={interface}");
        let options = ["-no-reboot", "-drive", &drive];
        let words = format!("DISK={name}");
        let Some(run) = start("kernels", &words, &options, &files, &script) else { return };
        assert_eq!(run.status, 0, "{drive}: {}\n{}", run.text(), run.errors());
        let mut expected = Command::new("sh");
        expected.args(["-c", "seq 1 200000 | sha256sum"]);
        let expected = finish(expected).text();
        assert!(run.text().contains(expected.trim()), "{drive}: {}", run.text());
        convert(format, &image, "raw", &raw);
        let part = at("part");
        std::fs::write(&part, &std::fs::read(&raw).unwrap()[1 << 20..]).unwrap();
        let mut check = Command::new("e2fsck");
        check.args(["-fn", &part]);
        let check = finish(check);
        assert_eq!(check.status, 0, "{drive}: {}", check.text());
        let mut list = Command::new("debugfs");
        list.args(["-R", "cat /data/f50", &part]);
        assert_eq!(finish(list).text(), "50\n", "{drive}");
    }
}
