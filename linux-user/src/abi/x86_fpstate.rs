//! The x87 and vector registers as images in memory: FXSAVE (512 bytes), the XSAVE area behind it, and the
//! environment and registers of 32-bit FSAVE. The manual's volume 1, sections 8.1.10, 10.5 and 13.4.

use tulk_base::CpuState;
use tulk_x86::cpuid::{XCR0_AVX, XCR0_SSE, XCR0_X87, xsave_size};
use tulk_x86::fpstate::{DEFAULT, VALID};
use tulk_x86::regs::{self, cell};

/// Bytes of an FXSAVE image, and of FSAVE's in 32-bit format as the kernel keeps it (with two more words).
pub const FXSAVE: usize = 512;
pub const FSAVE: usize = 112;
/// Where the kernel describes the area, in bytes that the processor leaves alone.
const DESCRIPTION: usize = 464;
const HEADER: usize = 512;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
const DEFAULT_FCW: u64 = 0x37f;

fn put(bytes: &mut [u8], at: usize, len: usize, value: u64) {
    bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
}
fn get(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |v, &b| v << 8 | b as u64)
}

/// The components that the processor saves.
pub fn components(state: &CpuState) -> u64 {
    state.get(cell(regs::XCR0)) & (XCR0_X87 | XCR0_SSE | XCR0_AVX)
}
/// With a single component there is no XSAVE, and the image is FXSAVE's.
fn has_xsave(state: &CpuState) -> bool {
    components(state) != XCR0_X87
}
/// Bytes of the image with the word behind it that marks its end.
pub fn image_bytes(state: &CpuState) -> usize {
    if has_xsave(state) { xsave_size(components(state)) as usize + 4 } else { FXSAVE }
}

fn top(state: &CpuState) -> usize {
    state.get(cell(regs::FTOP)) as usize & 7
}
/// The status word with TOP in it.
fn status(state: &CpuState) -> u64 {
    state.get(cell(regs::FSW)) & 0xc7ff | (top(state) as u64) << 11
}
fn set_status(state: &mut CpuState, fsw: u64) {
    state.set(cell(regs::FSW), fsw & 0xc7ff);
    state.set(cell(regs::FTOP), fsw >> 11 & 7);
}

/// Copies st(i) to or from ten bytes.
fn put_st(state: &CpuState, i: usize, bytes: &mut [u8]) {
    let r = (top(state) + i) & 7;
    put(bytes, 0, 8, state.get(cell(regs::FPR_SIG[r])));
    put(bytes, 8, 2, state.get(cell(regs::FPR_EXP[r])));
}
fn set_st(state: &mut CpuState, i: usize, bytes: &[u8]) {
    let r = (top(state) + i) & 7;
    state.set(cell(regs::FPR_SIG[r]), get(bytes, 0, 8));
    state.set(cell(regs::FPR_EXP[r]), get(bytes, 8, 2));
}

/// The whole image: FXSAVE with the kernel's description, header, upper halves, end mark. `outside` is how many
/// bytes more the frame keeps beside it.
pub fn save(state: &CpuState, outside: usize) -> Vec<u8> {
    let mut b = vec![0; image_bytes(state)];
    let slot = |s| state.get(cell(s));
    put(&mut b, 0, 2, slot(regs::FCW));
    put(&mut b, 2, 2, status(state));
    put(&mut b, 4, 1, slot(regs::FTAG));
    put(&mut b, 6, 2, slot(regs::FOP));
    put(&mut b, 8, 8, slot(regs::FIP));
    put(&mut b, 16, 8, slot(regs::FDP));
    put(&mut b, 24, 4, slot(regs::MXCSR));
    put(&mut b, 28, 4, VALID as u64);
    for i in 0..8 {
        put_st(state, i, &mut b[32 + 16 * i..]);
    }
    for i in 0..16 {
        b[160 + 16 * i..][..16].copy_from_slice(&state.get128(cell(regs::XMM[i])).to_le_bytes());
    }
    if has_xsave(state) {
        let components = components(state);
        let size = xsave_size(components) as usize;
        put(&mut b, DESCRIPTION, 4, MAGIC1 as u64);
        put(&mut b, DESCRIPTION + 4, 4, (size + 4 + outside) as u64);
        put(&mut b, DESCRIPTION + 8, 8, components);
        put(&mut b, DESCRIPTION + 16, 4, size as u64);
        put(&mut b, HEADER, 8, components);
        if components & XCR0_AVX != 0 {
            for i in 0..16 {
                let high = state.get128(cell(regs::YMMH[i])).to_le_bytes();
                b[576 + 16 * i..][..16].copy_from_slice(&high);
            }
        }
        put(&mut b, size, 4, MAGIC2 as u64);
    }
    b
}

