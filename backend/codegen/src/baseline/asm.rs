//! An encoder for the x86-64 instructions that the templates use.
//!
//! Instructions are named by what differs: an [`Alu`] or [`Shift`] number, a condition [`Cc`], or for SSE a packed
//! opcode ([`sse`]). Jumps forward are [`Patch`]es until their target is reached; references to the data behind the
//! code are [`Fixup`]s until its place is known. The tests decode what comes out with another's decoder.

/// A general register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gpr(pub u8);
/// A vector register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Xmm(pub u8);

pub const RAX: Gpr = Gpr(0);
pub const RCX: Gpr = Gpr(1);
pub const RDX: Gpr = Gpr(2);
pub const RBP: Gpr = Gpr(5);
pub const RSI: Gpr = Gpr(6);
pub const RDI: Gpr = Gpr(7);
pub const XMM0: Xmm = Xmm(0);
pub const XMM1: Xmm = Xmm(1);

/// Width of an operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum W {
    B8,
    B16,
    B32,
    B64,
}

impl W {
    /// Of `8 << log2` bits.
    pub const fn of_log2(log2: u16) -> W {
        match log2 & 3 {
            0 => W::B8,
            1 => W::B16,
            2 => W::B32,
            _ => W::B64,
        }
    }
    pub const fn bits(self) -> u32 {
        8 << self as u32
    }
    /// At least 32 bits: narrower operations are done in 32.
    pub const fn full(self) -> W {
        if matches!(self, W::B64) { W::B64 } else { W::B32 }
    }
}

/// The classic two-operand operations, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alu {
    Add,
    Or,
    Adc,
    #[expect(dead_code)]
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
}

/// Shifts and rotates, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shift {
    Rol = 0,
    Ror = 1,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

/// Operations on one operand in opcode F7, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unary {
    Not = 2,
    Neg = 3,
    Mul = 4,
    Imul = 5,
    Div = 6,
    Idiv = 7,
}

/// A condition, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cc {
    O,
    No,
    B,
    Ae,
    E,
    Ne,
    Be,
    A,
    S,
    Ns,
    P,
    Np,
    L,
    Ge,
    Le,
    G,
}

impl Cc {
    pub const ALL: [Cc; 16] = [
        Cc::O,
        Cc::No,
        Cc::B,
        Cc::Ae,
        Cc::E,
        Cc::Ne,
        Cc::Be,
        Cc::A,
        Cc::S,
        Cc::Ns,
        Cc::P,
        Cc::Np,
        Cc::L,
        Cc::Ge,
        Cc::Le,
        Cc::G,
    ];
    pub const fn negated(self) -> Cc {
        Cc::ALL[self as usize ^ 1]
    }
}

/// A place in memory: base plus scaled index plus displacement, or data behind the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mem {
    Base { base: Gpr, disp: i32 },
    Index { base: Gpr, index: Gpr, scale: u8, disp: i32 },
    Data(Data),
}

impl Mem {
    pub const fn base(base: Gpr, disp: i32) -> Mem {
        Mem::Base { base, disp }
    }
    /// `scale` is log2.
    pub const fn index(base: Gpr, index: Gpr, scale: u8, disp: i32) -> Mem {
        Mem::Index { base, index, scale, disp }
    }
}

/// Data behind the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Data {
    /// Edge record of this number.
    Edge(u32),
    /// Byte offset in the literals.
    Literal(u32),
}

/// A 32-bit displacement at `at` that is to reach `to`, counted from the end of its instruction: `behind` bytes of
/// immediate follow.
#[derive(Clone, Copy, Debug)]
pub struct Fixup {
    pub at: u32,
    pub behind: u8,
    pub to: Data,
}

/// A jump whose target is not known yet: where its displacement stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Patch(pub u32);
/// The same with a displacement of one byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct ShortPatch(u32);

/// Register or memory operand.
#[derive(Clone, Copy)]
enum Rm {
    R(u8),
    M(Mem),
}

/// Packed opcodes of SSE instructions: mandatory prefix, opcode map (1: 0F, 2: 0F 38, 3: 0F 3A), opcode.
pub mod sse {
    pub const MOVUPS: u32 = 0x00_01_10;
    pub const MOVUPS_STORE: u32 = 0x00_01_11;
    pub const MOVAPS: u32 = 0x00_01_28;
    pub const MOVSS: u32 = 0xf3_01_10;
    pub const MOVSS_STORE: u32 = 0xf3_01_11;
    /// 64 bits from memory or a register, the rest zero.
    pub const MOVQ: u32 = 0xf3_01_7e;
    pub const MOVQ_STORE: u32 = 0x66_01_d6;
    pub const PUNPCKLQDQ: u32 = 0x66_01_6c;
    pub const XORPS: u32 = 0x00_01_57;
    pub const ANDPS: u32 = 0x00_01_54;
    pub const UCOMISS: u32 = 0x00_01_2e;
    pub const UCOMISD: u32 = 0x66_01_2e;
    pub const COMISS: u32 = 0x00_01_2f;
    pub const COMISD: u32 = 0x66_01_2f;
    pub const CVTSS2SD: u32 = 0xf3_01_5a;
    pub const CVTSD2SS: u32 = 0xf2_01_5a;
    pub const PAND: u32 = 0x66_01_db;
    pub const PANDN: u32 = 0x66_01_df;
    pub const POR: u32 = 0x66_01_eb;
    pub const PXOR: u32 = 0x66_01_ef;
    pub const PSHUFB: u32 = 0x66_02_00;
    pub const PCMPEQD: u32 = 0x66_01_76;
    pub const CVTDQ2PS: u32 = 0x00_01_5b;
    pub const CVTTPS2DQ: u32 = 0xf3_01_5b;
    pub const PSHUFD: u32 = 0x66_01_70;
    pub const SHUFPS: u32 = 0x00_01_c6;
    pub const PUNPCKHQDQ: u32 = 0x66_01_6d;
    pub const ORPS: u32 = 0x00_01_56;
    pub const PTEST: u32 = 0x66_02_17;
    pub const PMOVMSKB: u32 = 0x66_01_d7;
    pub const MOVMSKPS: u32 = 0x00_01_50;
    pub const MOVMSKPD: u32 = 0x66_01_50;
}

