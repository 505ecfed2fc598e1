//! AdvSIMD: the lift functions, one file per encoding group of the manual (C4.1.96), and the helpers of what is
//! too odd or too rare for IR operations.

pub mod across;
pub mod by_element;
pub mod copy;
pub mod float;
pub mod helpers;
pub mod load_store;
pub mod modified_imm;
pub mod permute;
pub mod shift_imm;
pub mod three_diff;
pub mod three_extra;
pub mod three_same;
pub mod two_reg_misc;

pub use helpers::HELPERS;

/// The lift functions under their rows' names.
pub mod lift {
    pub use super::across::*;
    pub use super::by_element::*;
    pub use super::copy::*;
    pub use super::float::*;
    pub use super::load_store::*;
    pub use super::modified_imm::*;
    pub use super::permute::*;
    pub use super::shift_imm::*;
    pub use super::three_diff::*;
    pub use super::three_extra::*;
    pub use super::three_same::*;
    pub use super::two_reg_misc::*;
}