/// Registers as they are for a new process and for a signal handler.
pub fn reset(state: &mut CpuState) {
    reset_x87(state);
    state.set(cell(regs::MXCSR), DEFAULT as u64);
    for (&x, &y) in regs::XMM.iter().zip(&regs::YMMH) {
        state.set128(cell(x), 0);
        state.set128(cell(y), 0);
    }
}
fn reset_x87(state: &mut CpuState) {
    for i in 0..8 {
        state.set(cell(regs::FPR_SIG[i]), 0);
        state.set(cell(regs::FPR_EXP[i]), 0);
    }
    let zero =
        [regs::FTOP, regs::FSW, regs::FTAG, regs::FIP, regs::FDP, regs::FCS, regs::FDS, regs::FOP];
    for slot in zero {
        state.set(cell(slot), 0);
    }
    state.set(cell(regs::FCW), DEFAULT_FCW);
}

/// Whether the description in an image (at least 512 bytes) promises the extended area, and how long that is with its
/// end mark.
pub fn extended_bytes(state: &CpuState, image: &[u8]) -> Option<usize> {
    let size = get(image, DESCRIPTION + 16, 4) as usize;
    let good = has_xsave(state)
        && get(image, DESCRIPTION, 4) == MAGIC1 as u64
        && (576..=xsave_size(components(state)) as usize).contains(&size)
        && get(image, DESCRIPTION + 4, 4) as usize >= size;
    good.then_some(size + 4)
}

/// Takes registers back from an image that [`save`] wrote, or a program. Without a sound extended area only what
/// FXSAVE holds is used and the rest becomes zero.
pub fn restore(state: &mut CpuState, b: &[u8]) {
    let size = b.len().saturating_sub(4);
    let extended = size >= 576 && get(b, size, 4) == MAGIC2 as u64;
    let mut present = XCR0_X87 | XCR0_SSE;
    if extended {
        let known = get(b, DESCRIPTION + 8, 8) & components(state);
        present = get(b, HEADER, 8) & known;
        if size < xsave_size(known) as usize {
            present &= !XCR0_AVX;
        }
    }
    if present & XCR0_X87 != 0 {
        set_status(state, get(b, 2, 2));
        state.set(cell(regs::FCW), get(b, 0, 2));
        state.set(cell(regs::FTAG), get(b, 4, 1));
        state.set(cell(regs::FOP), get(b, 6, 2) & 0x7ff);
        state.set(cell(regs::FIP), get(b, 8, 8));
        state.set(cell(regs::FDP), get(b, 16, 8));
        for i in 0..8 {
            set_st(state, i, &b[32 + 16 * i..]);
        }
    } else {
        reset_x87(state);
    }
    state.set(cell(regs::MXCSR), get(b, 24, 4) & VALID as u64);
    for i in 0..16 {
        let wide = |at: usize| u128::from_le_bytes(std::array::from_fn(|n| b[at + 16 * i + n]));
        let low = if present & XCR0_SSE != 0 { wide(160) } else { 0 };
        let high = if present & XCR0_AVX != 0 { wide(576) } else { 0 };
        state.set128(cell(regs::XMM[i]), low);
        state.set128(cell(regs::YMMH[i]), high);
    }
}

/// The two tag bits of a register in the full tag word.
fn full_tag(state: &CpuState, r: usize) -> u64 {
    if state.get(cell(regs::FTAG)) >> r & 1 == 0 {
        return 3;
    }
    let (sig, exp) = (state.get(cell(regs::FPR_SIG[r])), state.get(cell(regs::FPR_EXP[r])));
    match exp & 0x7fff {
        0 if sig == 0 => 1,
        0x7fff | 0 => 2,
        _ if sig >> 63 == 0 => 2,
        _ => 0,
    }
}

