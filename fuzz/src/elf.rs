//! A program file, opened, checked and mapped; not run.

use std::ffi::CString;
use std::io::Write;
use tulk_base::GuestVa;
use tulk_linux_user::paths::Paths;
use tulk_linux_user::program;
use tulk_softmmu::UserSpace;

pub fn seeds() -> Vec<Vec<u8>> {
    vec![include_bytes!("../../src/demo/aarch64.elf").to_vec()]
}

pub fn run(data: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(data).expect("room for a temporary file");
    let paths = Paths::new(None).expect("paths without a sysroot");
    let name = CString::new("program").expect("no NUL");
    match program::open(&paths, file.path(), vec![name]) {
        Ok(program) => map(&program),
        // Every refusal has its line and its exit code.
        Err(e) => {
            let text = e.to_string();
            assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
            assert!((1..=127).contains(&e.exit_code()));
            assert!(e.errno().0 > 0);
        }
    }
}

fn map(program: &program::Program) {
    let space = UserSpace::flat().expect("an address space");
    let loaded = program::load(&space, program, None);
    if let Ok(loaded) = loaded {
        assert!(space.is_mapped(GuestVa(loaded.brk - 1), 1) || loaded.base != 0);
    }
    for region in space.regions() {
        space.unmap(GuestVa(region.start), region.end - region.start).expect("what is mapped");
    }
}
