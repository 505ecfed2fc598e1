//! The PC: memory map, interrupt map, board, firmware tables.
#![deny(unsafe_code)]