/// The code so far.
#[derive(Default)]
pub struct Asm {
    /// Longer than the code: see [`Asm::room`].
    bytes: Vec<u8>,
    len: usize,
    pub fixups: Vec<Fixup>,
}

/// No instruction is longer.
const LONGEST: usize = 16;

/// One instruction on its way.
struct Insn<'a> {
    out: &'a mut [u8; LONGEST],
    len: usize,
}

impl Insn<'_> {
    #[inline(always)]
    fn byte(&mut self, b: u8) {
        self.out[self.len & (LONGEST - 1)] = b;
        self.len += 1;
    }
    #[inline(always)]
    fn word(&mut self, w: u32) {
        for b in w.to_le_bytes() {
            self.byte(b);
        }
    }
    /// ModRM byte with what follows, for register field `reg`. Returns where the displacement of data stands.
    #[inline(always)]
    fn operand(&mut self, reg: u8, rm: Rm) -> Option<Data> {
        let reg = (reg & 7) << 3;
        match rm {
            Rm::R(r) => self.byte(0xc0 | reg | r & 7),
            Rm::M(Mem::Base { base, disp }) => {
                let (form, low) = (displacement(base, disp), base.0 & 7);
                self.byte(form << 6 | reg | low);
                if low == 4 {
                    self.byte(0x24);
                }
                self.displace(form, disp);
            }
            Rm::M(Mem::Index { base, index, scale, disp }) => {
                debug_assert!(index.0 != 4 && scale < 4);
                let form = displacement(base, disp);
                self.byte(form << 6 | reg | 4);
                self.byte(scale << 6 | (index.0 & 7) << 3 | base.0 & 7);
                self.displace(form, disp);
            }
            Rm::M(Mem::Data(data)) => {
                self.byte(reg | 5);
                self.word(0);
                return Some(data);
            }
        }
        None
    }
    #[inline(always)]
    fn displace(&mut self, form: u8, disp: i32) {
        match form {
            0 => {}
            1 => self.byte(disp as u8),
            _ => self.word(disp as u32),
        }
    }
}

/// The mod field: no displacement, one byte, four.
#[inline(always)]
fn displacement(base: Gpr, disp: i32) -> u8 {
    if disp == 0 && base.0 & 7 != 5 {
        0
    } else if disp as i8 as i32 == disp {
        1
    } else {
        2
    }
}

impl Asm {
    pub fn clear(&mut self) {
        self.len = 0;
        self.fixups.clear();
    }
    #[inline]
    pub fn here(&self) -> u32 {
        self.len as u32
    }
    pub fn code(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Room for one more instruction.
    #[inline(always)]
    fn room(&mut self) -> Insn<'_> {
        if self.bytes.len() < self.len + LONGEST {
            self.grow();
        }
        let (out, _) = self.bytes[self.len..].split_first_chunk_mut().expect("just made");
        Insn { out, len: 0 }
    }
    #[cold]
    fn grow(&mut self) {
        self.bytes.resize(2 * self.bytes.len() + 4096, 0);
    }

    /// The general form: prefix (0 for none), REX.W, opcode map, opcode, operands, immediate of `imm_len` bytes.
    #[inline(always)]
    #[expect(clippy::too_many_arguments)]
    fn insn(
        &mut self,
        prefix: u8,
        wide: bool,
        map: u8,
        opcode: u8,
        reg: u8,
        rm: Rm,
        bytes: bool,
        imm: (u32, u8),
    ) {
        let mut insn = self.room();
        if prefix != 0 {
            insn.byte(prefix);
        }
        let (index, base) = match rm {
            Rm::R(r) => (0, r),
            Rm::M(Mem::Base { base, .. }) => (0, base.0),
            Rm::M(Mem::Index { base, index, .. }) => (index.0, base.0),
            Rm::M(Mem::Data(_)) => (0, 0),
        };
        let rex = (wide as u8) << 3 | reg >> 3 << 2 | index >> 3 << 1 | base >> 3;
        // The byte registers 4 to 7 are other ones without the prefix.
        let low_byte = bytes && (reg >= 4 || matches!(rm, Rm::R(4..)));
        if rex != 0 || low_byte {
            insn.byte(0x40 | rex);
        }
        if map != 0 {
            insn.byte(0x0f);
            match map {
                2 => insn.byte(0x38),
                3 => insn.byte(0x3a),
                _ => {}
            }
        }
        insn.byte(opcode);
        let data = insn.operand(reg, rm);
        let at = insn.len;
        for b in &imm.0.to_le_bytes()[..imm.1 as usize] {
            insn.byte(*b);
        }
        let len = insn.len;
        if let Some(to) = data {
            self.fixups.push(Fixup { at: (self.len + at - 4) as u32, behind: imm.1, to });
        }
        self.len += len;
    }

