//! Emulated chips: `CLASS/CHIP.rs`. Each is a plain value behind `tulk_hw::Device`, tested without a board.
#![forbid(unsafe_code)]
