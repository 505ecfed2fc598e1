//! AdvSIMD: chapter C4.1 "Data Processing -- Scalar Floating-Point and Advanced SIMD", and the structure loads and
//! stores of "Loads and Stores".
//!
//! Fields: `q` full or half register, `vsize` log2 of the lane's bytes, `fsz` double or single precision. The
//! scalar and vector rows of an instruction lift with one function, the half-precision rows stand apart because
//! they need FP16. Names: `_v` where a scalar or general instruction has the plain name, `_elem` by element,
//! `_zero` comparison with zero, `_fixed` fixed point.
//!
//! immh = 0 in the shift groups is the modified immediate group, whose rows are narrower and win.

use super::{Insn, table};
use crate::a64::simd::lift;

/// A vector of one doubleword is reserved.
const fn not_1d(i: Insn) -> bool {
    i.vsize() != 3 || i.q() != 0
}
const fn below_d(i: Insn) -> bool {
    i.vsize() != 3
}
const fn below_s(i: Insn) -> bool {
    i.vsize() < 2
}
const fn h_or_s(i: Insn) -> bool {
    i.vsize() == 1 || i.vsize() == 2
}
const fn bytes(i: Insn) -> bool {
    i.vsize() == 0
}
const fn double_is_full(i: Insn) -> bool {
    i.fsz() == 0 || i.q() != 0
}
const fn shift_not_1d(i: Insn) -> bool {
    i.immh() != 0 && (i.immh() < 8 || i.q() != 0)
}
const fn shift_below_d(i: Insn) -> bool {
    i.immh() != 0 && i.immh() < 8
}
/// Opcodes of LD1 to LD4; only LD1 loads vectors of one doubleword.
const fn structure(i: Insn) -> bool {
    match i.lopc() {
        2 | 6 | 7 | 10 => true,
        0 | 4 | 8 => i.lsize() != 3 || i.q() != 0,
        _ => false,
    }
}
/// Halfwords have an even place, words a multiple of four, doublewords one of eight; the replicating
/// opcodes have a row of their own.
const fn element(i: Insn) -> bool {
    match i.lop() >> 1 {
        0 => true,
        1 => i.lsize() & 1 == 0,
        2 => i.lsize() == 0 || i.lsize() == 1 && i.s() == 0,
        _ => false,
    }
}