    /// An operation of the given width whose opcode for bytes is one less.
    #[inline(always)]
    fn sized(&mut self, w: W, opcode: u8, reg: u8, rm: Rm, imm: (u32, u8)) {
        let prefix = if w == W::B16 { 0x66 } else { 0 };
        let opcode = if w == W::B8 { opcode & !1 } else { opcode };
        self.insn(prefix, w == W::B64, 0, opcode, reg, rm, w == W::B8, imm);
    }
    fn bytes(&mut self, bytes: &[u8]) {
        let mut insn = self.room();
        for &b in bytes {
            insn.byte(b);
        }
        self.len += bytes.len();
    }

    // Moves.

    /// Copies all 64 bits, or the low 32 zero-extended.
    pub fn mov_rr(&mut self, w: W, d: Gpr, s: Gpr) {
        self.insn(0, w == W::B64, 0, 0x8b, d.0, Rm::R(s.0), false, (0, 0));
    }
    /// Loads 32 (zero-extended) or 64 bits.
    pub fn mov_rm(&mut self, w: W, d: Gpr, s: Mem) {
        self.insn(0, w == W::B64, 0, 0x8b, d.0, Rm::M(s), false, (0, 0));
    }
    pub fn mov_mr(&mut self, w: W, d: Mem, s: Gpr) {
        self.sized(w, 0x89, s.0, Rm::M(d), (0, 0));
    }
    /// Stores a constant, sign-extended.
    pub fn mov_mi(&mut self, w: W, d: Mem, imm: i32) {
        let len = match w {
            W::B8 => 1,
            W::B16 => 2,
            _ => 4,
        };
        self.sized(w, 0xc7, 0, Rm::M(d), (imm as u32, len));
    }
    /// Leaves the flags alone.
    pub fn mov_ri(&mut self, d: Gpr, imm: u64) {
        if imm as u32 as u64 == imm {
            let mut insn = self.room();
            if d.0 >= 8 {
                insn.byte(0x41);
            }
            insn.byte(0xb8 | d.0 & 7);
            insn.word(imm as u32);
            self.len += insn.len;
        } else if imm as i32 as u64 == imm {
            self.insn(0, true, 0, 0xc7, 0, Rm::R(d.0), false, (imm as u32, 4));
        } else {
            let mut insn = self.room();
            insn.byte(0x48 | d.0 >> 3);
            insn.byte(0xb8 | d.0 & 7);
            insn.word(imm as u32);
            insn.word((imm >> 32) as u32);
            self.len += insn.len;
        }
    }
    /// Changes the flags.
    pub fn zero(&mut self, d: Gpr) {
        self.alu_rr(Alu::Xor, W::B32, d, d);
    }
    /// Zero-extends from `from` (8 to 32 bits).
    pub fn movzx(&mut self, from: W, d: Gpr, s: Gpr) {
        self.extend(from, false, W::B32, d, Rm::R(s.0));
    }
    pub fn movzx_m(&mut self, from: W, d: Gpr, s: Mem) {
        self.extend(from, false, W::B32, d, Rm::M(s));
    }
    pub fn movsx(&mut self, from: W, to: W, d: Gpr, s: Gpr) {
        self.extend(from, true, to, d, Rm::R(s.0));
    }
    pub fn movsx_m(&mut self, from: W, to: W, d: Gpr, s: Mem) {
        self.extend(from, true, to, d, Rm::M(s));
    }
    fn extend(&mut self, from: W, signed: bool, to: W, d: Gpr, rm: Rm) {
        let wide = to == W::B64;
        let s = if signed { 8 } else { 0 };
        match from {
            W::B8 => self.insn(0, wide, 1, 0xb6 | s, d.0, rm, true, (0, 0)),
            W::B16 => self.insn(0, wide, 1, 0xb7 | s, d.0, rm, false, (0, 0)),
            W::B32 if signed && wide => self.insn(0, true, 0, 0x63, d.0, rm, false, (0, 0)),
            W::B32 | W::B64 => {
                self.insn(0, wide && from == W::B64, 0, 0x8b, d.0, rm, false, (0, 0))
            }
        }
    }
    pub fn lea(&mut self, w: W, d: Gpr, m: Mem) {
        self.insn(0, w == W::B64, 0, 0x8d, d.0, Rm::M(m), false, (0, 0));
    }
    pub fn push(&mut self, r: Gpr) {
        debug_assert!(r.0 < 8);
        self.bytes(&[0x50 | r.0]);
    }
    pub fn pop(&mut self, r: Gpr) {
        debug_assert!(r.0 < 8);
        self.bytes(&[0x58 | r.0]);
    }

    // Integers.

