//! Data processing with general registers: chapters C4.1 "Data Processing -- Immediate" and "-- Register".
//!
//! The tagged-memory (MTE) and pointer-authentication (PAuth) members of these classes have no rows: no model
//! has them.

use super::{Insn, table};
use crate::a64::integer::{self as lift, bit_mask};

/// The 32-bit form has no sixth bit of shift.
const fn shift_fits(i: Insn) -> bool {
    i.sf() == 1 || i.imm6() < 32
}

/// Arithmetic has no rotation.
const fn arithmetic_shift(i: Insn) -> bool {
    i.shift() != 3 && shift_fits(i)
}

const fn field_fits(i: Insn) -> bool {
    i.n() == i.sf() && (i.sf() == 1 || i.immr() < 32 && i.imms() < 32)
}

const fn is_mask(i: Insn) -> bool {
    bit_mask(i).is_some()
}

table! {
    "PC-rel. addressing" {
        adr   "0 immlo:2 10000 immhi:19 rd:5";
        adrp  "1 immlo:2 10000 immhi:19 rd:5";
    }
    "Add/subtract (immediate)" {
        add_imm   "sf:1 0 0 100010 sh:1 imm12:12 rn:5 rd:5";
        adds_imm  "sf:1 0 1 100010 sh:1 imm12:12 rn:5 rd:5";
        sub_imm   "sf:1 1 0 100010 sh:1 imm12:12 rn:5 rd:5";
        subs_imm  "sf:1 1 1 100010 sh:1 imm12:12 rn:5 rd:5";
    }
    "Logical (immediate)" {
        and_imm   "sf:1 00 100100 n:1 immr:6 imms:6 rn:5 rd:5" if is_mask;
        orr_imm   "sf:1 01 100100 n:1 immr:6 imms:6 rn:5 rd:5" if is_mask;
        eor_imm   "sf:1 10 100100 n:1 immr:6 imms:6 rn:5 rd:5" if is_mask;
        ands_imm  "sf:1 11 100100 n:1 immr:6 imms:6 rn:5 rd:5" if is_mask;
    }
    "Move wide (immediate)" {
        movn  "sf:1 00 100101 hw:2 imm16:16 rd:5" if |i| i.sf() == 1 || i.hw() < 2;
        movz  "sf:1 10 100101 hw:2 imm16:16 rd:5" if |i| i.sf() == 1 || i.hw() < 2;
        movk  "sf:1 11 100101 hw:2 imm16:16 rd:5" if |i| i.sf() == 1 || i.hw() < 2;
    }
    "Bitfield" {
        sbfm  "sf:1 00 100110 n:1 immr:6 imms:6 rn:5 rd:5" if field_fits;
        bfm   "sf:1 01 100110 n:1 immr:6 imms:6 rn:5 rd:5" if field_fits;
        ubfm  "sf:1 10 100110 n:1 immr:6 imms:6 rn:5 rd:5" if field_fits;
    }
    "Extract" {
        extr  "sf:1 00 100111 n:1 0 rm:5 imms:6 rn:5 rd:5"
            if |i| i.n() == i.sf() && (i.sf() == 1 || i.imms() < 32);
    }
    "Data-processing (2 source)" {
        udiv  "sf:1 0 0 11010110 rm:5 000010 rn:5 rd:5";
        sdiv  "sf:1 0 0 11010110 rm:5 000011 rn:5 rd:5";
        lslv  "sf:1 0 0 11010110 rm:5 001000 rn:5 rd:5";
        lsrv  "sf:1 0 0 11010110 rm:5 001001 rn:5 rd:5";
        asrv  "sf:1 0 0 11010110 rm:5 001010 rn:5 rd:5";
        rorv  "sf:1 0 0 11010110 rm:5 001011 rn:5 rd:5";
        crc32b   "0 0 0 11010110 rm:5 010000 rn:5 rd:5" [Crc32];
        crc32h   "0 0 0 11010110 rm:5 010001 rn:5 rd:5" [Crc32];
        crc32w   "0 0 0 11010110 rm:5 010010 rn:5 rd:5" [Crc32];
        crc32x   "1 0 0 11010110 rm:5 010011 rn:5 rd:5" [Crc32];
        crc32cb  "0 0 0 11010110 rm:5 010100 rn:5 rd:5" [Crc32];
        crc32ch  "0 0 0 11010110 rm:5 010101 rn:5 rd:5" [Crc32];
        crc32cw  "0 0 0 11010110 rm:5 010110 rn:5 rd:5" [Crc32];
        crc32cx  "1 0 0 11010110 rm:5 010111 rn:5 rd:5" [Crc32];
    }
    "Data-processing (1 source)" {
        rbit   "sf:1 1 0 11010110 00000 000000 rn:5 rd:5";
        rev16  "sf:1 1 0 11010110 00000 000001 rn:5 rd:5";
        rev_w  "0 1 0 11010110 00000 000010 rn:5 rd:5";
        rev32  "1 1 0 11010110 00000 000010 rn:5 rd:5";
        rev_x  "1 1 0 11010110 00000 000011 rn:5 rd:5";
        clz    "sf:1 1 0 11010110 00000 000100 rn:5 rd:5";
        cls    "sf:1 1 0 11010110 00000 000101 rn:5 rd:5";
    }
    "Logical (shifted register)" {
        and_shifted   "sf:1 00 01010 shift:2 0 rm:5 imm6:6 rn:5 rd:5" if shift_fits;
        bic_shifted   "sf:1 00 01010 shift:2 1 rm:5 imm6:6 rn:5 rd:5" if shift_fits;
        orr_shifted   "sf:1 01 01010 shift:2 0 rm:5 imm6:6 rn:5 rd:5" if shift_fits;
        orn_shifted   "sf:1 01 01010 shift:2 1 rm:5 imm6:6 rn:5 rd:5" if shift_fits;
        eor_shifted   "sf:1 10 01010 shift:2 0 rm:5 imm6:6 rn:5 rd:5" if shift_fits;
        eon_shifted   "sf:1 10 01010 shift:2 1 rm:5 imm6:6 rn:5 rd:5" if shift_fits;
        ands_shifted  "sf:1 11 01010 shift:2 0 rm:5 imm6:6 rn:5 rd:5" if shift_fits;
        bics_shifted  "sf:1 11 01010 shift:2 1 rm:5 imm6:6 rn:5 rd:5" if shift_fits;
    }
    "Add/subtract (shifted register)" {
        add_shifted   "sf:1 0 0 01011 shift:2 0 rm:5 imm6:6 rn:5 rd:5" if arithmetic_shift;
        adds_shifted  "sf:1 0 1 01011 shift:2 0 rm:5 imm6:6 rn:5 rd:5" if arithmetic_shift;
        sub_shifted   "sf:1 1 0 01011 shift:2 0 rm:5 imm6:6 rn:5 rd:5" if arithmetic_shift;
        subs_shifted  "sf:1 1 1 01011 shift:2 0 rm:5 imm6:6 rn:5 rd:5" if arithmetic_shift;
    }
    "Add/subtract (extended register)" {
        add_extended   "sf:1 0 0 01011 00 1 rm:5 option:3 imm3:3 rn:5 rd:5" if |i| i.imm3() <= 4;
        adds_extended  "sf:1 0 1 01011 00 1 rm:5 option:3 imm3:3 rn:5 rd:5" if |i| i.imm3() <= 4;
        sub_extended   "sf:1 1 0 01011 00 1 rm:5 option:3 imm3:3 rn:5 rd:5" if |i| i.imm3() <= 4;
        subs_extended  "sf:1 1 1 01011 00 1 rm:5 option:3 imm3:3 rn:5 rd:5" if |i| i.imm3() <= 4;
    }
    "Add/subtract (with carry)" {
        adc   "sf:1 0 0 11010000 rm:5 000000 rn:5 rd:5";
        adcs  "sf:1 0 1 11010000 rm:5 000000 rn:5 rd:5";
        sbc   "sf:1 1 0 11010000 rm:5 000000 rn:5 rd:5";
        sbcs  "sf:1 1 1 11010000 rm:5 000000 rn:5 rd:5";
    }
    "Rotate right into flags" {
        rmif  "1 0 1 11010000 rotate:6 00001 rn:5 0 mask:4" [Flagm];
    }
    "Evaluate into flags" {
        setf8   "0 0 1 11010000 000000 0 0010 rn:5 0 1101" [Flagm];
        setf16  "0 0 1 11010000 000000 1 0010 rn:5 0 1101" [Flagm];
    }
    "Conditional compare (register)" {
        ccmn_reg  "sf:1 0 1 11010010 rm:5 cond:4 0 0 rn:5 0 nzcv:4";
        ccmp_reg  "sf:1 1 1 11010010 rm:5 cond:4 0 0 rn:5 0 nzcv:4";
    }
    "Conditional compare (immediate)" {
        ccmn_imm  "sf:1 0 1 11010010 imm5:5 cond:4 1 0 rn:5 0 nzcv:4";
        ccmp_imm  "sf:1 1 1 11010010 imm5:5 cond:4 1 0 rn:5 0 nzcv:4";
    }
    "Conditional select" {
        csel   "sf:1 0 0 11010100 rm:5 cond:4 00 rn:5 rd:5";
        csinc  "sf:1 0 0 11010100 rm:5 cond:4 01 rn:5 rd:5";
        csinv  "sf:1 1 0 11010100 rm:5 cond:4 00 rn:5 rd:5";
        csneg  "sf:1 1 0 11010100 rm:5 cond:4 01 rn:5 rd:5";
    }
    "Data-processing (3 source)" {
        madd    "sf:1 00 11011 000 rm:5 0 ra:5 rn:5 rd:5";
        msub    "sf:1 00 11011 000 rm:5 1 ra:5 rn:5 rd:5";
        smaddl  "1 00 11011 001 rm:5 0 ra:5 rn:5 rd:5";
        smsubl  "1 00 11011 001 rm:5 1 ra:5 rn:5 rd:5";
        smulh   "1 00 11011 010 rm:5 0 (11111) rn:5 rd:5";
        umaddl  "1 00 11011 101 rm:5 0 ra:5 rn:5 rd:5";
        umsubl  "1 00 11011 101 rm:5 1 ra:5 rn:5 rd:5";
        umulh   "1 00 11011 110 rm:5 0 (11111) rn:5 rd:5";
    }
}
