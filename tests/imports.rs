//! Who may import whom: the table of `docs/architecture.md` against `cargo metadata`.

use std::collections::BTreeMap;
use std::process::Command;

/// Crate and the crates of ours that it may depend on. Development dependencies are free.
const TABLE: &[(&str, &[&str])] = &[
    ("tulk-base", &[]),
    ("tulk-softfloat", &[]),
    ("tulk-ir", &["tulk-base", "tulk-softfloat"]),
    ("tulk-softmmu", &["tulk-base"]),
    ("tulk-frontend", &["tulk-base", "tulk-ir"]),
    ("tulk-arm", &["tulk-base", "tulk-ir", "tulk-frontend", "tulk-softfloat"]),
    ("tulk-x86", &["tulk-base", "tulk-ir", "tulk-frontend", "tulk-softfloat"]),
    ("tulk-codegen", &["tulk-base", "tulk-ir"]),
    ("tulk-exec", &["tulk-base", "tulk-ir", "tulk-frontend", "tulk-softmmu", "tulk-codegen"]),
    (
        "tulk-linux-user",
        &[
            "tulk-base",
            "tulk-frontend",
            "tulk-arm",
            "tulk-x86",
            "tulk-softmmu",
            "tulk-exec",
            "tulk-gdb",
        ],
    ),
    ("tulk-hw", &["tulk-base", "tulk-softmmu"]),
    ("tulk-block", &["tulk-base"]),
    ("tulk-net", &["tulk-base"]),
    ("tulk-ui", &["tulk-base"]),
    ("tulk-devices", &["tulk-base", "tulk-hw", "tulk-block", "tulk-net", "tulk-ui"]),
    (
        "tulk-pc",
        &[
            "tulk-base",
            "tulk-softmmu",
            "tulk-hw",
            "tulk-block",
            "tulk-net",
            "tulk-ui",
            "tulk-devices",
        ],
    ),
    ("tulk-gdb", &["tulk-base", "tulk-ir", "tulk-frontend", "tulk-exec"]),
    // Whatever reads what came from outside.
    (
        "tulk-fuzz",
        &[
            "tulk-base",
            "tulk-ir",
            "tulk-frontend",
            "tulk-arm",
            "tulk-x86",
            "tulk-softmmu",
            "tulk-linux-user",
            "tulk-gdb",
        ],
    ),
];

#[test]
fn crates_import_only_what_the_table_allows() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let allowed: BTreeMap<_, _> = TABLE.iter().copied().collect();
    let mut seen = 0;
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name");
        if name == "tulk" {
            continue; // the command may import all
        }
        let allowed = allowed.get(name).unwrap_or_else(|| panic!("{name} has no row in the table"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let on = dependency["name"].as_str().expect("name");
            if on.starts_with("tulk-") && dependency["kind"].is_null() {
                assert!(allowed.contains(&on), "{name} must not import {on}");
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "the metadata names hardly any dependency");
}