    pub fn alu_rr(&mut self, op: Alu, w: W, d: Gpr, s: Gpr) {
        self.sized(w, (op as u8) << 3 | 3, d.0, Rm::R(s.0), (0, 0));
    }
    pub fn alu_rm(&mut self, op: Alu, w: W, d: Gpr, s: Mem) {
        self.sized(w, (op as u8) << 3 | 3, d.0, Rm::M(s), (0, 0));
    }
    pub fn alu_ri(&mut self, op: Alu, w: W, d: Gpr, imm: i32) {
        self.alu_imm(op, w, Rm::R(d.0), imm);
    }
    pub fn alu_mi(&mut self, op: Alu, w: W, d: Mem, imm: i32) {
        self.alu_imm(op, w, Rm::M(d), imm);
    }
    fn alu_imm(&mut self, op: Alu, w: W, rm: Rm, imm: i32) {
        if w == W::B8 {
            self.sized(w, 0x81, op as u8, rm, (imm as u32, 1));
        } else if imm as i8 as i32 == imm {
            self.sized(w, 0x83, op as u8, rm, (imm as u32, 1));
        } else {
            self.sized(w, 0x81, op as u8, rm, (imm as u32, if w == W::B16 { 2 } else { 4 }));
        }
    }
    pub fn test_rr(&mut self, w: W, a: Gpr, b: Gpr) {
        self.sized(w, 0x85, b.0, Rm::R(a.0), (0, 0));
    }
    /// 8 or 32 bits.
    pub fn test_ri(&mut self, w: W, a: Gpr, imm: u32) {
        self.sized(w, 0xf7, 0, Rm::R(a.0), (imm, if w == W::B8 { 1 } else { 4 }));
    }
    pub fn test_mi(&mut self, w: W, a: Mem, imm: u32) {
        self.sized(w, 0xf7, 0, Rm::M(a), (imm, if w == W::B8 { 1 } else { 4 }));
    }
    /// Adds one to a 32-bit word.
    pub fn inc_m(&mut self, m: Mem) {
        self.sized(W::B32, 0xff, 0, Rm::M(m), (0, 0));
    }
    pub fn unary(&mut self, op: Unary, w: W, r: Gpr) {
        self.sized(w, 0xf7, op as u8, Rm::R(r.0), (0, 0));
    }
    pub fn shift_ri(&mut self, op: Shift, w: W, r: Gpr, by: u8) {
        if by == 1 {
            self.sized(w, 0xd1, op as u8, Rm::R(r.0), (0, 0));
        } else {
            self.sized(w, 0xc1, op as u8, Rm::R(r.0), (by as u32, 1));
        }
    }
    /// By `cl`.
    pub fn shift_cl(&mut self, op: Shift, w: W, r: Gpr) {
        self.sized(w, 0xd3, op as u8, Rm::R(r.0), (0, 0));
    }
    /// BMI2: `d = s shifted by n`, without flags. 32 or 64 bits.
    pub fn shift_x(&mut self, op: Shift, w: W, d: Gpr, s: Gpr, n: Gpr) {
        let pp = match op {
            Shift::Shl => 1,
            Shift::Sar => 2,
            _ => 3,
        };
        let (d, s, n) = (d.0, s.0, n.0);
        let rxb = !(d >> 3) << 7 | 0x40 | (!(s >> 3) & 1) << 5;
        let wide = ((w == W::B64) as u8) << 7;
        self.bytes(&[0xc4, rxb | 2, wide | (!n & 15) << 3 | pp, 0xf7, 0xc0 | (d & 7) << 3 | s & 7]);
    }
    pub fn imul_rr(&mut self, w: W, d: Gpr, s: Gpr) {
        self.insn(0, w == W::B64, 1, 0xaf, d.0, Rm::R(s.0), false, (0, 0));
    }
    pub fn imul_rri(&mut self, w: W, d: Gpr, s: Gpr, imm: i32) {
        let wide = w == W::B64;
        if imm as i8 as i32 == imm {
            self.insn(0, wide, 0, 0x6b, d.0, Rm::R(s.0), false, (imm as u32, 1));
        } else {
            self.insn(0, wide, 0, 0x69, d.0, Rm::R(s.0), false, (imm as u32, 4));
        }
    }
    /// `rdx:rax` from the sign of `rax`.
    pub fn sign_to_rdx(&mut self, w: W) {
        if w == W::B64 { self.bytes(&[0x48, 0x99]) } else { self.bytes(&[0x99]) }
    }
    /// `d` shifted right by `by`, filled from `s`; 64 bits.
    pub fn shrd(&mut self, d: Gpr, s: Gpr, by: u8) {
        self.insn(0, true, 1, 0xac, s.0, Rm::R(d.0), false, (by as u32, 1));
    }
    pub fn bswap(&mut self, w: W, r: Gpr) {
        let rex = 0x40 | ((w == W::B64) as u8) << 3 | r.0 >> 3;
        self.bytes(&[rex, 0x0f, 0xc8 | r.0 & 7]);
    }
    pub fn lzcnt(&mut self, w: W, d: Gpr, s: Gpr) {
        self.insn(0xf3, w == W::B64, 1, 0xbd, d.0, Rm::R(s.0), false, (0, 0));
    }
    pub fn tzcnt(&mut self, w: W, d: Gpr, s: Gpr) {
        self.insn(0xf3, w == W::B64, 1, 0xbc, d.0, Rm::R(s.0), false, (0, 0));
    }
    pub fn popcnt(&mut self, w: W, d: Gpr, s: Gpr) {
        self.insn(0xf3, w == W::B64, 1, 0xb8, d.0, Rm::R(s.0), false, (0, 0));
    }
    /// Carry becomes bit `n` of `r`.
    pub fn bt_ri(&mut self, r: Gpr, n: u8) {
        self.insn(0, false, 1, 0xba, 4, Rm::R(r.0), false, (n as u32, 1));
    }
    /// Carry becomes bit `n` modulo 32 of `r`.
    pub fn bt_rr(&mut self, r: Gpr, n: Gpr) {
        self.insn(0, false, 1, 0xa3, n.0, Rm::R(r.0), false, (0, 0));
    }
    /// The flags SZAPC to `ah`.
    pub fn lahf(&mut self) {
        self.bytes(&[0x9f]);
    }
    /// Complements the carry.
    pub fn cmc(&mut self) {
        self.bytes(&[0xf5]);
    }
    pub fn setcc(&mut self, cc: Cc, r: Gpr) {
        self.insn(0, false, 1, 0x90 | cc as u8, 0, Rm::R(r.0), true, (0, 0));
    }
    pub fn cmov(&mut self, cc: Cc, w: W, d: Gpr, s: Gpr) {
        self.insn(0, w == W::B64, 1, 0x40 | cc as u8, d.0, Rm::R(s.0), false, (0, 0));
    }
    pub fn mfence(&mut self) {
        self.bytes(&[0x0f, 0xae, 0xf0]);
    }