/// FSAVE's image; `magic` 0 says that an FXSAVE image follows.
pub fn save_legacy(state: &CpuState, magic: u16) -> [u8; FSAVE] {
    let mut b = [0; FSAVE];
    let slot = |s| state.get(cell(s));
    let high = 0xffff_0000;
    put(&mut b, 0, 4, slot(regs::FCW) & 0xffff | high);
    put(&mut b, 4, 4, status(state) | high);
    let tags = (0..8).fold(0, |tags, r| tags | full_tag(state, r) << (2 * r));
    put(&mut b, 8, 4, tags | high);
    put(&mut b, 12, 4, slot(regs::FIP));
    put(&mut b, 16, 4, slot(regs::FCS) & 0xffff | slot(regs::FOP) << 16);
    put(&mut b, 20, 4, slot(regs::FDP));
    put(&mut b, 24, 4, slot(regs::FDS) & 0xffff | high);
    for i in 0..8 {
        put_st(state, i, &mut b[28 + 10 * i..]);
    }
    put(&mut b, 108, 2, status(state));
    put(&mut b, 110, 2, magic as u64);
    b
}

/// Takes the x87 registers back from FSAVE's image.
pub fn restore_legacy(state: &mut CpuState, b: &[u8; FSAVE]) {
    state.set(cell(regs::FCW), get(b, 0, 2));
    set_status(state, get(b, 4, 2));
    let tags = get(b, 8, 2);
    let used = (0..8).fold(0, |used, r| used | ((tags >> (2 * r) & 3 != 3) as u64) << r);
    state.set(cell(regs::FTAG), used);
    state.set(cell(regs::FIP), get(b, 12, 4));
    state.set(cell(regs::FCS), get(b, 16, 2));
    state.set(cell(regs::FOP), get(b, 18, 2) & 0x7ff);
    state.set(cell(regs::FDP), get(b, 20, 4));
    state.set(cell(regs::FDS), get(b, 24, 2));
    for i in 0..8 {
        set_st(state, i, &b[28 + 10 * i..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Box<CpuState> {
        let mut s = CpuState::new();
        s.set(cell(regs::XCR0), XCR0_X87 | XCR0_SSE | XCR0_AVX);
        for i in 0..8 {
            s.set(cell(regs::FPR_SIG[i]), 0x8000_0000_0000_0000 | i as u64);
            s.set(cell(regs::FPR_EXP[i]), 0x3fff + i as u64);
        }
        s.set(cell(regs::FTOP), 5);
        s.set(cell(regs::FCW), 0x27f);
        s.set(cell(regs::FSW), 0x4021);
        s.set(cell(regs::FTAG), 0xe0);
        s.set(cell(regs::MXCSR), 0x9fc0);
        for i in 0..16 {
            s.set128(cell(regs::XMM[i]), 0x1111 * i as u128);
            s.set128(cell(regs::YMMH[i]), u128::MAX - i as u128);
        }
        s
    }

    fn registers(s: &CpuState) -> Vec<u64> {
        (cell(regs::FPR_SIG[0])..=cell(regs::YMMH[15]) + 1).map(|c| s.get(c)).collect()
    }

    #[test]
    fn the_image_has_the_processors_layout() {
        let s = sample();
        let b = save(&s, 0);
        assert_eq!(b.len(), 836);
        assert_eq!((get(&b, 0, 2), get(&b, 2, 2), get(&b, 4, 1)), (0x27f, 0x4021 | 5 << 11, 0xe0));
        // st(0) is physical register 5.
        assert_eq!((get(&b, 32, 8) & 7, get(&b, 40, 2)), (5, 0x4004));
        assert_eq!((get(&b, 160 + 16, 8), get(&b, 576, 8)), (0x1111, u64::MAX));
        assert_eq!((get(&b, 464, 4), get(&b, 480, 4)), (MAGIC1 as u64, 832));
    }

    #[test]
    fn images_are_taken_back() {
        let s = sample();
        let mut back = CpuState::new();
        back.set(cell(regs::XCR0), 7);
        let image = save(&s, 0);
        assert_eq!(extended_bytes(&back, &image), Some(836));
        restore(&mut back, &image);
        assert_eq!(registers(&back), registers(&s));
        // Only FXSAVE's part: the upper halves are lost.
        restore(&mut back, &image[..512]);
        assert_eq!(back.get128(cell(regs::YMMH[3])), 0);
        assert_eq!(back.get128(cell(regs::XMM[3])), 0x3333);
        let legacy = save_legacy(&s, 0);
        reset(&mut back);
        restore_legacy(&mut back, &legacy);
        assert_eq!(back.get(cell(regs::FTAG)), 0xe0);
        assert_eq!(back.get(cell(regs::FPR_EXP[5])), 0x4004);
        assert_eq!(get(&legacy, 8, 2), 0x03ff);
    }
}
