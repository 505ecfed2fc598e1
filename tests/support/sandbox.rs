//! A chroot into one of the sysroots that `tests/packages` unpacks, in a mount namespace of its own: `/proc`, `/dev`,
//! the work folder as `/mnt`, and tulk's one file as `/tulk`.

use super::{Run, cache, finish, missing, tulk};
use std::path::Path;
use std::process::Command;

/// Where tulk runs a program from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Inside the sysroot.
    Chroot,
    /// Outside, with `-L SYSROOT`.
    Sysroot,
}

/// The work folder inside.
pub const WORK: &str = "/mnt";

/// All that the programs find in their environment.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"),
    ("HOME", WORK),
    ("LC_ALL", "C.UTF-8"),
    ("TZ", "UTC"),
];

/// A sysroot, and the folder that is its `/mnt`.
pub struct Root<'a> {
    pub arch: &'a str,
    pub work: &'a Path,
}

const ENTER: &str = r#"
mount --rbind /proc "$ROOT/proc" && mount --rbind /dev "$ROOT/dev" && mount --bind "$WORK" "$ROOT/mnt" &&
mount --bind "$TULK" "$ROOT/tulk" && root=$ROOT && unset ROOT WORK TULK &&
exec chroot "$root" "$@""#;

/// These sysroots and the right to enter them; says what is missing.
pub fn available(archs: &[&str]) -> bool {
    let there = archs.iter().all(|arch| cache().join(format!("sysroot-{arch}/.unpacked")).exists());
    if !there {
        missing("the set of Debian programs (tests/packages)");
        return false;
    }
    let enter = Command::new("unshare").args(NAMESPACE).arg("true").output();
    if !enter.is_ok_and(|o| o.status.success()) {
        missing("the right to make a mount namespace (unshare)");
        return false;
    }
    true
}

/// A user namespace makes its maker root there, so that no rights are needed.
const NAMESPACE: &[&str] = &["--map-root-user", "--mount", "--propagation", "private"];

impl Root<'_> {
    /// Runs `prefix command...` inside, in the work folder; killed after ten minutes.
    pub fn run(&self, prefix: &[&str], command: &[String]) -> Run {
        let mut run = Command::new("timeout");
        run.args(["--signal=KILL", "600", "unshare"]).args(NAMESPACE);
        run.args(["sh", "-c", ENTER, "sh"]).args(prefix);
        run.args(["/usr/bin/env", "-C", WORK]).args(command);
        run.env_clear().envs(ENVIRONMENT.iter().copied());
        run.env("ROOT", cache().join(format!("sysroot-{}", self.arch)));
        run.env("WORK", self.work).env("TULK", tulk());
        finish(run)
    }
}
