//! Debugging through the GDB remote protocol, on the `gdbstub` crate.
#![forbid(unsafe_code)]
