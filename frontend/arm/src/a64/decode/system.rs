//! Hints, barriers, PSTATE and system registers: chapter C4.1 "Branches, Exception Generating and System
//! instructions".
//!
//! Of the SYS instructions only the cache operations that EL0 may use have rows; all others are undefined at
//! EL0. MRS and MSR of a register that EL0 cannot reach lift to an undefined instruction. All hints that are not
//! known are no operations by definition, which covers BTI, PACIASP and their like.

use super::table;
use crate::a64::system as lift;

table! {
    "Hints" {
        hint  "1101010100 0 00 011 0010 crm:4 op2:3 11111";
    }
    "Barriers" {
        clrex  "1101010100 0 00 011 0011 crm:4 010 11111";
        dsb    "1101010100 0 00 011 0011 crm:4 100 11111";
        dmb    "1101010100 0 00 011 0011 crm:4 101 11111";
        isb    "1101010100 0 00 011 0011 crm:4 110 11111";
        sb     "1101010100 0 00 011 0011 (0000) 111 11111" [Sb];
    }
    "PSTATE" {
        cfinv         "1101010100 0 00 000 0100 (0000) 000 11111" [Flagm];
        xaflag        "1101010100 0 00 000 0100 (0000) 001 11111" [Flagm2];
        axflag        "1101010100 0 00 000 0100 (0000) 010 11111" [Flagm2];
        msr_ssbs_imm  "1101010100 0 00 011 0100 crm:4 001 11111" [Ssbs];
        msr_dit_imm   "1101010100 0 00 011 0100 crm:4 010 11111" [Dit];
    }
    "System instructions" {
        dc_zva    "1101010100 0 01 011 0111 0100 001 rt:5";
        ic_ivau   "1101010100 0 01 011 0111 0101 001 rt:5";
        dc_cvac   "1101010100 0 01 011 0111 1010 001 rt:5";
        dc_cvau   "1101010100 0 01 011 0111 1011 001 rt:5";
        dc_cvap   "1101010100 0 01 011 0111 1100 001 rt:5" [Dpb];
        dc_cvadp  "1101010100 0 01 011 0111 1101 001 rt:5" [Dpb2];
        dc_civac  "1101010100 0 01 011 0111 1110 001 rt:5";
    }
    "System register move" {
        msr  "1101010100 0 1 o0:1 op1:3 crn:4 crm:4 op2:3 rt:5";
        mrs  "1101010100 1 1 o0:1 op1:3 crn:4 crm:4 op2:3 rt:5";
    }
}
