//! Exclusive, ordered and atomic memory accesses: chapter C4.1 "Loads and Stores", the classes named below.
//!
//! `excl_ord` is the acquire (load) or release (store) bit of an exclusive access, `acq` and `rel` those of an
//! atomic operation. LDLAR and STLLR came with ARMv8.1 like the LSE atomics, so their rows carry that feature.

use super::table;
use crate::a64::atomic as lift;

table! {
    "Load/store exclusive register" {
        stxr  "size:2 001000 0 0 0 rs:5 excl_ord:1 (11111) rn:5 rt:5";
        ldxr  "size:2 001000 0 1 0 (11111) excl_ord:1 (11111) rn:5 rt:5";
    }
    "Load/store exclusive pair" {
        stxp  "1 sz:1 001000 0 0 1 rs:5 excl_ord:1 rt2:5 rn:5 rt:5";
        ldxp  "1 sz:1 001000 0 1 1 (11111) excl_ord:1 rt2:5 rn:5 rt:5";
    }
    "Load/store ordered" {
        stllr  "size:2 001000 1 0 0 (11111) 0 (11111) rn:5 rt:5" [Lse];
        stlr   "size:2 001000 1 0 0 (11111) 1 (11111) rn:5 rt:5";
        ldlar  "size:2 001000 1 1 0 (11111) 0 (11111) rn:5 rt:5" [Lse];
        ldar   "size:2 001000 1 1 0 (11111) 1 (11111) rn:5 rt:5";
    }
    "Compare and swap pair" {
        casp  "0 sz:1 001000 0 cas_acq:1 1 rs:5 cas_rel:1 11111 rn:5 rt:5" [Lse]
            if |i| i.rs() & 1 == 0 && i.rt() & 1 == 0;
    }
    "Compare and swap" {
        cas  "size:2 001000 1 cas_acq:1 1 rs:5 cas_rel:1 11111 rn:5 rt:5" [Lse];
    }
    "LDAPR/STLR (unscaled immediate)" {
        stlur      "size:2 011001 00 0 imm9:9 00 rn:5 rt:5" [Lrcpc2];
        ldapur     "size:2 011001 01 0 imm9:9 00 rn:5 rt:5" [Lrcpc2];
        ldapurs    "size:2 011001 10 0 imm9:9 00 rn:5 rt:5" [Lrcpc2] if |i| i.size() != 3;
        ldapurs_w  "size:2 011001 11 0 imm9:9 00 rn:5 rt:5" [Lrcpc2] if |i| i.size() < 2;
    }
    "Atomic memory operations" {
        ldadd   "size:2 111000 acq:1 rel:1 1 rs:5 0000 00 rn:5 rt:5" [Lse];
        ldclr   "size:2 111000 acq:1 rel:1 1 rs:5 0001 00 rn:5 rt:5" [Lse];
        ldeor   "size:2 111000 acq:1 rel:1 1 rs:5 0010 00 rn:5 rt:5" [Lse];
        ldset   "size:2 111000 acq:1 rel:1 1 rs:5 0011 00 rn:5 rt:5" [Lse];
        ldsmax  "size:2 111000 acq:1 rel:1 1 rs:5 0100 00 rn:5 rt:5" [Lse];
        ldsmin  "size:2 111000 acq:1 rel:1 1 rs:5 0101 00 rn:5 rt:5" [Lse];
        ldumax  "size:2 111000 acq:1 rel:1 1 rs:5 0110 00 rn:5 rt:5" [Lse];
        ldumin  "size:2 111000 acq:1 rel:1 1 rs:5 0111 00 rn:5 rt:5" [Lse];
        swp     "size:2 111000 acq:1 rel:1 1 rs:5 1000 00 rn:5 rt:5" [Lse];
        ldapr   "size:2 111000 1 0 1 (11111) 1100 00 rn:5 rt:5" [Lrcpc];
    }
}