    // Atomics. All have the effect of a full fence.

    pub fn xchg(&mut self, w: W, m: Mem, r: Gpr) {
        self.sized(w, 0x87, r.0, Rm::M(m), (0, 0));
    }
    pub fn lock_xadd(&mut self, w: W, m: Mem, r: Gpr) {
        self.lock(w, 0xc1, m, r);
    }
    /// Compares with `rax`, which becomes the old value.
    pub fn lock_cmpxchg(&mut self, w: W, m: Mem, r: Gpr) {
        self.lock(w, 0xb1, m, r);
    }
    fn lock(&mut self, w: W, opcode: u8, m: Mem, r: Gpr) {
        self.bytes(&[0xf0]);
        let prefix = if w == W::B16 { 0x66 } else { 0 };
        let opcode = if w == W::B8 { opcode & !1 } else { opcode };
        self.insn(prefix, w == W::B64, 1, opcode, r.0, Rm::M(m), w == W::B8, (0, 0));
    }

    // Control.

    pub fn jcc(&mut self, cc: Cc) -> Patch {
        self.bytes(&[0x0f, 0x80 | cc as u8, 0, 0, 0, 0]);
        Patch(self.len as u32 - 4)
    }
    pub fn jmp(&mut self) -> Patch {
        self.bytes(&[0xe9, 0, 0, 0, 0]);
        Patch(self.len as u32 - 4)
    }
    /// A jump that may be redirected while others run it: see [`Asm::jcc_linkable`].
    pub fn jmp_linkable(&mut self) -> Patch {
        self.align_link(1);
        self.jmp()
    }
    /// The same with a condition. Its displacement lies in one aligned word of eight bytes, if the code does.
    pub fn jcc_linkable(&mut self, cc: Cc) -> Patch {
        self.align_link(2);
        self.jcc(cc)
    }
    fn align_link(&mut self, opcode: usize) {
        let at = (self.len + opcode) % 8;
        match at {
            5 => self.bytes(&[0x0f, 0x1f, 0x00]),
            6 => self.bytes(&[0x66, 0x90]),
            7 => self.bytes(&[0x90]),
            _ => {}
        }
    }
    pub fn call(&mut self) -> Patch {
        self.bytes(&[0xe8, 0, 0, 0, 0]);
        Patch(self.len as u32 - 4)
    }
    pub fn jcc_short(&mut self, cc: Cc) -> ShortPatch {
        self.bytes(&[0x70 | cc as u8, 0]);
        ShortPatch(self.len as u32 - 1)
    }
    pub fn jmp_short(&mut self) -> ShortPatch {
        self.bytes(&[0xeb, 0]);
        ShortPatch(self.len as u32 - 1)
    }
    /// To code that is there already.
    pub fn jmp_to(&mut self, target: u32) {
        let patch = self.jmp();
        self.patch(patch, target);
    }
    pub fn jcc_to(&mut self, cc: Cc, target: u32) {
        let patch = self.jcc(cc);
        self.patch(patch, target);
    }
    /// The jump's target is here.
    pub fn bind(&mut self, patch: Patch) {
        self.patch(patch, self.here());
    }
    pub fn bind_short(&mut self, patch: ShortPatch) {
        let at = patch.0 as usize;
        let distance = self.len - (at + 1);
        debug_assert!(distance < 128);
        self.bytes[at] = distance as u8;
    }
    pub fn patch(&mut self, patch: Patch, target: u32) {
        let at = patch.0 as usize;
        let distance = target.wrapping_sub(patch.0 + 4);
        self.bytes[at..at + 4].copy_from_slice(&distance.to_le_bytes());
    }
    pub fn jmp_r(&mut self, r: Gpr) {
        self.insn(0, false, 0, 0xff, 4, Rm::R(r.0), false, (0, 0));
    }
    pub fn call_m(&mut self, m: Mem) {
        self.insn(0, false, 0, 0xff, 2, Rm::M(m), false, (0, 0));
    }
    pub fn ret(&mut self) {
        self.bytes(&[0xc3]);
    }
    /// A word for whoever is called in front of it.
    pub fn data(&mut self, word: u64) {
        self.bytes(&word.to_le_bytes());
    }

    // Vectors.