table! {
    "Advanced SIMD three same" {
        shadd                "0 q:1 0 01110 vsize:2 1 rm:5 00000 1 rn:5 rd:5" [Simd] if below_d;
        sqadd                "0 q:1 0 01110 vsize:2 1 rm:5 00001 1 rn:5 rd:5" [Simd] if not_1d;
        srhadd               "0 q:1 0 01110 vsize:2 1 rm:5 00010 1 rn:5 rd:5" [Simd] if below_d;
        shsub                "0 q:1 0 01110 vsize:2 1 rm:5 00100 1 rn:5 rd:5" [Simd] if below_d;
        sqsub                "0 q:1 0 01110 vsize:2 1 rm:5 00101 1 rn:5 rd:5" [Simd] if not_1d;
        cmgt_reg             "0 q:1 0 01110 vsize:2 1 rm:5 00110 1 rn:5 rd:5" [Simd] if not_1d;
        cmge_reg             "0 q:1 0 01110 vsize:2 1 rm:5 00111 1 rn:5 rd:5" [Simd] if not_1d;
        sshl                 "0 q:1 0 01110 vsize:2 1 rm:5 01000 1 rn:5 rd:5" [Simd] if not_1d;
        sqshl_reg            "0 q:1 0 01110 vsize:2 1 rm:5 01001 1 rn:5 rd:5" [Simd] if not_1d;
        srshl                "0 q:1 0 01110 vsize:2 1 rm:5 01010 1 rn:5 rd:5" [Simd] if not_1d;
        sqrshl               "0 q:1 0 01110 vsize:2 1 rm:5 01011 1 rn:5 rd:5" [Simd] if not_1d;
        smax                 "0 q:1 0 01110 vsize:2 1 rm:5 01100 1 rn:5 rd:5" [Simd] if below_d;
        smin                 "0 q:1 0 01110 vsize:2 1 rm:5 01101 1 rn:5 rd:5" [Simd] if below_d;
        sabd                 "0 q:1 0 01110 vsize:2 1 rm:5 01110 1 rn:5 rd:5" [Simd] if below_d;
        saba                 "0 q:1 0 01110 vsize:2 1 rm:5 01111 1 rn:5 rd:5" [Simd] if below_d;
        add_v                "0 q:1 0 01110 vsize:2 1 rm:5 10000 1 rn:5 rd:5" [Simd] if not_1d;
        cmtst                "0 q:1 0 01110 vsize:2 1 rm:5 10001 1 rn:5 rd:5" [Simd] if not_1d;
        mla_v                "0 q:1 0 01110 vsize:2 1 rm:5 10010 1 rn:5 rd:5" [Simd] if below_d;
        mul_v                "0 q:1 0 01110 vsize:2 1 rm:5 10011 1 rn:5 rd:5" [Simd] if below_d;
        smaxp                "0 q:1 0 01110 vsize:2 1 rm:5 10100 1 rn:5 rd:5" [Simd] if below_d;
        sminp                "0 q:1 0 01110 vsize:2 1 rm:5 10101 1 rn:5 rd:5" [Simd] if below_d;
        sqdmulh_v            "0 q:1 0 01110 vsize:2 1 rm:5 10110 1 rn:5 rd:5" [Simd] if h_or_s;
        addp_v               "0 q:1 0 01110 vsize:2 1 rm:5 10111 1 rn:5 rd:5" [Simd] if not_1d;
        uhadd                "0 q:1 1 01110 vsize:2 1 rm:5 00000 1 rn:5 rd:5" [Simd] if below_d;
        uqadd                "0 q:1 1 01110 vsize:2 1 rm:5 00001 1 rn:5 rd:5" [Simd] if not_1d;
        urhadd               "0 q:1 1 01110 vsize:2 1 rm:5 00010 1 rn:5 rd:5" [Simd] if below_d;
        uhsub                "0 q:1 1 01110 vsize:2 1 rm:5 00100 1 rn:5 rd:5" [Simd] if below_d;
        uqsub                "0 q:1 1 01110 vsize:2 1 rm:5 00101 1 rn:5 rd:5" [Simd] if not_1d;
        cmhi                 "0 q:1 1 01110 vsize:2 1 rm:5 00110 1 rn:5 rd:5" [Simd] if not_1d;
        cmhs                 "0 q:1 1 01110 vsize:2 1 rm:5 00111 1 rn:5 rd:5" [Simd] if not_1d;
        ushl                 "0 q:1 1 01110 vsize:2 1 rm:5 01000 1 rn:5 rd:5" [Simd] if not_1d;
        uqshl_reg            "0 q:1 1 01110 vsize:2 1 rm:5 01001 1 rn:5 rd:5" [Simd] if not_1d;
        urshl                "0 q:1 1 01110 vsize:2 1 rm:5 01010 1 rn:5 rd:5" [Simd] if not_1d;
        uqrshl               "0 q:1 1 01110 vsize:2 1 rm:5 01011 1 rn:5 rd:5" [Simd] if not_1d;
        umax                 "0 q:1 1 01110 vsize:2 1 rm:5 01100 1 rn:5 rd:5" [Simd] if below_d;
        umin                 "0 q:1 1 01110 vsize:2 1 rm:5 01101 1 rn:5 rd:5" [Simd] if below_d;
        uabd                 "0 q:1 1 01110 vsize:2 1 rm:5 01110 1 rn:5 rd:5" [Simd] if below_d;
        uaba                 "0 q:1 1 01110 vsize:2 1 rm:5 01111 1 rn:5 rd:5" [Simd] if below_d;
        sub_v                "0 q:1 1 01110 vsize:2 1 rm:5 10000 1 rn:5 rd:5" [Simd] if not_1d;
        cmeq_reg             "0 q:1 1 01110 vsize:2 1 rm:5 10001 1 rn:5 rd:5" [Simd] if not_1d;
        mls_v                "0 q:1 1 01110 vsize:2 1 rm:5 10010 1 rn:5 rd:5" [Simd] if below_d;
        pmul                 "0 q:1 1 01110 vsize:2 1 rm:5 10011 1 rn:5 rd:5" [Simd] if bytes;
        umaxp                "0 q:1 1 01110 vsize:2 1 rm:5 10100 1 rn:5 rd:5" [Simd] if below_d;
        uminp                "0 q:1 1 01110 vsize:2 1 rm:5 10101 1 rn:5 rd:5" [Simd] if below_d;
        sqrdmulh_v           "0 q:1 1 01110 vsize:2 1 rm:5 10110 1 rn:5 rd:5" [Simd] if h_or_s;
        and_v                "0 q:1 0 01110 00 1 rm:5 00011 1 rn:5 rd:5" [Simd];
        bic_v                "0 q:1 0 01110 01 1 rm:5 00011 1 rn:5 rd:5" [Simd];
        orr_v                "0 q:1 0 01110 10 1 rm:5 00011 1 rn:5 rd:5" [Simd];
        orn_v                "0 q:1 0 01110 11 1 rm:5 00011 1 rn:5 rd:5" [Simd];
        eor_v                "0 q:1 1 01110 00 1 rm:5 00011 1 rn:5 rd:5" [Simd];
        bsl                  "0 q:1 1 01110 01 1 rm:5 00011 1 rn:5 rd:5" [Simd];
        bit_v                "0 q:1 1 01110 10 1 rm:5 00011 1 rn:5 rd:5" [Simd];
        bif_v                "0 q:1 1 01110 11 1 rm:5 00011 1 rn:5 rd:5" [Simd];
        fmaxnm_v             "0 q:1 0 01110 0 fsz:1 1 rm:5 11000 1 rn:5 rd:5" [Simd] if double_is_full;
        fmla_v               "0 q:1 0 01110 0 fsz:1 1 rm:5 11001 1 rn:5 rd:5" [Simd] if double_is_full;
        fadd_v               "0 q:1 0 01110 0 fsz:1 1 rm:5 11010 1 rn:5 rd:5" [Simd] if double_is_full;
        fmulx_v              "0 q:1 0 01110 0 fsz:1 1 rm:5 11011 1 rn:5 rd:5" [Simd] if double_is_full;
        fcmeq_reg            "0 q:1 0 01110 0 fsz:1 1 rm:5 11100 1 rn:5 rd:5" [Simd] if double_is_full;
        fmax_v               "0 q:1 0 01110 0 fsz:1 1 rm:5 11110 1 rn:5 rd:5" [Simd] if double_is_full;
        frecps               "0 q:1 0 01110 0 fsz:1 1 rm:5 11111 1 rn:5 rd:5" [Simd] if double_is_full;
        fminnm_v             "0 q:1 0 01110 1 fsz:1 1 rm:5 11000 1 rn:5 rd:5" [Simd] if double_is_full;
        fmls_v               "0 q:1 0 01110 1 fsz:1 1 rm:5 11001 1 rn:5 rd:5" [Simd] if double_is_full;
        fsub_v               "0 q:1 0 01110 1 fsz:1 1 rm:5 11010 1 rn:5 rd:5" [Simd] if double_is_full;
        fmin_v               "0 q:1 0 01110 1 fsz:1 1 rm:5 11110 1 rn:5 rd:5" [Simd] if double_is_full;
        frsqrts              "0 q:1 0 01110 1 fsz:1 1 rm:5 11111 1 rn:5 rd:5" [Simd] if double_is_full;
        fmaxnmp_v            "0 q:1 1 01110 0 fsz:1 1 rm:5 11000 1 rn:5 rd:5" [Simd] if double_is_full;
        faddp_v              "0 q:1 1 01110 0 fsz:1 1 rm:5 11010 1 rn:5 rd:5" [Simd] if double_is_full;
        fmul_v               "0 q:1 1 01110 0 fsz:1 1 rm:5 11011 1 rn:5 rd:5" [Simd] if double_is_full;
        fcmge_reg            "0 q:1 1 01110 0 fsz:1 1 rm:5 11100 1 rn:5 rd:5" [Simd] if double_is_full;
        facge                "0 q:1 1 01110 0 fsz:1 1 rm:5 11101 1 rn:5 rd:5" [Simd] if double_is_full;
        fmaxp_v              "0 q:1 1 01110 0 fsz:1 1 rm:5 11110 1 rn:5 rd:5" [Simd] if double_is_full;
        fdiv_v               "0 q:1 1 01110 0 fsz:1 1 rm:5 11111 1 rn:5 rd:5" [Simd] if double_is_full;
        fminnmp_v            "0 q:1 1 01110 1 fsz:1 1 rm:5 11000 1 rn:5 rd:5" [Simd] if double_is_full;
        fabd                 "0 q:1 1 01110 1 fsz:1 1 rm:5 11010 1 rn:5 rd:5" [Simd] if double_is_full;
        fcmgt_reg            "0 q:1 1 01110 1 fsz:1 1 rm:5 11100 1 rn:5 rd:5" [Simd] if double_is_full;
        facgt                "0 q:1 1 01110 1 fsz:1 1 rm:5 11101 1 rn:5 rd:5" [Simd] if double_is_full;
        fminp_v              "0 q:1 1 01110 1 fsz:1 1 rm:5 11110 1 rn:5 rd:5" [Simd] if double_is_full;
        fmlal                "0 q:1 0 01110 00 1 rm:5 11101 1 rn:5 rd:5" [Fhm];
        fmlsl                "0 q:1 0 01110 10 1 rm:5 11101 1 rn:5 rd:5" [Fhm];
        fmlal2               "0 q:1 1 01110 00 1 rm:5 11001 1 rn:5 rd:5" [Fhm];
        fmlsl2               "0 q:1 1 01110 10 1 rm:5 11001 1 rn:5 rd:5" [Fhm];
    }
    "Advanced SIMD three same (FP16)" {
        fmaxnm_v             "0 q:1 0 01110 0 10 rm:5 00 000 1 rn:5 rd:5" [Fp16];
        fmla_v               "0 q:1 0 01110 0 10 rm:5 00 001 1 rn:5 rd:5" [Fp16];
        fadd_v               "0 q:1 0 01110 0 10 rm:5 00 010 1 rn:5 rd:5" [Fp16];
        fmulx_v              "0 q:1 0 01110 0 10 rm:5 00 011 1 rn:5 rd:5" [Fp16];
        fcmeq_reg            "0 q:1 0 01110 0 10 rm:5 00 100 1 rn:5 rd:5" [Fp16];
        fmax_v               "0 q:1 0 01110 0 10 rm:5 00 110 1 rn:5 rd:5" [Fp16];
        frecps               "0 q:1 0 01110 0 10 rm:5 00 111 1 rn:5 rd:5" [Fp16];
        fminnm_v             "0 q:1 0 01110 1 10 rm:5 00 000 1 rn:5 rd:5" [Fp16];
        fmls_v               "0 q:1 0 01110 1 10 rm:5 00 001 1 rn:5 rd:5" [Fp16];
        fsub_v               "0 q:1 0 01110 1 10 rm:5 00 010 1 rn:5 rd:5" [Fp16];
        fmin_v               "0 q:1 0 01110 1 10 rm:5 00 110 1 rn:5 rd:5" [Fp16];
        frsqrts              "0 q:1 0 01110 1 10 rm:5 00 111 1 rn:5 rd:5" [Fp16];
        fmaxnmp_v            "0 q:1 1 01110 0 10 rm:5 00 000 1 rn:5 rd:5" [Fp16];
        faddp_v              "0 q:1 1 01110 0 10 rm:5 00 010 1 rn:5 rd:5" [Fp16];
        fmul_v               "0 q:1 1 01110 0 10 rm:5 00 011 1 rn:5 rd:5" [Fp16];
        fcmge_reg            "0 q:1 1 01110 0 10 rm:5 00 100 1 rn:5 rd:5" [Fp16];
        facge                "0 q:1 1 01110 0 10 rm:5 00 101 1 rn:5 rd:5" [Fp16];
        fmaxp_v              "0 q:1 1 01110 0 10 rm:5 00 110 1 rn:5 rd:5" [Fp16];
        fdiv_v               "0 q:1 1 01110 0 10 rm:5 00 111 1 rn:5 rd:5" [Fp16];
        fminnmp_v            "0 q:1 1 01110 1 10 rm:5 00 000 1 rn:5 rd:5" [Fp16];
        fabd                 "0 q:1 1 01110 1 10 rm:5 00 010 1 rn:5 rd:5" [Fp16];
        fcmgt_reg            "0 q:1 1 01110 1 10 rm:5 00 100 1 rn:5 rd:5" [Fp16];
        facgt                "0 q:1 1 01110 1 10 rm:5 00 101 1 rn:5 rd:5" [Fp16];
        fminp_v              "0 q:1 1 01110 1 10 rm:5 00 110 1 rn:5 rd:5" [Fp16];
    }
    "Advanced SIMD scalar three same" {
        sqadd                "01 0 11110 vsize:2 1 rm:5 00001 1 rn:5 rd:5" [Simd];
        sqsub                "01 0 11110 vsize:2 1 rm:5 00101 1 rn:5 rd:5" [Simd];
        cmgt_reg             "01 0 11110 11 1 rm:5 00110 1 rn:5 rd:5" [Simd];
        cmge_reg             "01 0 11110 11 1 rm:5 00111 1 rn:5 rd:5" [Simd];
        sshl                 "01 0 11110 11 1 rm:5 01000 1 rn:5 rd:5" [Simd];
        sqshl_reg            "01 0 11110 vsize:2 1 rm:5 01001 1 rn:5 rd:5" [Simd];
        srshl                "01 0 11110 11 1 rm:5 01010 1 rn:5 rd:5" [Simd];
        sqrshl               "01 0 11110 vsize:2 1 rm:5 01011 1 rn:5 rd:5" [Simd];
        add_v                "01 0 11110 11 1 rm:5 10000 1 rn:5 rd:5" [Simd];
        cmtst                "01 0 11110 11 1 rm:5 10001 1 rn:5 rd:5" [Simd];
        sqdmulh_v            "01 0 11110 vsize:2 1 rm:5 10110 1 rn:5 rd:5" [Simd] if h_or_s;
        uqadd                "01 1 11110 vsize:2 1 rm:5 00001 1 rn:5 rd:5" [Simd];
        uqsub                "01 1 11110 vsize:2 1 rm:5 00101 1 rn:5 rd:5" [Simd];
        cmhi                 "01 1 11110 11 1 rm:5 00110 1 rn:5 rd:5" [Simd];
        cmhs                 "01 1 11110 11 1 rm:5 00111 1 rn:5 rd:5" [Simd];
        ushl                 "01 1 11110 11 1 rm:5 01000 1 rn:5 rd:5" [Simd];
        uqshl_reg            "01 1 11110 vsize:2 1 rm:5 01001 1 rn:5 rd:5" [Simd];
        urshl                "01 1 11110 11 1 rm:5 01010 1 rn:5 rd:5" [Simd];
        uqrshl               "01 1 11110 vsize:2 1 rm:5 01011 1 rn:5 rd:5" [Simd];
        sub_v                "01 1 11110 11 1 rm:5 10000 1 rn:5 rd:5" [Simd];
        cmeq_reg             "01 1 11110 11 1 rm:5 10001 1 rn:5 rd:5" [Simd];
        sqrdmulh_v           "01 1 11110 vsize:2 1 rm:5 10110 1 rn:5 rd:5" [Simd] if h_or_s;
        fmulx_v              "01 0 11110 0 fsz:1 1 rm:5 11011 1 rn:5 rd:5" [Simd];
        fcmeq_reg            "01 0 11110 0 fsz:1 1 rm:5 11100 1 rn:5 rd:5" [Simd];
        frecps               "01 0 11110 0 fsz:1 1 rm:5 11111 1 rn:5 rd:5" [Simd];
        frsqrts              "01 0 11110 1 fsz:1 1 rm:5 11111 1 rn:5 rd:5" [Simd];
        fcmge_reg            "01 1 11110 0 fsz:1 1 rm:5 11100 1 rn:5 rd:5" [Simd];
        facge                "01 1 11110 0 fsz:1 1 rm:5 11101 1 rn:5 rd:5" [Simd];
        fabd                 "01 1 11110 1 fsz:1 1 rm:5 11010 1 rn:5 rd:5" [Simd];
        fcmgt_reg            "01 1 11110 1 fsz:1 1 rm:5 11100 1 rn:5 rd:5" [Simd];
        facgt                "01 1 11110 1 fsz:1 1 rm:5 11101 1 rn:5 rd:5" [Simd];
    }
    "Advanced SIMD scalar three same FP16" {
        fmulx_v              "01 0 11110 0 10 rm:5 00 011 1 rn:5 rd:5" [Fp16];
        fcmeq_reg            "01 0 11110 0 10 rm:5 00 100 1 rn:5 rd:5" [Fp16];
        frecps               "01 0 11110 0 10 rm:5 00 111 1 rn:5 rd:5" [Fp16];
        frsqrts              "01 0 11110 1 10 rm:5 00 111 1 rn:5 rd:5" [Fp16];
        fcmge_reg            "01 1 11110 0 10 rm:5 00 100 1 rn:5 rd:5" [Fp16];
        facge                "01 1 11110 0 10 rm:5 00 101 1 rn:5 rd:5" [Fp16];
        fabd                 "01 1 11110 1 10 rm:5 00 010 1 rn:5 rd:5" [Fp16];
        fcmgt_reg            "01 1 11110 1 10 rm:5 00 100 1 rn:5 rd:5" [Fp16];
        facgt                "01 1 11110 1 10 rm:5 00 101 1 rn:5 rd:5" [Fp16];
    }
    "Advanced SIMD three-register extension" {
        sqrdmlah_v           "0 q:1 1 01110 vsize:2 0 rm:5 1 0000 1 rn:5 rd:5" [Rdm] if h_or_s;
        sqrdmlsh_v           "0 q:1 1 01110 vsize:2 0 rm:5 1 0001 1 rn:5 rd:5" [Rdm] if h_or_s;
        sdot                 "0 q:1 0 01110 10 0 rm:5 1 0010 1 rn:5 rd:5" [DotProd];
        udot                 "0 q:1 1 01110 10 0 rm:5 1 0010 1 rn:5 rd:5" [DotProd];
        usdot                "0 q:1 0 01110 10 0 rm:5 1 0011 1 rn:5 rd:5" [I8mm];
        smmla                "0 1 0 01110 10 0 rm:5 1 0100 1 rn:5 rd:5" [I8mm];
        ummla                "0 1 1 01110 10 0 rm:5 1 0100 1 rn:5 rd:5" [I8mm];
        usmmla               "0 1 0 01110 10 0 rm:5 1 0101 1 rn:5 rd:5" [I8mm];
        fcmla                "0 q:1 1 01110 vsize:2 0 rm:5 110 rot:2 1 rn:5 rd:5" [Fcma] if |i| i.vsize() != 0 && not_1d(i);
        fcadd                "0 q:1 1 01110 vsize:2 0 rm:5 111 rota:1 01 rn:5 rd:5" [Fcma] if |i| i.vsize() != 0 && not_1d(i);
        bfdot                "0 q:1 1 01110 01 0 rm:5 1 1111 1 rn:5 rd:5" [Bf16];
        bfmmla               "0 1 1 01110 01 0 rm:5 1 1101 1 rn:5 rd:5" [Bf16];
        bfmlal               "0 q:1 1 01110 11 0 rm:5 1 1111 1 rn:5 rd:5" [Bf16];
    }
    "Advanced SIMD scalar three same extra" {
        sqrdmlah_v           "01 1 11110 vsize:2 0 rm:5 1 0000 1 rn:5 rd:5" [Rdm] if h_or_s;
        sqrdmlsh_v           "01 1 11110 vsize:2 0 rm:5 1 0001 1 rn:5 rd:5" [Rdm] if h_or_s;
    }
    "Advanced SIMD three different" {
        saddl                "0 q:1 0 01110 vsize:2 1 rm:5 0000 00 rn:5 rd:5" [Simd] if below_d;
        saddw                "0 q:1 0 01110 vsize:2 1 rm:5 0001 00 rn:5 rd:5" [Simd] if below_d;
        ssubl                "0 q:1 0 01110 vsize:2 1 rm:5 0010 00 rn:5 rd:5" [Simd] if below_d;
        ssubw                "0 q:1 0 01110 vsize:2 1 rm:5 0011 00 rn:5 rd:5" [Simd] if below_d;
        addhn                "0 q:1 0 01110 vsize:2 1 rm:5 0100 00 rn:5 rd:5" [Simd] if below_d;
        sabal                "0 q:1 0 01110 vsize:2 1 rm:5 0101 00 rn:5 rd:5" [Simd] if below_d;
        subhn                "0 q:1 0 01110 vsize:2 1 rm:5 0110 00 rn:5 rd:5" [Simd] if below_d;
        sabdl                "0 q:1 0 01110 vsize:2 1 rm:5 0111 00 rn:5 rd:5" [Simd] if below_d;
        smlal_v              "0 q:1 0 01110 vsize:2 1 rm:5 1000 00 rn:5 rd:5" [Simd] if below_d;
        sqdmlal              "0 q:1 0 01110 vsize:2 1 rm:5 1001 00 rn:5 rd:5" [Simd] if h_or_s;
        smlsl_v              "0 q:1 0 01110 vsize:2 1 rm:5 1010 00 rn:5 rd:5" [Simd] if below_d;
        sqdmlsl              "0 q:1 0 01110 vsize:2 1 rm:5 1011 00 rn:5 rd:5" [Simd] if h_or_s;
        smull_v              "0 q:1 0 01110 vsize:2 1 rm:5 1100 00 rn:5 rd:5" [Simd] if below_d;
        sqdmull              "0 q:1 0 01110 vsize:2 1 rm:5 1101 00 rn:5 rd:5" [Simd] if h_or_s;
        uaddl                "0 q:1 1 01110 vsize:2 1 rm:5 0000 00 rn:5 rd:5" [Simd] if below_d;
        uaddw                "0 q:1 1 01110 vsize:2 1 rm:5 0001 00 rn:5 rd:5" [Simd] if below_d;
        usubl                "0 q:1 1 01110 vsize:2 1 rm:5 0010 00 rn:5 rd:5" [Simd] if below_d;
        usubw                "0 q:1 1 01110 vsize:2 1 rm:5 0011 00 rn:5 rd:5" [Simd] if below_d;
        raddhn               "0 q:1 1 01110 vsize:2 1 rm:5 0100 00 rn:5 rd:5" [Simd] if below_d;
        uabal                "0 q:1 1 01110 vsize:2 1 rm:5 0101 00 rn:5 rd:5" [Simd] if below_d;
        rsubhn               "0 q:1 1 01110 vsize:2 1 rm:5 0110 00 rn:5 rd:5" [Simd] if below_d;
        uabdl                "0 q:1 1 01110 vsize:2 1 rm:5 0111 00 rn:5 rd:5" [Simd] if below_d;
        umlal_v              "0 q:1 1 01110 vsize:2 1 rm:5 1000 00 rn:5 rd:5" [Simd] if below_d;
        umlsl_v              "0 q:1 1 01110 vsize:2 1 rm:5 1010 00 rn:5 rd:5" [Simd] if below_d;
        umull_v              "0 q:1 1 01110 vsize:2 1 rm:5 1100 00 rn:5 rd:5" [Simd] if below_d;
        pmull                "0 q:1 0 01110 00 1 rm:5 1110 00 rn:5 rd:5" [Simd];
        pmull                "0 q:1 0 01110 11 1 rm:5 1110 00 rn:5 rd:5" [Pmull];
    }
    "Advanced SIMD scalar three different" {
        sqdmlal              "01 0 11110 vsize:2 1 rm:5 1001 00 rn:5 rd:5" [Simd] if h_or_s;
        sqdmlsl              "01 0 11110 vsize:2 1 rm:5 1011 00 rn:5 rd:5" [Simd] if h_or_s;
        sqdmull              "01 0 11110 vsize:2 1 rm:5 1101 00 rn:5 rd:5" [Simd] if h_or_s;
    }
    "Advanced SIMD two-register miscellaneous" {
        rev64_v              "0 q:1 0 01110 vsize:2 10000 00000 10 rn:5 rd:5" [Simd] if below_d;
        rev16_v              "0 q:1 0 01110 vsize:2 10000 00001 10 rn:5 rd:5" [Simd] if bytes;
        saddlp               "0 q:1 0 01110 vsize:2 10000 00010 10 rn:5 rd:5" [Simd] if below_d;
        suqadd               "0 q:1 0 01110 vsize:2 10000 00011 10 rn:5 rd:5" [Simd] if not_1d;
        cls_v                "0 q:1 0 01110 vsize:2 10000 00100 10 rn:5 rd:5" [Simd] if below_d;
        cnt_v                "0 q:1 0 01110 vsize:2 10000 00101 10 rn:5 rd:5" [Simd] if bytes;
        sadalp               "0 q:1 0 01110 vsize:2 10000 00110 10 rn:5 rd:5" [Simd] if below_d;
        sqabs                "0 q:1 0 01110 vsize:2 10000 00111 10 rn:5 rd:5" [Simd] if not_1d;
        cmgt_zero            "0 q:1 0 01110 vsize:2 10000 01000 10 rn:5 rd:5" [Simd] if not_1d;
        cmeq_zero            "0 q:1 0 01110 vsize:2 10000 01001 10 rn:5 rd:5" [Simd] if not_1d;
        cmlt_zero            "0 q:1 0 01110 vsize:2 10000 01010 10 rn:5 rd:5" [Simd] if not_1d;
        abs_v                "0 q:1 0 01110 vsize:2 10000 01011 10 rn:5 rd:5" [Simd] if not_1d;
        xtn                  "0 q:1 0 01110 vsize:2 10000 10010 10 rn:5 rd:5" [Simd] if below_d;
        sqxtn                "0 q:1 0 01110 vsize:2 10000 10100 10 rn:5 rd:5" [Simd] if below_d;
        rev32_v              "0 q:1 1 01110 vsize:2 10000 00000 10 rn:5 rd:5" [Simd] if below_s;
        uaddlp               "0 q:1 1 01110 vsize:2 10000 00010 10 rn:5 rd:5" [Simd] if below_d;
        usqadd               "0 q:1 1 01110 vsize:2 10000 00011 10 rn:5 rd:5" [Simd] if not_1d;
        clz_v                "0 q:1 1 01110 vsize:2 10000 00100 10 rn:5 rd:5" [Simd] if below_d;
        uadalp               "0 q:1 1 01110 vsize:2 10000 00110 10 rn:5 rd:5" [Simd] if below_d;
        sqneg                "0 q:1 1 01110 vsize:2 10000 00111 10 rn:5 rd:5" [Simd] if not_1d;
        cmge_zero            "0 q:1 1 01110 vsize:2 10000 01000 10 rn:5 rd:5" [Simd] if not_1d;
        cmle_zero            "0 q:1 1 01110 vsize:2 10000 01001 10 rn:5 rd:5" [Simd] if not_1d;
        neg_v                "0 q:1 1 01110 vsize:2 10000 01011 10 rn:5 rd:5" [Simd] if not_1d;
        sqxtun               "0 q:1 1 01110 vsize:2 10000 10010 10 rn:5 rd:5" [Simd] if below_d;
        shll                 "0 q:1 1 01110 vsize:2 10000 10011 10 rn:5 rd:5" [Simd] if below_d;
        uqxtn                "0 q:1 1 01110 vsize:2 10000 10100 10 rn:5 rd:5" [Simd] if below_d;
        not_v                "0 q:1 1 01110 00 10000 00101 10 rn:5 rd:5" [Simd];
        rbit_v               "0 q:1 1 01110 01 10000 00101 10 rn:5 rd:5" [Simd];
        urecpe               "0 q:1 0 01110 10 10000 11100 10 rn:5 rd:5" [Simd];
        ursqrte              "0 q:1 1 01110 10 10000 11100 10 rn:5 rd:5" [Simd];
        frintn_v             "0 q:1 0 01110 0 fsz:1 10000 11000 10 rn:5 rd:5" [Simd] if double_is_full;
        frintm_v             "0 q:1 0 01110 0 fsz:1 10000 11001 10 rn:5 rd:5" [Simd] if double_is_full;
        fcvtns_v             "0 q:1 0 01110 0 fsz:1 10000 11010 10 rn:5 rd:5" [Simd] if double_is_full;
        fcvtms_v             "0 q:1 0 01110 0 fsz:1 10000 11011 10 rn:5 rd:5" [Simd] if double_is_full;
        fcvtas_v             "0 q:1 0 01110 0 fsz:1 10000 11100 10 rn:5 rd:5" [Simd] if double_is_full;
        scvtf_v              "0 q:1 0 01110 0 fsz:1 10000 11101 10 rn:5 rd:5" [Simd] if double_is_full;
        fcmgt_zero           "0 q:1 0 01110 1 fsz:1 10000 01100 10 rn:5 rd:5" [Simd] if double_is_full;
        fcmeq_zero           "0 q:1 0 01110 1 fsz:1 10000 01101 10 rn:5 rd:5" [Simd] if double_is_full;
        fcmlt_zero           "0 q:1 0 01110 1 fsz:1 10000 01110 10 rn:5 rd:5" [Simd] if double_is_full;
        fabs_v               "0 q:1 0 01110 1 fsz:1 10000 01111 10 rn:5 rd:5" [Simd] if double_is_full;
        frintp_v             "0 q:1 0 01110 1 fsz:1 10000 11000 10 rn:5 rd:5" [Simd] if double_is_full;
        frintz_v             "0 q:1 0 01110 1 fsz:1 10000 11001 10 rn:5 rd:5" [Simd] if double_is_full;
        fcvtps_v             "0 q:1 0 01110 1 fsz:1 10000 11010 10 rn:5 rd:5" [Simd] if double_is_full;
        fcvtzs_v             "0 q:1 0 01110 1 fsz:1 10000 11011 10 rn:5 rd:5" [Simd] if double_is_full;
        frecpe               "0 q:1 0 01110 1 fsz:1 10000 11101 10 rn:5 rd:5" [Simd] if double_is_full;
        frinta_v             "0 q:1 1 01110 0 fsz:1 10000 11000 10 rn:5 rd:5" [Simd] if double_is_full;
        frintx_v             "0 q:1 1 01110 0 fsz:1 10000 11001 10 rn:5 rd:5" [Simd] if double_is_full;
        fcvtnu_v             "0 q:1 1 01110 0 fsz:1 10000 11010 10 rn:5 rd:5" [Simd] if double_is_full;
        fcvtmu_v             "0 q:1 1 01110 0 fsz:1 10000 11011 10 rn:5 rd:5" [Simd] if double_is_full;
        fcvtau_v             "0 q:1 1 01110 0 fsz:1 10000 11100 10 rn:5 rd:5" [Simd] if double_is_full;
        ucvtf_v              "0 q:1 1 01110 0 fsz:1 10000 11101 10 rn:5 rd:5" [Simd] if double_is_full;
        fcmge_zero           "0 q:1 1 01110 1 fsz:1 10000 01100 10 rn:5 rd:5" [Simd] if double_is_full;
        fcmle_zero           "0 q:1 1 01110 1 fsz:1 10000 01101 10 rn:5 rd:5" [Simd] if double_is_full;
        fneg_v               "0 q:1 1 01110 1 fsz:1 10000 01111 10 rn:5 rd:5" [Simd] if double_is_full;
        frinti_v             "0 q:1 1 01110 1 fsz:1 10000 11001 10 rn:5 rd:5" [Simd] if double_is_full;
        fcvtpu_v             "0 q:1 1 01110 1 fsz:1 10000 11010 10 rn:5 rd:5" [Simd] if double_is_full;
        fcvtzu_v             "0 q:1 1 01110 1 fsz:1 10000 11011 10 rn:5 rd:5" [Simd] if double_is_full;
        frsqrte              "0 q:1 1 01110 1 fsz:1 10000 11101 10 rn:5 rd:5" [Simd] if double_is_full;
        fsqrt_v              "0 q:1 1 01110 1 fsz:1 10000 11111 10 rn:5 rd:5" [Simd] if double_is_full;
        fcvtn                "0 q:1 0 01110 0 fsz:1 10000 10110 10 rn:5 rd:5" [Simd];
        fcvtl                "0 q:1 0 01110 0 fsz:1 10000 10111 10 rn:5 rd:5" [Simd];
        fcvtxn               "0 q:1 1 01110 01 10000 10110 10 rn:5 rd:5" [Simd];
        bfcvtn               "0 q:1 0 01110 10 10000 10110 10 rn:5 rd:5" [Bf16];
        frint32z_v           "0 q:1 0 01110 0 fsz:1 10000 11110 10 rn:5 rd:5" [Frintts] if double_is_full;
        frint64z_v           "0 q:1 0 01110 0 fsz:1 10000 11111 10 rn:5 rd:5" [Frintts] if double_is_full;
        frint32x_v           "0 q:1 1 01110 0 fsz:1 10000 11110 10 rn:5 rd:5" [Frintts] if double_is_full;
        frint64x_v           "0 q:1 1 01110 0 fsz:1 10000 11111 10 rn:5 rd:5" [Frintts] if double_is_full;
    }
    "Advanced SIMD two-register miscellaneous (FP16)" {
        frintn_v             "0 q:1 0 01110 0 111100 11000 10 rn:5 rd:5" [Fp16];
        frintm_v             "0 q:1 0 01110 0 111100 11001 10 rn:5 rd:5" [Fp16];
        fcvtns_v             "0 q:1 0 01110 0 111100 11010 10 rn:5 rd:5" [Fp16];
        fcvtms_v             "0 q:1 0 01110 0 111100 11011 10 rn:5 rd:5" [Fp16];
        fcvtas_v             "0 q:1 0 01110 0 111100 11100 10 rn:5 rd:5" [Fp16];
        scvtf_v              "0 q:1 0 01110 0 111100 11101 10 rn:5 rd:5" [Fp16];
        fcmgt_zero           "0 q:1 0 01110 1 111100 01100 10 rn:5 rd:5" [Fp16];
        fcmeq_zero           "0 q:1 0 01110 1 111100 01101 10 rn:5 rd:5" [Fp16];
        fcmlt_zero           "0 q:1 0 01110 1 111100 01110 10 rn:5 rd:5" [Fp16];
        fabs_v               "0 q:1 0 01110 1 111100 01111 10 rn:5 rd:5" [Fp16];
        frintp_v             "0 q:1 0 01110 1 111100 11000 10 rn:5 rd:5" [Fp16];
        frintz_v             "0 q:1 0 01110 1 111100 11001 10 rn:5 rd:5" [Fp16];
        fcvtps_v             "0 q:1 0 01110 1 111100 11010 10 rn:5 rd:5" [Fp16];
        fcvtzs_v             "0 q:1 0 01110 1 111100 11011 10 rn:5 rd:5" [Fp16];
        frecpe               "0 q:1 0 01110 1 111100 11101 10 rn:5 rd:5" [Fp16];
        frinta_v             "0 q:1 1 01110 0 111100 11000 10 rn:5 rd:5" [Fp16];
        frintx_v             "0 q:1 1 01110 0 111100 11001 10 rn:5 rd:5" [Fp16];
        fcvtnu_v             "0 q:1 1 01110 0 111100 11010 10 rn:5 rd:5" [Fp16];
        fcvtmu_v             "0 q:1 1 01110 0 111100 11011 10 rn:5 rd:5" [Fp16];
        fcvtau_v             "0 q:1 1 01110 0 111100 11100 10 rn:5 rd:5" [Fp16];
        ucvtf_v              "0 q:1 1 01110 0 111100 11101 10 rn:5 rd:5" [Fp16];
        fcmge_zero           "0 q:1 1 01110 1 111100 01100 10 rn:5 rd:5" [Fp16];
        fcmle_zero           "0 q:1 1 01110 1 111100 01101 10 rn:5 rd:5" [Fp16];
        fneg_v               "0 q:1 1 01110 1 111100 01111 10 rn:5 rd:5" [Fp16];
        frinti_v             "0 q:1 1 01110 1 111100 11001 10 rn:5 rd:5" [Fp16];
        fcvtpu_v             "0 q:1 1 01110 1 111100 11010 10 rn:5 rd:5" [Fp16];
        fcvtzu_v             "0 q:1 1 01110 1 111100 11011 10 rn:5 rd:5" [Fp16];
        frsqrte              "0 q:1 1 01110 1 111100 11101 10 rn:5 rd:5" [Fp16];
        fsqrt_v              "0 q:1 1 01110 1 111100 11111 10 rn:5 rd:5" [Fp16];
    }
    "Advanced SIMD scalar two-register miscellaneous" {
        suqadd               "01 0 11110 vsize:2 10000 00011 10 rn:5 rd:5" [Simd];
        sqabs                "01 0 11110 vsize:2 10000 00111 10 rn:5 rd:5" [Simd];
        cmgt_zero            "01 0 11110 11 10000 01000 10 rn:5 rd:5" [Simd];
        cmeq_zero            "01 0 11110 11 10000 01001 10 rn:5 rd:5" [Simd];
        cmlt_zero            "01 0 11110 11 10000 01010 10 rn:5 rd:5" [Simd];
        abs_v                "01 0 11110 11 10000 01011 10 rn:5 rd:5" [Simd];
        sqxtn                "01 0 11110 vsize:2 10000 10100 10 rn:5 rd:5" [Simd] if below_d;
        usqadd               "01 1 11110 vsize:2 10000 00011 10 rn:5 rd:5" [Simd];
        sqneg                "01 1 11110 vsize:2 10000 00111 10 rn:5 rd:5" [Simd];
        cmge_zero            "01 1 11110 11 10000 01000 10 rn:5 rd:5" [Simd];
        cmle_zero            "01 1 11110 11 10000 01001 10 rn:5 rd:5" [Simd];
        neg_v                "01 1 11110 11 10000 01011 10 rn:5 rd:5" [Simd];
        sqxtun               "01 1 11110 vsize:2 10000 10010 10 rn:5 rd:5" [Simd] if below_d;
        uqxtn                "01 1 11110 vsize:2 10000 10100 10 rn:5 rd:5" [Simd] if below_d;
        fcvtns_v             "01 0 11110 0 fsz:1 10000 11010 10 rn:5 rd:5" [Simd];
        fcvtms_v             "01 0 11110 0 fsz:1 10000 11011 10 rn:5 rd:5" [Simd];
        fcvtas_v             "01 0 11110 0 fsz:1 10000 11100 10 rn:5 rd:5" [Simd];
        scvtf_v              "01 0 11110 0 fsz:1 10000 11101 10 rn:5 rd:5" [Simd];
        fcmgt_zero           "01 0 11110 1 fsz:1 10000 01100 10 rn:5 rd:5" [Simd];
        fcmeq_zero           "01 0 11110 1 fsz:1 10000 01101 10 rn:5 rd:5" [Simd];
        fcmlt_zero           "01 0 11110 1 fsz:1 10000 01110 10 rn:5 rd:5" [Simd];
        fcvtps_v             "01 0 11110 1 fsz:1 10000 11010 10 rn:5 rd:5" [Simd];
        fcvtzs_v             "01 0 11110 1 fsz:1 10000 11011 10 rn:5 rd:5" [Simd];
        frecpe               "01 0 11110 1 fsz:1 10000 11101 10 rn:5 rd:5" [Simd];
        frecpx               "01 0 11110 1 fsz:1 10000 11111 10 rn:5 rd:5" [Simd];
        fcvtnu_v             "01 1 11110 0 fsz:1 10000 11010 10 rn:5 rd:5" [Simd];
        fcvtmu_v             "01 1 11110 0 fsz:1 10000 11011 10 rn:5 rd:5" [Simd];
        fcvtau_v             "01 1 11110 0 fsz:1 10000 11100 10 rn:5 rd:5" [Simd];
        ucvtf_v              "01 1 11110 0 fsz:1 10000 11101 10 rn:5 rd:5" [Simd];
        fcmge_zero           "01 1 11110 1 fsz:1 10000 01100 10 rn:5 rd:5" [Simd];
        fcmle_zero           "01 1 11110 1 fsz:1 10000 01101 10 rn:5 rd:5" [Simd];
        fcvtpu_v             "01 1 11110 1 fsz:1 10000 11010 10 rn:5 rd:5" [Simd];
        fcvtzu_v             "01 1 11110 1 fsz:1 10000 11011 10 rn:5 rd:5" [Simd];
        frsqrte              "01 1 11110 1 fsz:1 10000 11101 10 rn:5 rd:5" [Simd];
        fcvtxn               "01 1 11110 01 10000 10110 10 rn:5 rd:5" [Simd];
    }
    "Advanced SIMD scalar two-register miscellaneous FP16" {
        fcvtns_v             "01 0 11110 0 111100 11010 10 rn:5 rd:5" [Fp16];
        fcvtms_v             "01 0 11110 0 111100 11011 10 rn:5 rd:5" [Fp16];
        fcvtas_v             "01 0 11110 0 111100 11100 10 rn:5 rd:5" [Fp16];
        scvtf_v              "01 0 11110 0 111100 11101 10 rn:5 rd:5" [Fp16];
        fcmgt_zero           "01 0 11110 1 111100 01100 10 rn:5 rd:5" [Fp16];
        fcmeq_zero           "01 0 11110 1 111100 01101 10 rn:5 rd:5" [Fp16];
        fcmlt_zero           "01 0 11110 1 111100 01110 10 rn:5 rd:5" [Fp16];
        fcvtps_v             "01 0 11110 1 111100 11010 10 rn:5 rd:5" [Fp16];
        fcvtzs_v             "01 0 11110 1 111100 11011 10 rn:5 rd:5" [Fp16];
        frecpe               "01 0 11110 1 111100 11101 10 rn:5 rd:5" [Fp16];
        frecpx               "01 0 11110 1 111100 11111 10 rn:5 rd:5" [Fp16];
        fcvtnu_v             "01 1 11110 0 111100 11010 10 rn:5 rd:5" [Fp16];
        fcvtmu_v             "01 1 11110 0 111100 11011 10 rn:5 rd:5" [Fp16];
        fcvtau_v             "01 1 11110 0 111100 11100 10 rn:5 rd:5" [Fp16];
        ucvtf_v              "01 1 11110 0 111100 11101 10 rn:5 rd:5" [Fp16];
        fcmge_zero           "01 1 11110 1 111100 01100 10 rn:5 rd:5" [Fp16];
        fcmle_zero           "01 1 11110 1 111100 01101 10 rn:5 rd:5" [Fp16];
        fcvtpu_v             "01 1 11110 1 111100 11010 10 rn:5 rd:5" [Fp16];
        fcvtzu_v             "01 1 11110 1 111100 11011 10 rn:5 rd:5" [Fp16];
        frsqrte              "01 1 11110 1 111100 11101 10 rn:5 rd:5" [Fp16];
    }
    "Advanced SIMD across lanes" {
        saddlv               "0 q:1 0 01110 vsize:2 11000 00011 10 rn:5 rd:5" [Simd] if |i| i.vsize() < 2 || i.vsize() == 2 && i.q() != 0;
        smaxv                "0 q:1 0 01110 vsize:2 11000 01010 10 rn:5 rd:5" [Simd] if |i| i.vsize() < 2 || i.vsize() == 2 && i.q() != 0;
        sminv                "0 q:1 0 01110 vsize:2 11000 11010 10 rn:5 rd:5" [Simd] if |i| i.vsize() < 2 || i.vsize() == 2 && i.q() != 0;
        addv                 "0 q:1 0 01110 vsize:2 11000 11011 10 rn:5 rd:5" [Simd] if |i| i.vsize() < 2 || i.vsize() == 2 && i.q() != 0;
        uaddlv               "0 q:1 1 01110 vsize:2 11000 00011 10 rn:5 rd:5" [Simd] if |i| i.vsize() < 2 || i.vsize() == 2 && i.q() != 0;
        umaxv                "0 q:1 1 01110 vsize:2 11000 01010 10 rn:5 rd:5" [Simd] if |i| i.vsize() < 2 || i.vsize() == 2 && i.q() != 0;
        uminv                "0 q:1 1 01110 vsize:2 11000 11010 10 rn:5 rd:5" [Simd] if |i| i.vsize() < 2 || i.vsize() == 2 && i.q() != 0;
        fmaxnmv              "0 1 1 01110 0 0 11000 01100 10 rn:5 rd:5" [Simd];
        fmaxnmv              "0 q:1 0 01110 0 0 11000 01100 10 rn:5 rd:5" [Fp16];
        fminnmv              "0 1 1 01110 1 0 11000 01100 10 rn:5 rd:5" [Simd];
        fminnmv              "0 q:1 0 01110 1 0 11000 01100 10 rn:5 rd:5" [Fp16];
        fmaxv                "0 1 1 01110 0 0 11000 01111 10 rn:5 rd:5" [Simd];
        fmaxv                "0 q:1 0 01110 0 0 11000 01111 10 rn:5 rd:5" [Fp16];
        fminv                "0 1 1 01110 1 0 11000 01111 10 rn:5 rd:5" [Simd];
        fminv                "0 q:1 0 01110 1 0 11000 01111 10 rn:5 rd:5" [Fp16];
    }
    "Advanced SIMD scalar pairwise" {
        addp_scalar          "01 0 11110 11 11000 11011 10 rn:5 rd:5" [Simd];
        fmaxnmp_scalar       "01 1 11110 0 fsz:1 11000 01100 10 rn:5 rd:5" [Simd];
        fmaxnmp_scalar       "01 0 11110 0 0 11000 01100 10 rn:5 rd:5" [Fp16];
        fminnmp_scalar       "01 1 11110 1 fsz:1 11000 01100 10 rn:5 rd:5" [Simd];
        fminnmp_scalar       "01 0 11110 1 0 11000 01100 10 rn:5 rd:5" [Fp16];
        faddp_scalar         "01 1 11110 0 fsz:1 11000 01101 10 rn:5 rd:5" [Simd];
        faddp_scalar         "01 0 11110 0 0 11000 01101 10 rn:5 rd:5" [Fp16];
        fmaxp_scalar         "01 1 11110 0 fsz:1 11000 01111 10 rn:5 rd:5" [Simd];
        fmaxp_scalar         "01 0 11110 0 0 11000 01111 10 rn:5 rd:5" [Fp16];
        fminp_scalar         "01 1 11110 1 fsz:1 11000 01111 10 rn:5 rd:5" [Simd];
        fminp_scalar         "01 0 11110 1 0 11000 01111 10 rn:5 rd:5" [Fp16];
    }
    "Advanced SIMD copy" {
        dup_element          "0 q:1 0 01110000 imm5:5 0 0000 1 rn:5 rd:5" [Simd] if |i| i.imm5() & 15 != 0 && (i.imm5() & 15 != 8 || i.q() != 0);
        dup_general          "0 q:1 0 01110000 imm5:5 0 0001 1 rn:5 rd:5" [Simd] if |i| i.imm5() & 15 != 0 && (i.imm5() & 15 != 8 || i.q() != 0);
        ins_general          "0 1 0 01110000 imm5:5 0 0011 1 rn:5 rd:5" [Simd] if |i| i.imm5() & 15 != 0;
        ins_element          "0 1 1 01110000 imm5:5 0 vidx:4 1 rn:5 rd:5" [Simd] if |i| i.imm5() & 15 != 0;
        smov                 "0 q:1 0 01110000 imm5:5 0 0101 1 rn:5 rd:5" [Simd] if |i| i.imm5() & 3 != 0 || i.q() != 0 && i.imm5() & 7 != 0;
        umov                 "0 q:1 0 01110000 imm5:5 0 0111 1 rn:5 rd:5" [Simd] if |i| if i.q() == 0 { i.imm5() & 7 != 0 } else { i.imm5() & 15 == 8 };
    }
    "Advanced SIMD scalar copy" {
        dup_element          "01 0 11110000 imm5:5 0 0000 1 rn:5 rd:5" [Simd] if |i| i.imm5() & 15 != 0;
    }
    "Advanced SIMD permute" {
        uzp1                 "0 q:1 0 01110 vsize:2 0 rm:5 0 001 10 rn:5 rd:5" [Simd] if not_1d;
        trn1                 "0 q:1 0 01110 vsize:2 0 rm:5 0 010 10 rn:5 rd:5" [Simd] if not_1d;
        zip1                 "0 q:1 0 01110 vsize:2 0 rm:5 0 011 10 rn:5 rd:5" [Simd] if not_1d;
        uzp2                 "0 q:1 0 01110 vsize:2 0 rm:5 0 101 10 rn:5 rd:5" [Simd] if not_1d;
        trn2                 "0 q:1 0 01110 vsize:2 0 rm:5 0 110 10 rn:5 rd:5" [Simd] if not_1d;
        zip2                 "0 q:1 0 01110 vsize:2 0 rm:5 0 111 10 rn:5 rd:5" [Simd] if not_1d;
    }
    "Advanced SIMD extract" {
        ext                  "0 q:1 1 01110 00 0 rm:5 0 vidx:4 0 rn:5 rd:5" [Simd] if |i| i.q() != 0 || i.vidx() < 8;
    }
    "Advanced SIMD table lookup" {
        tbl                  "0 q:1 0 01110 00 0 rm:5 0 tlen:2 0 00 rn:5 rd:5" [Simd];
        tbx                  "0 q:1 0 01110 00 0 rm:5 0 tlen:2 1 00 rn:5 rd:5" [Simd];
    }
    "Advanced SIMD modified immediate" {
        movi                 "0 q:1 0 0111100000 abc:3 0000 0 1 defgh:5 rd:5" [Simd];
        orr_imm              "0 q:1 0 0111100000 abc:3 0001 0 1 defgh:5 rd:5" [Simd];
        movi                 "0 q:1 0 0111100000 abc:3 0010 0 1 defgh:5 rd:5" [Simd];
        orr_imm              "0 q:1 0 0111100000 abc:3 0011 0 1 defgh:5 rd:5" [Simd];
        movi                 "0 q:1 0 0111100000 abc:3 0100 0 1 defgh:5 rd:5" [Simd];
        orr_imm              "0 q:1 0 0111100000 abc:3 0101 0 1 defgh:5 rd:5" [Simd];
        movi                 "0 q:1 0 0111100000 abc:3 0110 0 1 defgh:5 rd:5" [Simd];
        orr_imm              "0 q:1 0 0111100000 abc:3 0111 0 1 defgh:5 rd:5" [Simd];
        movi                 "0 q:1 0 0111100000 abc:3 1000 0 1 defgh:5 rd:5" [Simd];
        orr_imm              "0 q:1 0 0111100000 abc:3 1001 0 1 defgh:5 rd:5" [Simd];
        movi                 "0 q:1 0 0111100000 abc:3 1010 0 1 defgh:5 rd:5" [Simd];
        orr_imm              "0 q:1 0 0111100000 abc:3 1011 0 1 defgh:5 rd:5" [Simd];
        movi                 "0 q:1 0 0111100000 abc:3 1100 0 1 defgh:5 rd:5" [Simd];
        movi                 "0 q:1 0 0111100000 abc:3 1101 0 1 defgh:5 rd:5" [Simd];
        movi                 "0 q:1 0 0111100000 abc:3 1110 0 1 defgh:5 rd:5" [Simd];
        fmov_vector_imm      "0 q:1 0 0111100000 abc:3 1111 0 1 defgh:5 rd:5" [Simd];
        mvni                 "0 q:1 1 0111100000 abc:3 0000 0 1 defgh:5 rd:5" [Simd];
        bic_imm              "0 q:1 1 0111100000 abc:3 0001 0 1 defgh:5 rd:5" [Simd];
        mvni                 "0 q:1 1 0111100000 abc:3 0010 0 1 defgh:5 rd:5" [Simd];
        bic_imm              "0 q:1 1 0111100000 abc:3 0011 0 1 defgh:5 rd:5" [Simd];
        mvni                 "0 q:1 1 0111100000 abc:3 0100 0 1 defgh:5 rd:5" [Simd];
        bic_imm              "0 q:1 1 0111100000 abc:3 0101 0 1 defgh:5 rd:5" [Simd];
        mvni                 "0 q:1 1 0111100000 abc:3 0110 0 1 defgh:5 rd:5" [Simd];
        bic_imm              "0 q:1 1 0111100000 abc:3 0111 0 1 defgh:5 rd:5" [Simd];
        mvni                 "0 q:1 1 0111100000 abc:3 1000 0 1 defgh:5 rd:5" [Simd];
        bic_imm              "0 q:1 1 0111100000 abc:3 1001 0 1 defgh:5 rd:5" [Simd];
        mvni                 "0 q:1 1 0111100000 abc:3 1010 0 1 defgh:5 rd:5" [Simd];
        bic_imm              "0 q:1 1 0111100000 abc:3 1011 0 1 defgh:5 rd:5" [Simd];
        mvni                 "0 q:1 1 0111100000 abc:3 1100 0 1 defgh:5 rd:5" [Simd];
        mvni                 "0 q:1 1 0111100000 abc:3 1101 0 1 defgh:5 rd:5" [Simd];
        movi                 "0 q:1 1 0111100000 abc:3 1110 0 1 defgh:5 rd:5" [Simd];
        fmov_vector_imm      "0 1 1 0111100000 abc:3 1111 0 1 defgh:5 rd:5" [Simd];
        fmov_vector_imm_half "0 q:1 0 0111100000 abc:3 1111 1 1 defgh:5 rd:5" [Fp16];
    }
    "Advanced SIMD shift by immediate" {
        sshr                 "0 q:1 0 011110 immh:4 immb:3 00000 1 rn:5 rd:5" [Simd] if shift_not_1d;
        ssra                 "0 q:1 0 011110 immh:4 immb:3 00010 1 rn:5 rd:5" [Simd] if shift_not_1d;
        srshr                "0 q:1 0 011110 immh:4 immb:3 00100 1 rn:5 rd:5" [Simd] if shift_not_1d;
        srsra                "0 q:1 0 011110 immh:4 immb:3 00110 1 rn:5 rd:5" [Simd] if shift_not_1d;
        shl_v                "0 q:1 0 011110 immh:4 immb:3 01010 1 rn:5 rd:5" [Simd] if shift_not_1d;
        sqshl_imm            "0 q:1 0 011110 immh:4 immb:3 01110 1 rn:5 rd:5" [Simd] if shift_not_1d;
        shrn                 "0 q:1 0 011110 immh:4 immb:3 10000 1 rn:5 rd:5" [Simd] if shift_below_d;
        rshrn                "0 q:1 0 011110 immh:4 immb:3 10001 1 rn:5 rd:5" [Simd] if shift_below_d;
        sqshrn               "0 q:1 0 011110 immh:4 immb:3 10010 1 rn:5 rd:5" [Simd] if shift_below_d;
        sqrshrn              "0 q:1 0 011110 immh:4 immb:3 10011 1 rn:5 rd:5" [Simd] if shift_below_d;
        sshll                "0 q:1 0 011110 immh:4 immb:3 10100 1 rn:5 rd:5" [Simd] if shift_below_d;
        ushr                 "0 q:1 1 011110 immh:4 immb:3 00000 1 rn:5 rd:5" [Simd] if shift_not_1d;
        usra                 "0 q:1 1 011110 immh:4 immb:3 00010 1 rn:5 rd:5" [Simd] if shift_not_1d;
        urshr                "0 q:1 1 011110 immh:4 immb:3 00100 1 rn:5 rd:5" [Simd] if shift_not_1d;
        ursra                "0 q:1 1 011110 immh:4 immb:3 00110 1 rn:5 rd:5" [Simd] if shift_not_1d;
        sri                  "0 q:1 1 011110 immh:4 immb:3 01000 1 rn:5 rd:5" [Simd] if shift_not_1d;
        sli                  "0 q:1 1 011110 immh:4 immb:3 01010 1 rn:5 rd:5" [Simd] if shift_not_1d;
        sqshlu               "0 q:1 1 011110 immh:4 immb:3 01100 1 rn:5 rd:5" [Simd] if shift_not_1d;
        uqshl_imm            "0 q:1 1 011110 immh:4 immb:3 01110 1 rn:5 rd:5" [Simd] if shift_not_1d;
        sqshrun              "0 q:1 1 011110 immh:4 immb:3 10000 1 rn:5 rd:5" [Simd] if shift_below_d;
        sqrshrun             "0 q:1 1 011110 immh:4 immb:3 10001 1 rn:5 rd:5" [Simd] if shift_below_d;
        uqshrn               "0 q:1 1 011110 immh:4 immb:3 10010 1 rn:5 rd:5" [Simd] if shift_below_d;
        uqrshrn              "0 q:1 1 011110 immh:4 immb:3 10011 1 rn:5 rd:5" [Simd] if shift_below_d;
        ushll                "0 q:1 1 011110 immh:4 immb:3 10100 1 rn:5 rd:5" [Simd] if shift_below_d;
        scvtf_fixed          "0 q:1 0 011110 01 immhs:2 immb:3 11100 1 rn:5 rd:5" [Simd];
        scvtf_fixed          "0 1 0 011110 1 immhd:3 immb:3 11100 1 rn:5 rd:5" [Simd];
        scvtf_fixed          "0 q:1 0 011110 001 immhh:1 immb:3 11100 1 rn:5 rd:5" [Fp16];
        fcvtzs_fixed         "0 q:1 0 011110 01 immhs:2 immb:3 11111 1 rn:5 rd:5" [Simd];
        fcvtzs_fixed         "0 1 0 011110 1 immhd:3 immb:3 11111 1 rn:5 rd:5" [Simd];
        fcvtzs_fixed         "0 q:1 0 011110 001 immhh:1 immb:3 11111 1 rn:5 rd:5" [Fp16];
        ucvtf_fixed          "0 q:1 1 011110 01 immhs:2 immb:3 11100 1 rn:5 rd:5" [Simd];
        ucvtf_fixed          "0 1 1 011110 1 immhd:3 immb:3 11100 1 rn:5 rd:5" [Simd];
        ucvtf_fixed          "0 q:1 1 011110 001 immhh:1 immb:3 11100 1 rn:5 rd:5" [Fp16];
        fcvtzu_fixed         "0 q:1 1 011110 01 immhs:2 immb:3 11111 1 rn:5 rd:5" [Simd];
        fcvtzu_fixed         "0 1 1 011110 1 immhd:3 immb:3 11111 1 rn:5 rd:5" [Simd];
        fcvtzu_fixed         "0 q:1 1 011110 001 immhh:1 immb:3 11111 1 rn:5 rd:5" [Fp16];
    }
    "Advanced SIMD scalar shift by immediate" {
        sshr                 "01 0 111110 1 immhd:3 immb:3 00000 1 rn:5 rd:5" [Simd];
        ssra                 "01 0 111110 1 immhd:3 immb:3 00010 1 rn:5 rd:5" [Simd];
        srshr                "01 0 111110 1 immhd:3 immb:3 00100 1 rn:5 rd:5" [Simd];
        srsra                "01 0 111110 1 immhd:3 immb:3 00110 1 rn:5 rd:5" [Simd];
        shl_v                "01 0 111110 1 immhd:3 immb:3 01010 1 rn:5 rd:5" [Simd];
        sqshl_imm            "01 0 111110 immh:4 immb:3 01110 1 rn:5 rd:5" [Simd] if |i| i.immh() != 0;
        sqshrn               "01 0 111110 immh:4 immb:3 10010 1 rn:5 rd:5" [Simd] if shift_below_d;
        sqrshrn              "01 0 111110 immh:4 immb:3 10011 1 rn:5 rd:5" [Simd] if shift_below_d;
        ushr                 "01 1 111110 1 immhd:3 immb:3 00000 1 rn:5 rd:5" [Simd];
        usra                 "01 1 111110 1 immhd:3 immb:3 00010 1 rn:5 rd:5" [Simd];
        urshr                "01 1 111110 1 immhd:3 immb:3 00100 1 rn:5 rd:5" [Simd];
        ursra                "01 1 111110 1 immhd:3 immb:3 00110 1 rn:5 rd:5" [Simd];
        sri                  "01 1 111110 1 immhd:3 immb:3 01000 1 rn:5 rd:5" [Simd];
        sli                  "01 1 111110 1 immhd:3 immb:3 01010 1 rn:5 rd:5" [Simd];
        sqshlu               "01 1 111110 immh:4 immb:3 01100 1 rn:5 rd:5" [Simd] if |i| i.immh() != 0;
        uqshl_imm            "01 1 111110 immh:4 immb:3 01110 1 rn:5 rd:5" [Simd] if |i| i.immh() != 0;
        sqshrun              "01 1 111110 immh:4 immb:3 10000 1 rn:5 rd:5" [Simd] if shift_below_d;
        sqrshrun             "01 1 111110 immh:4 immb:3 10001 1 rn:5 rd:5" [Simd] if shift_below_d;
        uqshrn               "01 1 111110 immh:4 immb:3 10010 1 rn:5 rd:5" [Simd] if shift_below_d;
        uqrshrn              "01 1 111110 immh:4 immb:3 10011 1 rn:5 rd:5" [Simd] if shift_below_d;
        scvtf_fixed          "01 0 111110 01 immhs:2 immb:3 11100 1 rn:5 rd:5" [Simd];
        scvtf_fixed          "01 0 111110 1 immhd:3 immb:3 11100 1 rn:5 rd:5" [Simd];
        scvtf_fixed          "01 0 111110 001 immhh:1 immb:3 11100 1 rn:5 rd:5" [Fp16];
        fcvtzs_fixed         "01 0 111110 01 immhs:2 immb:3 11111 1 rn:5 rd:5" [Simd];
        fcvtzs_fixed         "01 0 111110 1 immhd:3 immb:3 11111 1 rn:5 rd:5" [Simd];
        fcvtzs_fixed         "01 0 111110 001 immhh:1 immb:3 11111 1 rn:5 rd:5" [Fp16];
        ucvtf_fixed          "01 1 111110 01 immhs:2 immb:3 11100 1 rn:5 rd:5" [Simd];
        ucvtf_fixed          "01 1 111110 1 immhd:3 immb:3 11100 1 rn:5 rd:5" [Simd];
        ucvtf_fixed          "01 1 111110 001 immhh:1 immb:3 11100 1 rn:5 rd:5" [Fp16];
        fcvtzu_fixed         "01 1 111110 01 immhs:2 immb:3 11111 1 rn:5 rd:5" [Simd];
        fcvtzu_fixed         "01 1 111110 1 immhd:3 immb:3 11111 1 rn:5 rd:5" [Simd];
        fcvtzu_fixed         "01 1 111110 001 immhh:1 immb:3 11111 1 rn:5 rd:5" [Fp16];
    }
    "Advanced SIMD vector x indexed element" {
        smlal_elem           "0 q:1 0 01111 vsize:2 l:1 rm:5 0010 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        sqdmlal_elem         "0 q:1 0 01111 vsize:2 l:1 rm:5 0011 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        smlsl_elem           "0 q:1 0 01111 vsize:2 l:1 rm:5 0110 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        sqdmlsl_elem         "0 q:1 0 01111 vsize:2 l:1 rm:5 0111 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        mul_elem             "0 q:1 0 01111 vsize:2 l:1 rm:5 1000 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        smull_elem           "0 q:1 0 01111 vsize:2 l:1 rm:5 1010 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        sqdmull_elem         "0 q:1 0 01111 vsize:2 l:1 rm:5 1011 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        sqdmulh_elem         "0 q:1 0 01111 vsize:2 l:1 rm:5 1100 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        sqrdmulh_elem        "0 q:1 0 01111 vsize:2 l:1 rm:5 1101 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        mla_elem             "0 q:1 1 01111 vsize:2 l:1 rm:5 0000 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        umlal_elem           "0 q:1 1 01111 vsize:2 l:1 rm:5 0010 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        mls_elem             "0 q:1 1 01111 vsize:2 l:1 rm:5 0100 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        umlsl_elem           "0 q:1 1 01111 vsize:2 l:1 rm:5 0110 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        umull_elem           "0 q:1 1 01111 vsize:2 l:1 rm:5 1010 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        sqrdmlah_elem        "0 q:1 1 01111 vsize:2 l:1 rm:5 1101 h:1 0 rn:5 rd:5" [Rdm] if h_or_s;
        sqrdmlsh_elem        "0 q:1 1 01111 vsize:2 l:1 rm:5 1111 h:1 0 rn:5 rd:5" [Rdm] if h_or_s;
        sdot_elem            "0 q:1 0 01111 10 l:1 rm:5 1110 h:1 0 rn:5 rd:5" [DotProd];
        udot_elem            "0 q:1 1 01111 10 l:1 rm:5 1110 h:1 0 rn:5 rd:5" [DotProd];
        sudot_elem           "0 q:1 0 01111 00 l:1 rm:5 1111 h:1 0 rn:5 rd:5" [I8mm];
        usdot_elem           "0 q:1 0 01111 10 l:1 rm:5 1111 h:1 0 rn:5 rd:5" [I8mm];
        bfdot_elem           "0 q:1 0 01111 01 l:1 rm:5 1111 h:1 0 rn:5 rd:5" [Bf16];
        bfmlal_elem          "0 q:1 0 01111 11 l:1 rm:5 1111 h:1 0 rn:5 rd:5" [Bf16];
        fcmla_elem           "0 q:1 1 01111 01 l:1 rm:5 0 rote:2 1 h:1 0 rn:5 rd:5" [Fcma] if |i| i.q() != 0 || i.h() == 0;
        fcmla_elem           "0 1 1 01111 10 0 rm:5 0 rote:2 1 h:1 0 rn:5 rd:5" [Fcma];
        fmla_elem            "0 q:1 0 01111 10 l:1 rm:5 0001 h:1 0 rn:5 rd:5" [Simd];
        fmla_elem            "0 1 0 01111 11 0 rm:5 0001 h:1 0 rn:5 rd:5" [Simd];
        fmla_elem            "0 q:1 0 01111 00 l:1 rm:5 0001 h:1 0 rn:5 rd:5" [Fp16];
        fmls_elem            "0 q:1 0 01111 10 l:1 rm:5 0101 h:1 0 rn:5 rd:5" [Simd];
        fmls_elem            "0 1 0 01111 11 0 rm:5 0101 h:1 0 rn:5 rd:5" [Simd];
        fmls_elem            "0 q:1 0 01111 00 l:1 rm:5 0101 h:1 0 rn:5 rd:5" [Fp16];
        fmul_elem            "0 q:1 0 01111 10 l:1 rm:5 1001 h:1 0 rn:5 rd:5" [Simd];
        fmul_elem            "0 1 0 01111 11 0 rm:5 1001 h:1 0 rn:5 rd:5" [Simd];
        fmul_elem            "0 q:1 0 01111 00 l:1 rm:5 1001 h:1 0 rn:5 rd:5" [Fp16];
        fmulx_elem           "0 q:1 1 01111 10 l:1 rm:5 1001 h:1 0 rn:5 rd:5" [Simd];
        fmulx_elem           "0 1 1 01111 11 0 rm:5 1001 h:1 0 rn:5 rd:5" [Simd];
        fmulx_elem           "0 q:1 1 01111 00 l:1 rm:5 1001 h:1 0 rn:5 rd:5" [Fp16];
        fmlal_elem           "0 q:1 0 01111 10 l:1 rm:5 0000 h:1 0 rn:5 rd:5" [Fhm];
        fmlsl_elem           "0 q:1 0 01111 10 l:1 rm:5 0100 h:1 0 rn:5 rd:5" [Fhm];
        fmlal2_elem          "0 q:1 1 01111 10 l:1 rm:5 1000 h:1 0 rn:5 rd:5" [Fhm];
        fmlsl2_elem          "0 q:1 1 01111 10 l:1 rm:5 1100 h:1 0 rn:5 rd:5" [Fhm];
    }
    "Advanced SIMD scalar x indexed element" {
        sqdmlal_elem         "01 0 11111 vsize:2 l:1 rm:5 0011 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        sqdmlsl_elem         "01 0 11111 vsize:2 l:1 rm:5 0111 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        sqdmull_elem         "01 0 11111 vsize:2 l:1 rm:5 1011 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        sqdmulh_elem         "01 0 11111 vsize:2 l:1 rm:5 1100 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        sqrdmulh_elem        "01 0 11111 vsize:2 l:1 rm:5 1101 h:1 0 rn:5 rd:5" [Simd] if h_or_s;
        sqrdmlah_elem        "01 1 11111 vsize:2 l:1 rm:5 1101 h:1 0 rn:5 rd:5" [Rdm] if h_or_s;
        sqrdmlsh_elem        "01 1 11111 vsize:2 l:1 rm:5 1111 h:1 0 rn:5 rd:5" [Rdm] if h_or_s;
        fmla_elem            "01 0 11111 10 l:1 rm:5 0001 h:1 0 rn:5 rd:5" [Simd];
        fmla_elem            "01 0 11111 11 0 rm:5 0001 h:1 0 rn:5 rd:5" [Simd];
        fmla_elem            "01 0 11111 00 l:1 rm:5 0001 h:1 0 rn:5 rd:5" [Fp16];
        fmls_elem            "01 0 11111 10 l:1 rm:5 0101 h:1 0 rn:5 rd:5" [Simd];
        fmls_elem            "01 0 11111 11 0 rm:5 0101 h:1 0 rn:5 rd:5" [Simd];
        fmls_elem            "01 0 11111 00 l:1 rm:5 0101 h:1 0 rn:5 rd:5" [Fp16];
        fmul_elem            "01 0 11111 10 l:1 rm:5 1001 h:1 0 rn:5 rd:5" [Simd];
        fmul_elem            "01 0 11111 11 0 rm:5 1001 h:1 0 rn:5 rd:5" [Simd];
        fmul_elem            "01 0 11111 00 l:1 rm:5 1001 h:1 0 rn:5 rd:5" [Fp16];
        fmulx_elem           "01 1 11111 10 l:1 rm:5 1001 h:1 0 rn:5 rd:5" [Simd];
        fmulx_elem           "01 1 11111 11 0 rm:5 1001 h:1 0 rn:5 rd:5" [Simd];
        fmulx_elem           "01 1 11111 00 l:1 rm:5 1001 h:1 0 rn:5 rd:5" [Fp16];
    }
    "Advanced SIMD load/store multiple structures" {
        st_multiple          "0 q:1 001100 0 0 000000 lopc:4 lsize:2 rn:5 rt:5" [Simd] if structure;
        ld_multiple          "0 q:1 001100 0 1 000000 lopc:4 lsize:2 rn:5 rt:5" [Simd] if structure;
    }
    "Advanced SIMD load/store single structure" {
        st_single            "0 q:1 001101 0 0 lr:1 00000 lop:3 s:1 lsize:2 rn:5 rt:5" [Simd] if element;
        ld_single            "0 q:1 001101 0 1 lr:1 00000 lop:3 s:1 lsize:2 rn:5 rt:5" [Simd] if element;
        ld_replicate         "0 q:1 001101 0 1 lr:1 00000 11 lsel:1 0 lsize:2 rn:5 rt:5" [Simd];
    }
    "Advanced SIMD load/store multiple structures (post-indexed)" {
        st_multiple          "0 q:1 001100 1 0 0 rm:5 lopc:4 lsize:2 rn:5 rt:5" [Simd] if structure;
        ld_multiple          "0 q:1 001100 1 1 0 rm:5 lopc:4 lsize:2 rn:5 rt:5" [Simd] if structure;
    }
    "Advanced SIMD load/store single structure (post-indexed)" {
        st_single            "0 q:1 001101 1 0 lr:1 rm:5 lop:3 s:1 lsize:2 rn:5 rt:5" [Simd] if element;
        ld_single            "0 q:1 001101 1 1 lr:1 rm:5 lop:3 s:1 lsize:2 rn:5 rt:5" [Simd] if element;
        ld_replicate         "0 q:1 001101 1 1 lr:1 rm:5 11 lsel:1 0 lsize:2 rn:5 rt:5" [Simd];
    }
}
