//! `tulk img` and `qemu-img` side by side: same output, same exit codes, the same bytes.

mod support;

use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};
use support::{missing, tulk};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }
    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn ours(&self, line: &str) -> Output {
        let mut command = Command::new(tulk());
        command.arg("img").args(line.split(' ')).current_dir(self.0.path());
        command.output().unwrap()
    }
    fn theirs(&self, line: &str) -> Option<Output> {
        let mut output = Command::new("qemu-img");
        output.args(line.split(' ')).current_dir(self.0.path());
        let output = output.output().ok();
        if output.is_none() {
            missing("qemu-img");
        }
        output
    }
    fn good(&self, line: &str) -> String {
        let output = self.ours(line);
        assert!(output.status.success(), "{line}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    }
    /// Runs a line that fails, with one line of explanation.
    fn bad(&self, line: &str, code: i32, want: &str) {
        let output = self.ours(line);
        let text = errors(&output);
        assert_eq!(output.status.code(), Some(code), "{line}: {text}");
        assert!(text.contains(want) && text.trim_end().lines().count() == 1, "{line}: {text}");
    }
    /// Both say and return the same.
    fn same(&self, line: &str) {
        let Some(theirs) = self.theirs(line) else { return };
        let ours = self.ours(line);
        assert_eq!(ours.status.code(), theirs.status.code(), "{line}: {}", errors(&ours));
        let text = |o: &Output| String::from_utf8_lossy(&o.stdout).into_owned();
        if line.contains("json") {
            let parse = |o| serde_json::from_str::<Value>(&text(o)).unwrap();
            assert_eq!(parse(&ours), parse(&theirs), "{line}");
        } else {
            assert_eq!(text(&ours), text(&theirs), "{line}");
        }
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_is_printed_is_what_scripts_know() {
    let folder = Folder::new();
    folder.good("create -f qcow2 -o cluster_size=4k base.qcow2 100M");
    folder.good("create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2");
    folder.good("create plain.img 1.5M");
    std::fs::create_dir(folder.file("sub")).unwrap();
    folder.good("create -f qcow2 -b ../plain.img -F raw sub/top.qcow2");
    for line in [
        "info base.qcow2",
        "info top.qcow2",
        "info sub/top.qcow2",
        "info plain.img",
        "info --backing-chain top.qcow2",
        "info --output=json top.qcow2",
        "info --output=json plain.img",
        "info --output=json --backing-chain sub/top.qcow2",
        "check base.qcow2",
        "check -q top.qcow2",
        "check --output=json sub/top.qcow2",
        "check plain.img",
        "check none.img",
        "info none.img",
        "snapshot -l base.qcow2",
        "compare base.qcow2 top.qcow2",
        "compare -s plain.img base.qcow2",
        "compare plain.img base.qcow2",
        "compare plain.img none.img",
    ] {
        folder.same(line);
    }
}

#[test]
fn conversions_keep_every_byte() {
    let folder = Folder::new();
    let mut data = vec![0; 5 << 20];
    for (i, byte) in data[1 << 20..][..700_000].iter_mut().enumerate() {
        *byte = (i * 7 + i / 512) as u8;
    }
    std::fs::write(folder.file("a.img"), &data).unwrap();
    folder.good("convert -f raw -O qcow2 -o cluster_size=8k a.img b.qcow2");
    folder.good("convert -p -S 0 -O qcow2 b.qcow2 c.qcow2");
    folder.good("convert -t none -T writeback c.qcow2 d.img");
    assert!(std::fs::read(folder.file("d.img")).unwrap() == data);
    for name in ["b.qcow2", "c.qcow2"] {
        folder.same(&format!("check {name}"));
        folder.same(&format!("compare a.img {name}"));
    }
    if folder.theirs("convert -c -O qcow2 a.img e.qcow2").is_some() {
        folder.same("check e.qcow2");
        folder.good("convert -n -O raw e.qcow2 d.img");
        assert!(std::fs::read(folder.file("d.img")).unwrap() == data);
        // Damage has its exit code.
        let mut bad = std::fs::read(folder.file("b.qcow2")).unwrap();
        let table = u64::from_be_bytes(bad[48..56].try_into().unwrap()) as usize;
        let block = u64::from_be_bytes(bad[table..table + 8].try_into().unwrap()) as usize;
        bad[block + 20..block + 22].copy_from_slice(&[0, 0]);
        std::fs::write(folder.file("bad.qcow2"), &bad).unwrap();
        let theirs = folder.theirs("check bad.qcow2").unwrap();
        assert_eq!(folder.ours("check bad.qcow2").status.code(), theirs.status.code());
        assert_eq!(theirs.status.code(), Some(2));
    }
    folder.good("resize d.img +1M");
    folder.good("resize c.qcow2 +1M");
    folder.same("compare -s d.img c.qcow2");
    folder.good("resize --shrink d.img -2M");
    assert_eq!(std::fs::metadata(folder.file("d.img")).unwrap().len(), 4 << 20);
}

#[test]
fn mistakes_are_explained_and_change_nothing() {
    let folder = Folder::new();
    folder.good("create -q -f qcow2 a.qcow2 1M");
    let before = std::fs::read(folder.file("a.qcow2")).unwrap();
    folder.bad("convert -c -O qcow2 a.qcow2 b.qcow2", 1, "-c is not supported");
    folder.bad("convert -O qcow2 a.qcow2 a.qcow2", 1, "in use");
    folder.bad("check -r all a.qcow2", 1, "-r all is not supported");
    folder.bad("resize a.qcow2 1k", 1, "--shrink");
    folder.bad("snapshot -c x a.qcow2", 1, "-c is not supported");
    folder.bad("create -f qcow2 -b none -F raw b.qcow2", 1, "No such file");
    folder.bad("create -f qcow2 -b a.qcow2 b.qcow2", 1, "-F");
    folder.bad("create -f qcow2 b.qcow2", 1, "size");
    folder.bad("create -f qcow2 -o cluster_size=3k b.qcow2 1M", 1, "cluster_size");
    folder.bad("create -f qcow2 -o nonsense=1 b.qcow2 1M", 1, "nonsense");
    folder.bad("create -f qcow2 -o compat=0.10 b.qcow2 1M", 1, "not supported");
    folder.bad("info .", 1, "a directory");
    assert!(!folder.file("b.qcow2").exists());
    assert!(std::fs::read(folder.file("a.qcow2")).unwrap() == before);
}

#[test]
fn the_name_qemu_img_is_understood() {
    let folder = Folder::new();
    std::os::unix::fs::symlink(tulk(), folder.file("qemu-img")).unwrap();
    let run = |line: &str| {
        let mut command = Command::new(folder.file("qemu-img"));
        command.args(line.split(' ')).current_dir(folder.0.path()).output().unwrap()
    };
    assert!(run("create -f qcow2 a.qcow2 1M").status.success());
    let text = String::from_utf8(run("info a.qcow2").stdout).unwrap();
    assert!(text.contains("file format: qcow2"), "{text}");
    assert!(run("--version").status.success());
}