    #[inline]
    fn sse(&mut self, op: u32, wide: bool, reg: u8, rm: Rm, imm: (u32, u8)) {
        self.insn((op >> 16) as u8, wide, (op >> 8) as u8, op as u8, reg, rm, false, imm);
    }
    pub fn sse_rr(&mut self, op: u32, d: Xmm, s: Xmm) {
        self.sse(op, false, d.0, Rm::R(s.0), (0, 0));
    }
    pub fn sse_rm(&mut self, op: u32, d: Xmm, s: Mem) {
        self.sse(op, false, d.0, Rm::M(s), (0, 0));
    }
    pub fn sse_mr(&mut self, op: u32, d: Mem, s: Xmm) {
        self.sse(op, false, s.0, Rm::M(d), (0, 0));
    }
    pub fn sse_rri(&mut self, op: u32, d: Xmm, s: Xmm, imm: u8) {
        self.sse(op, false, d.0, Rm::R(s.0), (imm as u32, 1));
    }
    pub fn sse_rmi(&mut self, op: u32, d: Xmm, s: Mem, imm: u8) {
        self.sse(op, false, d.0, Rm::M(s), (imm as u32, 1));
    }
    /// FMA3: `d = d * b + c`, one scalar or a whole vector.
    pub fn fma213(&mut self, double: bool, packed: bool, d: Xmm, b: Xmm, c: Xmm) {
        let (d, b, c) = (d.0, b.0, c.0);
        let rxb = (!(d >> 3) & 1) << 7 | 0x40 | (!(c >> 3) & 1) << 5;
        let opcode = if packed { 0xa8 } else { 0xa9 };
        let wide = (double as u8) << 7;
        self.bytes(&[
            0xc4,
            rxb | 2,
            wide | (!b & 15) << 3 | 1,
            opcode,
            0xc0 | (d & 7) << 3 | c & 7,
        ]);
    }
    /// Shifts by a constant: 66 0F opcode /number.
    pub fn sse_shift(&mut self, opcode: u8, number: u8, r: Xmm, by: u8) {
        self.insn(0x66, false, 1, opcode, number, Rm::R(r.0), false, (by as u32, 1));
    }
    /// From a general register, the rest zero.
    pub fn movq_xr(&mut self, w: W, d: Xmm, s: Gpr) {
        self.insn(0x66, w == W::B64, 1, 0x6e, d.0, Rm::R(s.0), false, (0, 0));
    }
    /// The low 32 or 64 bits.
    pub fn movq_rx(&mut self, w: W, d: Gpr, s: Xmm) {
        self.insn(0x66, w == W::B64, 1, 0x7e, s.0, Rm::R(d.0), false, (0, 0));
    }
    /// The high half (SSE4.1).
    pub fn pextrq_high(&mut self, d: Gpr, s: Xmm) {
        self.insn(0x66, true, 3, 0x16, s.0, Rm::R(d.0), false, (1, 1));
    }
    /// Lane `lane` from a general register (SSE4.1).
    pub fn pinsr(&mut self, lane_width: W, d: Xmm, s: Gpr, lane: u8) {
        let (map, opcode) = match lane_width {
            W::B8 => (3, 0x20),
            W::B16 => (1, 0xc4),
            W::B32 | W::B64 => (3, 0x22),
        };
        let wide = lane_width == W::B64;
        self.insn(0x66, wide, map, opcode, d.0, Rm::R(s.0), false, (lane as u32, 1));
    }
    /// Between a vector and a general register, whichever way `op` says.
    pub fn sse_xr(&mut self, op: u32, w: W, d: Xmm, s: Gpr) {
        self.sse(op, w == W::B64, d.0, Rm::R(s.0), (0, 0));
    }
    pub fn sse_rx(&mut self, op: u32, w: W, d: Gpr, s: Xmm) {
        self.sse(op, w == W::B64, d.0, Rm::R(s.0), (0, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};

    const NAMES: [[&str; 16]; 4] = [
        [
            "al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil", "r8b", "r9b", "r10b", "r11b",
            "r12b", "r13b", "r14b", "r15b",
        ],
        [
            "ax", "cx", "dx", "bx", "sp", "bp", "si", "di", "r8w", "r9w", "r10w", "r11w", "r12w",
            "r13w", "r14w", "r15w",
        ],
        [
            "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "r8d", "r9d", "r10d", "r11d",
            "r12d", "r13d", "r14d", "r15d",
        ],
        [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11",
            "r12", "r13", "r14", "r15",
        ],
    ];
    const WIDTHS: [W; 4] = [W::B8, W::B16, W::B32, W::B64];
    const SUFFIX: [&str; 4] = ["b", "w", "l", "q"];

    fn name(w: W, r: Gpr) -> String {
        format!("%{}", NAMES[w as usize][r.0 as usize])
    }
    fn gprs() -> impl Iterator<Item = Gpr> {
        (0..16).map(Gpr)
    }

    /// What one call emits, in AT&T syntax without spaces behind commas.
    fn text(emit: impl FnOnce(&mut Asm)) -> String {
        let mut asm = Asm::default();
        emit(&mut asm);
        let mut decoder = Decoder::with_ip(64, asm.code(), 0, DecoderOptions::NONE);
        let (mut out, mut formatter) = (String::new(), GasFormatter::new());
        formatter.options_mut().set_gas_show_mnemonic_size_suffix(true);
        formatter.options_mut().set_uppercase_hex(false);
        let insn = decoder.decode();
        formatter.format(&insn, &mut out);
        assert_eq!(insn.len(), asm.code().len(), "{out}: {:02x?}", asm.code());
        out
    }

    /// The operands as they were written.
    fn places() -> Vec<(Mem, String)> {
        let mut places = Vec::new();
        for base in gprs() {
            for disp in [0, 0x10, -0x80, 0x80, 0x12345, i32::MIN] {
                let sign = if disp < 0 { "-" } else { "" };
                let number = match disp {
                    0 => String::new(),
                    d => format!("{sign}{:#x}", d.unsigned_abs()),
                };
                let b = name(W::B64, base);
                // Registers like rbp have no form without a displacement.
                let zero = if disp == 0 && base.0 & 7 == 5 { "" } else { &number };
                places.push((Mem::base(base, disp), format!("{zero}({b})")));
                for index in gprs().filter(|r| r.0 != 4) {
                    let scale = (base.0 + index.0) & 3;
                    let i = name(W::B64, index);
                    let times = match scale {
                        0 => String::new(),
                        s => format!(",{}", 1 << s),
                    };
                    let text = format!("{zero}({b},{i}{times})");
                    places.push((Mem::index(base, index, scale, disp), text));
                }
            }
        }
        places
    }

    #[test]
    fn registers() {
        const OPS: [(Alu, &str); 7] = [
            (Alu::Add, "add"),
            (Alu::Or, "or"),
            (Alu::Adc, "adc"),
            (Alu::And, "and"),
            (Alu::Sub, "sub"),
            (Alu::Xor, "xor"),
            (Alu::Cmp, "cmp"),
        ];
        for w in WIDTHS {
            let s = SUFFIX[w as usize];
            for d in gprs() {
                let dn = name(w, d);
                for r in gprs() {
                    let rn = name(w, r);
                    for (op, o) in OPS {
                        assert_eq!(text(|a| a.alu_rr(op, w, d, r)), format!("{o}{s} {rn},{dn}"));
                    }
                    assert_eq!(text(|a| a.test_rr(w, d, r)), format!("test{s} {rn},{dn}"));
                    if w >= W::B32 {
                        assert_eq!(text(|a| a.mov_rr(w, d, r)), format!("mov{s} {rn},{dn}"));
                        assert_eq!(text(|a| a.imul_rr(w, d, r)), format!("imul{s} {rn},{dn}"));
                        let x = text(|a| a.imul_rri(w, d, r, 0x123));
                        // The decoder writes two equal operands once.
                        let two = if d == r { rn.clone() } else { format!("{rn},{dn}") };
                        assert_eq!(x, format!("imul{s} $0x123,{two}"));
                        let x = text(|a| a.cmov(Cc::L, w, d, r));
                        assert_eq!(x, format!("cmovl{s} {rn},{dn}"));
                        let x = text(|a| a.lzcnt(w, d, r));
                        assert_eq!(x, format!("lzcnt{s} {rn},{dn}"));
                        let n = name(w, Gpr(d.0 ^ 9));
                        for (op, o) in
                            [(Shift::Shl, "shlx"), (Shift::Shr, "shrx"), (Shift::Sar, "sarx")]
                        {
                            let x = text(|a| a.shift_x(op, w, d, r, Gpr(d.0 ^ 9)));
                            assert_eq!(x, format!("{o}{s} {n},{rn},{dn}"));
                        }
                    }
                }
                for (op, o) in OPS {
                    for k in [1, 0x7f, -0x80] {
                        let x = text(|a| a.alu_ri(op, w, d, k));
                        let masked = k as u64 & (u64::MAX >> (64 - w.bits()));
                        let written = [
                            format!("{o}{s} ${k},{dn}"),
                            format!("{o}{s} ${masked:#x},{dn}"),
                            format!("{o}{s} $-{:#x},{dn}", k.unsigned_abs()),
                        ];
                        assert!(written.contains(&x), "{x}");
                    }
                }
                for (op, o) in [
                    (Shift::Rol, "rol"),
                    (Shift::Ror, "ror"),
                    (Shift::Shl, "shl"),
                    (Shift::Shr, "shr"),
                    (Shift::Sar, "sar"),
                ] {
                    assert_eq!(text(|a| a.shift_ri(op, w, d, 5)), format!("{o}{s} $5,{dn}"));
                    assert_eq!(text(|a| a.shift_cl(op, w, d)), format!("{o}{s} %cl,{dn}"));
                }
                for (op, o) in [
                    (Unary::Not, "not"),
                    (Unary::Neg, "neg"),
                    (Unary::Mul, "mul"),
                    (Unary::Imul, "imul"),
                    (Unary::Div, "div"),
                    (Unary::Idiv, "idiv"),
                ] {
                    assert_eq!(text(|a| a.unary(op, w, d)), format!("{o}{s} {dn}"));
                }
            }
        }
        for d in gprs() {
            let (d8, d32, d64) = (name(W::B8, d), name(W::B32, d), name(W::B64, d));
            for r in gprs() {
                let (r8, r16, r32) = (name(W::B8, r), name(W::B16, r), name(W::B32, r));
                assert_eq!(text(|a| a.movzx(W::B8, d, r)), format!("movzbl {r8},{d32}"));
                assert_eq!(text(|a| a.movzx(W::B16, d, r)), format!("movzwl {r16},{d32}"));
                assert_eq!(text(|a| a.movsx(W::B8, W::B64, d, r)), format!("movsbq {r8},{d64}"));
                assert_eq!(text(|a| a.movsx(W::B32, W::B64, d, r)), format!("movslq {r32},{d64}"));
                let r64 = name(W::B64, r);
                assert_eq!(text(|a| a.shrd(d, r, 7)), format!("shrdq $7,{r64},{d64}"));
            }
            for cc in Cc::ALL {
                let x = text(|a| a.setcc(cc, d));
                assert!(x.starts_with("set") && x.ends_with(&format!(" {d8}")), "{x}");
            }
            assert_eq!(text(|a| a.mov_ri(d, 0x1234)), format!("movl $0x1234,{d32}"));
            let x = text(|a| a.mov_ri(d, u64::MAX));
            assert!(x.starts_with("movq $-1,") || x.starts_with("movq $0xff"), "{x}");
            let x = text(|a| a.mov_ri(d, 0x1234_5678_9abc));
            assert_eq!(x, format!("movabsq $0x123456789abc,{d64}"));
            assert_eq!(text(|a| a.bswap(W::B64, d)), format!("bswapq {d64}"));
            assert_eq!(text(|a| a.bt_ri(d, 3)), format!("btl $3,{d32}"));
        }
    }

    #[test]
    fn memory() {
        for (mem, place) in places() {
            for r in [Gpr(0), Gpr(5), Gpr(6), Gpr(12), Gpr(15)] {
                for w in WIDTHS {
                    let (s, rn) = (SUFFIX[w as usize], name(w, r));
                    assert_eq!(text(|a| a.mov_mr(w, mem, r)), format!("mov{s} {rn},{place}"));
                    let x = text(|a| a.alu_rm(Alu::Cmp, w, r, mem));
                    assert_eq!(x, format!("cmp{s} {place},{rn}"));
                    assert_eq!(text(|a| a.xchg(w, mem, r)), format!("xchg{s} {rn},{place}"));
                    assert_eq!(text(|a| a.mov_mi(w, mem, 1)), format!("mov{s} $1,{place}"));
                    assert_eq!(
                        text(|a| a.alu_mi(Alu::Cmp, w, mem, 1)),
                        format!("cmp{s} $1,{place}")
                    );
                }
                let (r32, r64) = (name(W::B32, r), name(W::B64, r));
                assert_eq!(text(|a| a.mov_rm(W::B64, r, mem)), format!("movq {place},{r64}"));
                assert_eq!(text(|a| a.lea(W::B64, r, mem)), format!("leaq {place},{r64}"));
                assert_eq!(text(|a| a.movzx_m(W::B8, r, mem)), format!("movzbl {place},{r32}"));
                let x = text(|a| a.movsx_m(W::B16, W::B64, r, mem));
                assert_eq!(x, format!("movswq {place},{r64}"));
            }
            for x in [Xmm(0), Xmm(7), Xmm(8), Xmm(15)] {
                let n = x.0;
                let load = text(|a| a.sse_rm(sse::MOVUPS, x, mem));
                assert_eq!(load, format!("movups {place},%xmm{n}"));
                let store = text(|a| a.sse_mr(sse::MOVQ_STORE, mem, x));
                assert_eq!(store, format!("movq %xmm{n},{place}"));
                let load = text(|a| a.sse_rm(sse::MOVQ, x, mem));
                assert_eq!(load, format!("movq {place},%xmm{n}"));
                let shuffle = text(|a| a.sse_rm(sse::PSHUFB, x, mem));
                assert_eq!(shuffle, format!("pshufb {place},%xmm{n}"));
            }
        }
    }

    #[test]
    fn vectors() {
        for d in (0..16).map(Xmm) {
            for s in (0..16).map(Xmm) {
                let both = format!("%xmm{},%xmm{}", s.0, d.0);
                for (op, name) in [
                    (sse::MOVAPS, "movaps"),
                    (sse::MOVQ, "movq"),
                    (sse::MOVSS, "movss"),
                    (sse::PANDN, "pandn"),
                    (sse::PUNPCKHQDQ, "punpckhqdq"),
                    (sse::CVTSS2SD, "cvtss2sd"),
                    (sse::CVTSD2SS, "cvtsd2ss"),
                    (sse::UCOMISD, "ucomisd"),
                    (sse::COMISS, "comiss"),
                    (sse::PTEST, "ptest"),
                    (sse::ORPS, "orps"),
                ] {
                    assert_eq!(text(|a| a.sse_rr(op, d, s)), format!("{name} {both}"));
                }
                assert_eq!(
                    text(|a| a.sse_rri(sse::PSHUFD, d, s, 0x44)),
                    format!("pshufd $0x44,{both}")
                );
                let third = Xmm(d.0 ^ 5);
                for (double, packed, name) in [
                    (true, false, "vfmadd213sd"),
                    (false, false, "vfmadd213ss"),
                    (true, true, "vfmadd213pd"),
                    (false, true, "vfmadd213ps"),
                ] {
                    let x = text(|a| a.fma213(double, packed, d, s, third));
                    assert_eq!(x, format!("{name} %xmm{},%xmm{},%xmm{}", third.0, s.0, d.0));
                }
            }
            for r in gprs() {
                let (r32, r64, x) = (name(W::B32, r), name(W::B64, r), format!("%xmm{}", d.0));
                assert_eq!(text(|a| a.movq_xr(W::B64, d, r)), format!("movq {r64},{x}"));
                assert_eq!(text(|a| a.movq_rx(W::B32, r, d)), format!("movd {x},{r32}"));
                assert_eq!(text(|a| a.pextrq_high(r, d)), format!("pextrq $1,{x},{r64}"));
                assert_eq!(text(|a| a.pinsr(W::B8, d, r, 3)), format!("pinsrb $3,{r32},{x}"));
                assert_eq!(text(|a| a.pinsr(W::B16, d, r, 3)), format!("pinsrw $3,{r32},{x}"));
                assert_eq!(text(|a| a.pinsr(W::B64, d, r, 1)), format!("pinsrq $1,{r64},{x}"));
            }
            assert_eq!(text(|a| a.sse_shift(0x72, 4, d, 9)), format!("psrad $9,%xmm{}", d.0));
        }
    }

    #[test]
    fn jumps() {
        let mut asm = Asm::default();
        let near = asm.jcc_short(Cc::E);
        let far = asm.jcc(Cc::L);
        asm.ret();
        asm.bind_short(near);
        asm.bind(far);
        let top = asm.here();
        asm.jmp_to(top);
        let mut decoder = Decoder::with_ip(64, asm.code(), 0, DecoderOptions::NONE);
        let insns: Vec<_> = decoder.iter().collect();
        let targets = [0, 1, 3].map(|i: usize| insns[i].near_branch_target());
        assert_eq!(targets, [top as u64; 3]);
    }
}
