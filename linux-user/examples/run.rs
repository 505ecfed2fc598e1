//! `run [-L SYSROOT] [-strace] [-interp] PROGRAM [ARGS]`: the smallest front for [`tulk_linux_user::run`].

use std::env::args_os;
use tulk_linux_user::{Options, run};

fn main() {
    let mut args = args_os().skip(1);
    let mut options = Options::new("");
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("-L") => options.sysroot = args.next().map(Into::into),
            Some("-strace") => options.strace = true,
            Some("-interp") => options.engine.tier = tulk_exec::Tier::Interp,
            Some("-seed") => options.seed = Some(1),
            _ => {
                options.program = arg.into();
                break;
            }
        }
    }
    options.args = args.collect();
    let error = run(options);
    eprintln!("tulk: {error}");
    std::process::exit(error.exit_code());
}
