//! Tests that execute generated code on this host.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod baseline;
mod filetests;
mod machine;
mod paged;
mod quality;
mod random;
mod reference;
mod regions;
mod rows;
