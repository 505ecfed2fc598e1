//! Branches and exception generation: chapter C4.1 "Branches, Exception Generating and System instructions".
//!
//! UDF, HLT, HVC, SMC, DCPS1 to DCPS3, ERET and DRPS have no rows: all are undefined at EL0 (HLT because halting
//! debug is off), and Linux answers each with SIGILL. The branches with pointer authentication have none either.

use super::table;
use crate::a64::branch as lift;

table! {
    "Unconditional branch (immediate)" {
        b   "0 00101 imm26:26";
        bl  "1 00101 imm26:26";
    }
    "Compare and branch (immediate)" {
        cbz   "sf:1 011010 0 imm19:19 rt:5";
        cbnz  "sf:1 011010 1 imm19:19 rt:5";
    }
    "Test and branch (immediate)" {
        tbz   "b5:1 011011 0 b40:5 imm14:14 rt:5";
        tbnz  "b5:1 011011 1 b40:5 imm14:14 rt:5";
    }
    "Conditional branch (immediate)" {
        b_cond  "0101010 0 imm19:19 0 bcond:4";
    }
    "Unconditional branch (register)" {
        br   "1101011 0000 11111 000000 rn:5 00000";
        blr  "1101011 0001 11111 000000 rn:5 00000";
        ret  "1101011 0010 11111 000000 rn:5 00000";
    }
    "Exception generation" {
        svc  "11010100 000 imm16:16 000 01";
        brk  "11010100 001 imm16:16 000 00";
    }
}
