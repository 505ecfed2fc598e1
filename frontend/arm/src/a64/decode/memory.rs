//! Loads and stores other than ordered, exclusive and atomic ones (those are in `atomic`) and of AdvSIMD
//! structures (in `simd`): chapter C4.1 "Loads and Stores".
//!
//! Names: `_fp` loads or stores a B, H, S or D register, `_q` a Q register; `_uimm` scaled offset, `_post` and
//! `_pre` with writeback, `_reg` register offset, `_lit` pc-relative; `ldrs` sign-extends to 64 bits, `ldrs_w` to
//! 32. The tagged-memory (MTE) and pointer-authentication members have no rows.

use super::{Insn, table};
use crate::a64::memory as lift;

/// Only 32-bit and 64-bit offsets exist.
const fn word_offset(i: Insn) -> bool {
    i.option() & 2 != 0
}

table! {
    "Load register (literal)" {
        ldr_lit     "0 sz:1 011 0 00 imm19:19 rt:5";
        ldrsw_lit   "10 011 0 00 imm19:19 rt:5";
        prfm_lit    "11 011 0 00 imm19:19 rt:5";
        ldr_fp_lit  "size:2 011 1 00 imm19:19 rt:5" [Fp] if |i| i.size() != 3;
    }
    "Load/store no-allocate pair (offset)" {
        stnp     "sf:1 0 101 0 000 0 imm7:7 rt2:5 rn:5 rt:5";
        ldnp     "sf:1 0 101 0 000 1 imm7:7 rt2:5 rn:5 rt:5";
        stnp_fp  "size:2 101 1 000 0 imm7:7 rt2:5 rn:5 rt:5" [Fp] if |i| i.size() != 3;
        ldnp_fp  "size:2 101 1 000 1 imm7:7 rt2:5 rn:5 rt:5" [Fp] if |i| i.size() != 3;
    }
    "Load/store register pair (post-indexed)" {
        stp_post     "sf:1 0 101 0 001 0 imm7:7 rt2:5 rn:5 rt:5";
        ldp_post     "sf:1 0 101 0 001 1 imm7:7 rt2:5 rn:5 rt:5";
        ldpsw_post   "01 101 0 001 1 imm7:7 rt2:5 rn:5 rt:5";
        stp_fp_post  "size:2 101 1 001 0 imm7:7 rt2:5 rn:5 rt:5" [Fp] if |i| i.size() != 3;
        ldp_fp_post  "size:2 101 1 001 1 imm7:7 rt2:5 rn:5 rt:5" [Fp] if |i| i.size() != 3;
    }
    "Load/store register pair (offset)" {
        stp     "sf:1 0 101 0 010 0 imm7:7 rt2:5 rn:5 rt:5";
        ldp     "sf:1 0 101 0 010 1 imm7:7 rt2:5 rn:5 rt:5";
        ldpsw   "01 101 0 010 1 imm7:7 rt2:5 rn:5 rt:5";
        stp_fp  "size:2 101 1 010 0 imm7:7 rt2:5 rn:5 rt:5" [Fp] if |i| i.size() != 3;
        ldp_fp  "size:2 101 1 010 1 imm7:7 rt2:5 rn:5 rt:5" [Fp] if |i| i.size() != 3;
    }
    "Load/store register pair (pre-indexed)" {
        stp_pre     "sf:1 0 101 0 011 0 imm7:7 rt2:5 rn:5 rt:5";
        ldp_pre     "sf:1 0 101 0 011 1 imm7:7 rt2:5 rn:5 rt:5";
        ldpsw_pre   "01 101 0 011 1 imm7:7 rt2:5 rn:5 rt:5";
        stp_fp_pre  "size:2 101 1 011 0 imm7:7 rt2:5 rn:5 rt:5" [Fp] if |i| i.size() != 3;
        ldp_fp_pre  "size:2 101 1 011 1 imm7:7 rt2:5 rn:5 rt:5" [Fp] if |i| i.size() != 3;
    }
    "Load/store register (unscaled immediate)" {
        stur     "size:2 111 0 00 00 0 imm9:9 00 rn:5 rt:5";
        ldur     "size:2 111 0 00 01 0 imm9:9 00 rn:5 rt:5";
        ldurs    "size:2 111 0 00 10 0 imm9:9 00 rn:5 rt:5" if |i| i.size() != 3;
        ldurs_w  "size:2 111 0 00 11 0 imm9:9 00 rn:5 rt:5" if |i| i.size() < 2;
        prfum    "11 111 0 00 10 0 imm9:9 00 rn:5 rt:5";
        stur_fp  "size:2 111 1 00 00 0 imm9:9 00 rn:5 rt:5" [Fp];
        ldur_fp  "size:2 111 1 00 01 0 imm9:9 00 rn:5 rt:5" [Fp];
        stur_q   "00 111 1 00 10 0 imm9:9 00 rn:5 rt:5" [Fp];
        ldur_q   "00 111 1 00 11 0 imm9:9 00 rn:5 rt:5" [Fp];
    }
    "Load/store register (immediate post-indexed)" {
        str_post     "size:2 111 0 00 00 0 imm9:9 01 rn:5 rt:5";
        ldr_post     "size:2 111 0 00 01 0 imm9:9 01 rn:5 rt:5";
        ldrs_post    "size:2 111 0 00 10 0 imm9:9 01 rn:5 rt:5" if |i| i.size() != 3;
        ldrs_w_post  "size:2 111 0 00 11 0 imm9:9 01 rn:5 rt:5" if |i| i.size() < 2;
        str_fp_post  "size:2 111 1 00 00 0 imm9:9 01 rn:5 rt:5" [Fp];
        ldr_fp_post  "size:2 111 1 00 01 0 imm9:9 01 rn:5 rt:5" [Fp];
        str_q_post   "00 111 1 00 10 0 imm9:9 01 rn:5 rt:5" [Fp];
        ldr_q_post   "00 111 1 00 11 0 imm9:9 01 rn:5 rt:5" [Fp];
    }
    "Load/store register (unprivileged)" {
        sttr     "size:2 111 0 00 00 0 imm9:9 10 rn:5 rt:5";
        ldtr     "size:2 111 0 00 01 0 imm9:9 10 rn:5 rt:5";
        ldtrs    "size:2 111 0 00 10 0 imm9:9 10 rn:5 rt:5" if |i| i.size() != 3;
        ldtrs_w  "size:2 111 0 00 11 0 imm9:9 10 rn:5 rt:5" if |i| i.size() < 2;
    }
    "Load/store register (immediate pre-indexed)" {
        str_pre     "size:2 111 0 00 00 0 imm9:9 11 rn:5 rt:5";
        ldr_pre     "size:2 111 0 00 01 0 imm9:9 11 rn:5 rt:5";
        ldrs_pre    "size:2 111 0 00 10 0 imm9:9 11 rn:5 rt:5" if |i| i.size() != 3;
        ldrs_w_pre  "size:2 111 0 00 11 0 imm9:9 11 rn:5 rt:5" if |i| i.size() < 2;
        str_fp_pre  "size:2 111 1 00 00 0 imm9:9 11 rn:5 rt:5" [Fp];
        ldr_fp_pre  "size:2 111 1 00 01 0 imm9:9 11 rn:5 rt:5" [Fp];
        str_q_pre   "00 111 1 00 10 0 imm9:9 11 rn:5 rt:5" [Fp];
        ldr_q_pre   "00 111 1 00 11 0 imm9:9 11 rn:5 rt:5" [Fp];
    }
    "Load/store register (register offset)" {
        str_reg     "size:2 111 0 00 00 1 rm:5 option:3 s:1 10 rn:5 rt:5" if word_offset;
        ldr_reg     "size:2 111 0 00 01 1 rm:5 option:3 s:1 10 rn:5 rt:5" if word_offset;
        ldrs_reg    "size:2 111 0 00 10 1 rm:5 option:3 s:1 10 rn:5 rt:5"
            if |i| word_offset(i) && i.size() != 3;
        ldrs_w_reg  "size:2 111 0 00 11 1 rm:5 option:3 s:1 10 rn:5 rt:5"
            if |i| word_offset(i) && i.size() < 2;
        prfm_reg    "11 111 0 00 10 1 rm:5 option:3 s:1 10 rn:5 rt:5" if word_offset;
        str_fp_reg  "size:2 111 1 00 00 1 rm:5 option:3 s:1 10 rn:5 rt:5" [Fp] if word_offset;
        ldr_fp_reg  "size:2 111 1 00 01 1 rm:5 option:3 s:1 10 rn:5 rt:5" [Fp] if word_offset;
        str_q_reg   "00 111 1 00 10 1 rm:5 option:3 s:1 10 rn:5 rt:5" [Fp] if word_offset;
        ldr_q_reg   "00 111 1 00 11 1 rm:5 option:3 s:1 10 rn:5 rt:5" [Fp] if word_offset;
    }
    "Load/store register (unsigned immediate)" {
        str_uimm     "size:2 111 0 01 00 imm12:12 rn:5 rt:5";
        ldr_uimm     "size:2 111 0 01 01 imm12:12 rn:5 rt:5";
        ldrs_uimm    "size:2 111 0 01 10 imm12:12 rn:5 rt:5" if |i| i.size() != 3;
        ldrs_w_uimm  "size:2 111 0 01 11 imm12:12 rn:5 rt:5" if |i| i.size() < 2;
        prfm_uimm    "11 111 0 01 10 imm12:12 rn:5 rt:5";
        str_fp_uimm  "size:2 111 1 01 00 imm12:12 rn:5 rt:5" [Fp];
        ldr_fp_uimm  "size:2 111 1 01 01 imm12:12 rn:5 rt:5" [Fp];
        str_q_uimm   "00 111 1 01 10 imm12:12 rn:5 rt:5" [Fp];
        ldr_q_uimm   "00 111 1 01 11 imm12:12 rn:5 rt:5" [Fp];
    }
}
