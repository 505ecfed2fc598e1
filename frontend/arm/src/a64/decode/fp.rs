//! Scalar floating point: chapter C4.1 "Data Processing -- Scalar Floating-Point and Advanced SIMD".
//!
//! ftype (bits 23:22) 00 is single, 01 double, 11 half precision; the half-precision rows stand apart because
//! they need FP16. Names: `_s` scalar, `_g` to or from a general register.

use super::{Insn, table};
use crate::a64::fp::lift;

/// A 32-bit fixed-point number has at most 32 fraction bits.
const fn scale_fits(i: Insn) -> bool {
    i.sf() != 0 || i.scale() >= 32
}

table! {
    "Floating-point data-processing (1 source)" {
        fmov_s                "000 11110 0 fsz:1 1 000000 10000 rn:5 rd:5" [Fp];
        fmov_s                "000 11110 11 1 000000 10000 rn:5 rd:5" [Fp16];
        fabs_s                "000 11110 0 fsz:1 1 000001 10000 rn:5 rd:5" [Fp];
        fabs_s                "000 11110 11 1 000001 10000 rn:5 rd:5" [Fp16];
        fneg_s                "000 11110 0 fsz:1 1 000010 10000 rn:5 rd:5" [Fp];
        fneg_s                "000 11110 11 1 000010 10000 rn:5 rd:5" [Fp16];
        fsqrt_s               "000 11110 0 fsz:1 1 000011 10000 rn:5 rd:5" [Fp];
        fsqrt_s               "000 11110 11 1 000011 10000 rn:5 rd:5" [Fp16];
        frintn_s              "000 11110 0 fsz:1 1 001000 10000 rn:5 rd:5" [Fp];
        frintn_s              "000 11110 11 1 001000 10000 rn:5 rd:5" [Fp16];
        frintp_s              "000 11110 0 fsz:1 1 001001 10000 rn:5 rd:5" [Fp];
        frintp_s              "000 11110 11 1 001001 10000 rn:5 rd:5" [Fp16];
        frintm_s              "000 11110 0 fsz:1 1 001010 10000 rn:5 rd:5" [Fp];
        frintm_s              "000 11110 11 1 001010 10000 rn:5 rd:5" [Fp16];
        frintz_s              "000 11110 0 fsz:1 1 001011 10000 rn:5 rd:5" [Fp];
        frintz_s              "000 11110 11 1 001011 10000 rn:5 rd:5" [Fp16];
        frinta_s              "000 11110 0 fsz:1 1 001100 10000 rn:5 rd:5" [Fp];
        frinta_s              "000 11110 11 1 001100 10000 rn:5 rd:5" [Fp16];
        frintx_s              "000 11110 0 fsz:1 1 001110 10000 rn:5 rd:5" [Fp];
        frintx_s              "000 11110 11 1 001110 10000 rn:5 rd:5" [Fp16];
        frinti_s              "000 11110 0 fsz:1 1 001111 10000 rn:5 rd:5" [Fp];
        frinti_s              "000 11110 11 1 001111 10000 rn:5 rd:5" [Fp16];
        frint32z_s            "000 11110 0 fsz:1 1 010000 10000 rn:5 rd:5" [Frintts];
        frint32x_s            "000 11110 0 fsz:1 1 010001 10000 rn:5 rd:5" [Frintts];
        frint64z_s            "000 11110 0 fsz:1 1 010010 10000 rn:5 rd:5" [Frintts];
        frint64x_s            "000 11110 0 fsz:1 1 010011 10000 rn:5 rd:5" [Frintts];
        fcvt                  "000 11110 ftype:2 1 0001 fto:2 10000 rn:5 rd:5" [Fp] if |i| i.ftype() != 2 && i.fto() != 2 && i.ftype() != i.fto();
        bfcvt                 "000 11110 01 1 000110 10000 rn:5 rd:5" [Bf16];
    }
    "Floating-point data-processing (2 source)" {
        fmul_s                "000 11110 0 fsz:1 1 rm:5 0000 10 rn:5 rd:5" [Fp];
        fmul_s                "000 11110 11 1 rm:5 0000 10 rn:5 rd:5" [Fp16];
        fdiv_s                "000 11110 0 fsz:1 1 rm:5 0001 10 rn:5 rd:5" [Fp];
        fdiv_s                "000 11110 11 1 rm:5 0001 10 rn:5 rd:5" [Fp16];
        fadd_s                "000 11110 0 fsz:1 1 rm:5 0010 10 rn:5 rd:5" [Fp];
        fadd_s                "000 11110 11 1 rm:5 0010 10 rn:5 rd:5" [Fp16];
        fsub_s                "000 11110 0 fsz:1 1 rm:5 0011 10 rn:5 rd:5" [Fp];
        fsub_s                "000 11110 11 1 rm:5 0011 10 rn:5 rd:5" [Fp16];
        fmax_s                "000 11110 0 fsz:1 1 rm:5 0100 10 rn:5 rd:5" [Fp];
        fmax_s                "000 11110 11 1 rm:5 0100 10 rn:5 rd:5" [Fp16];
        fmin_s                "000 11110 0 fsz:1 1 rm:5 0101 10 rn:5 rd:5" [Fp];
        fmin_s                "000 11110 11 1 rm:5 0101 10 rn:5 rd:5" [Fp16];
        fmaxnm_s              "000 11110 0 fsz:1 1 rm:5 0110 10 rn:5 rd:5" [Fp];
        fmaxnm_s              "000 11110 11 1 rm:5 0110 10 rn:5 rd:5" [Fp16];
        fminnm_s              "000 11110 0 fsz:1 1 rm:5 0111 10 rn:5 rd:5" [Fp];
        fminnm_s              "000 11110 11 1 rm:5 0111 10 rn:5 rd:5" [Fp16];
        fnmul_s               "000 11110 0 fsz:1 1 rm:5 1000 10 rn:5 rd:5" [Fp];
        fnmul_s               "000 11110 11 1 rm:5 1000 10 rn:5 rd:5" [Fp16];
    }
    "Floating-point data-processing (3 source)" {
        fmadd                 "000 11111 0 fsz:1 0 rm:5 0 ra:5 rn:5 rd:5" [Fp];
        fmadd                 "000 11111 11 0 rm:5 0 ra:5 rn:5 rd:5" [Fp16];
        fmsub                 "000 11111 0 fsz:1 0 rm:5 1 ra:5 rn:5 rd:5" [Fp];
        fmsub                 "000 11111 11 0 rm:5 1 ra:5 rn:5 rd:5" [Fp16];
        fnmadd                "000 11111 0 fsz:1 1 rm:5 0 ra:5 rn:5 rd:5" [Fp];
        fnmadd                "000 11111 11 1 rm:5 0 ra:5 rn:5 rd:5" [Fp16];
        fnmsub                "000 11111 0 fsz:1 1 rm:5 1 ra:5 rn:5 rd:5" [Fp];
        fnmsub                "000 11111 11 1 rm:5 1 ra:5 rn:5 rd:5" [Fp16];
    }
    "Floating-point compare" {
        fcmp_s                "000 11110 0 fsz:1 1 rm:5 00 1000 rn:5 0 0 000" [Fp];
        fcmp_s                "000 11110 11 1 rm:5 00 1000 rn:5 0 0 000" [Fp16];
        fcmp_s                "000 11110 0 fsz:1 1 (00000) 00 1000 rn:5 0 1 000" [Fp];
        fcmp_s                "000 11110 11 1 (00000) 00 1000 rn:5 0 1 000" [Fp16];
        fcmpe_s               "000 11110 0 fsz:1 1 rm:5 00 1000 rn:5 1 0 000" [Fp];
        fcmpe_s               "000 11110 11 1 rm:5 00 1000 rn:5 1 0 000" [Fp16];
        fcmpe_s               "000 11110 0 fsz:1 1 (00000) 00 1000 rn:5 1 1 000" [Fp];
        fcmpe_s               "000 11110 11 1 (00000) 00 1000 rn:5 1 1 000" [Fp16];
    }
    "Floating-point conditional compare" {
        fccmp                 "000 11110 0 fsz:1 1 rm:5 cond:4 01 rn:5 0 nzcv:4" [Fp];
        fccmp                 "000 11110 11 1 rm:5 cond:4 01 rn:5 0 nzcv:4" [Fp16];
        fccmpe                "000 11110 0 fsz:1 1 rm:5 cond:4 01 rn:5 1 nzcv:4" [Fp];
        fccmpe                "000 11110 11 1 rm:5 cond:4 01 rn:5 1 nzcv:4" [Fp16];
    }
    "Floating-point conditional select" {
        fcsel                 "000 11110 0 fsz:1 1 rm:5 cond:4 11 rn:5 rd:5" [Fp];
        fcsel                 "000 11110 11 1 rm:5 cond:4 11 rn:5 rd:5" [Fp16];
    }
    "Floating-point immediate" {
        fmov_imm              "000 11110 0 fsz:1 1 imm8:8 100 00000 rd:5" [Fp];
        fmov_imm              "000 11110 11 1 imm8:8 100 00000 rd:5" [Fp16];
    }
    "Conversion between floating-point and integer" {
        fcvtns_g              "sf:1 00 11110 0 fsz:1 1 00 000 000000 rn:5 rd:5" [Fp];
        fcvtns_g              "sf:1 00 11110 11 1 00 000 000000 rn:5 rd:5" [Fp16];
        fcvtnu_g              "sf:1 00 11110 0 fsz:1 1 00 001 000000 rn:5 rd:5" [Fp];
        fcvtnu_g              "sf:1 00 11110 11 1 00 001 000000 rn:5 rd:5" [Fp16];
        scvtf_g               "sf:1 00 11110 0 fsz:1 1 00 010 000000 rn:5 rd:5" [Fp];
        scvtf_g               "sf:1 00 11110 11 1 00 010 000000 rn:5 rd:5" [Fp16];
        ucvtf_g               "sf:1 00 11110 0 fsz:1 1 00 011 000000 rn:5 rd:5" [Fp];
        ucvtf_g               "sf:1 00 11110 11 1 00 011 000000 rn:5 rd:5" [Fp16];
        fcvtas_g              "sf:1 00 11110 0 fsz:1 1 00 100 000000 rn:5 rd:5" [Fp];
        fcvtas_g              "sf:1 00 11110 11 1 00 100 000000 rn:5 rd:5" [Fp16];
        fcvtau_g              "sf:1 00 11110 0 fsz:1 1 00 101 000000 rn:5 rd:5" [Fp];
        fcvtau_g              "sf:1 00 11110 11 1 00 101 000000 rn:5 rd:5" [Fp16];
        fcvtps_g              "sf:1 00 11110 0 fsz:1 1 01 000 000000 rn:5 rd:5" [Fp];
        fcvtps_g              "sf:1 00 11110 11 1 01 000 000000 rn:5 rd:5" [Fp16];
        fcvtpu_g              "sf:1 00 11110 0 fsz:1 1 01 001 000000 rn:5 rd:5" [Fp];
        fcvtpu_g              "sf:1 00 11110 11 1 01 001 000000 rn:5 rd:5" [Fp16];
        fcvtms_g              "sf:1 00 11110 0 fsz:1 1 10 000 000000 rn:5 rd:5" [Fp];
        fcvtms_g              "sf:1 00 11110 11 1 10 000 000000 rn:5 rd:5" [Fp16];
        fcvtmu_g              "sf:1 00 11110 0 fsz:1 1 10 001 000000 rn:5 rd:5" [Fp];
        fcvtmu_g              "sf:1 00 11110 11 1 10 001 000000 rn:5 rd:5" [Fp16];
        fcvtzs_g              "sf:1 00 11110 0 fsz:1 1 11 000 000000 rn:5 rd:5" [Fp];
        fcvtzs_g              "sf:1 00 11110 11 1 11 000 000000 rn:5 rd:5" [Fp16];
        fcvtzu_g              "sf:1 00 11110 0 fsz:1 1 11 001 000000 rn:5 rd:5" [Fp];
        fcvtzu_g              "sf:1 00 11110 11 1 11 001 000000 rn:5 rd:5" [Fp16];
        fmov_to_general       "0 00 11110 00 1 00 110 000000 rn:5 rd:5" [Fp];
        fmov_to_general       "1 00 11110 01 1 00 110 000000 rn:5 rd:5" [Fp];
        fmov_to_general       "sf:1 00 11110 11 1 00 110 000000 rn:5 rd:5" [Fp16];
        fmov_from_general     "0 00 11110 00 1 00 111 000000 rn:5 rd:5" [Fp];
        fmov_from_general     "1 00 11110 01 1 00 111 000000 rn:5 rd:5" [Fp];
        fmov_from_general     "sf:1 00 11110 11 1 00 111 000000 rn:5 rd:5" [Fp16];
        fmov_top_to_general   "1 00 11110 10 1 01 110 000000 rn:5 rd:5" [Fp];
        fmov_top_from_general "1 00 11110 10 1 01 111 000000 rn:5 rd:5" [Fp];
        fjcvtzs               "0 00 11110 01 1 11 110 000000 rn:5 rd:5" [Jscvt];
    }
    "Conversion between floating-point and fixed-point" {
        scvtf_fixed_g         "sf:1 00 11110 0 fsz:1 0 00 010 scale:6 rn:5 rd:5" [Fp] if scale_fits;
        scvtf_fixed_g         "sf:1 00 11110 11 0 00 010 scale:6 rn:5 rd:5" [Fp16] if scale_fits;
        ucvtf_fixed_g         "sf:1 00 11110 0 fsz:1 0 00 011 scale:6 rn:5 rd:5" [Fp] if scale_fits;
        ucvtf_fixed_g         "sf:1 00 11110 11 0 00 011 scale:6 rn:5 rd:5" [Fp16] if scale_fits;
        fcvtzs_fixed_g        "sf:1 00 11110 0 fsz:1 0 11 000 scale:6 rn:5 rd:5" [Fp] if scale_fits;
        fcvtzs_fixed_g        "sf:1 00 11110 11 0 11 000 scale:6 rn:5 rd:5" [Fp16] if scale_fits;
        fcvtzu_fixed_g        "sf:1 00 11110 0 fsz:1 0 11 001 scale:6 rn:5 rd:5" [Fp] if scale_fits;
        fcvtzu_fixed_g        "sf:1 00 11110 11 0 11 001 scale:6 rn:5 rd:5" [Fp16] if scale_fits;
    }
}
