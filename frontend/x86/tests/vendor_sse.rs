//! What processors of Intel and AMD do differently in SSE and AVX instructions, on models of both, where `host_sse`
//! tests that of the host's maker only. The host confirms what is expected of its maker; for Intel it was a Sapphire
//! Rapids.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod support;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tests {
    use super::support::case::{Case, DATA, DATA_LEN, Outcome, initial_memory};
    use super::support::compare::{Ignore, differences};
    use super::support::native;
    use super::support::world::{self, Way};
    use tulk_base::CpuState;
    use tulk_x86::{CpuModel, Feature, Mode, X86};

    /// Behind the last byte of the data.
    const END: u32 = DATA + DATA_LEN as u32;

    /// A case with RDI at an address.
    fn case(rdi: u32, code: &[u8]) -> Case {
        let mut case = Case::new(64);
        case.regs.gpr[7] = rdi as u64;
        case.append(code);
        case
    }

    /// The outcome on models of Intel and AMD, the same in all ways and on the host if it is one of these.
    fn both(case: &Case) -> [Outcome; 2] {
        ["max", "EPYC"].map(|name| {
            let model = CpuModel::by_name(name).unwrap();
            let isa = X86::new(Mode::X86_64, model);
            let mut state = CpuState::new();
            let [first, ..] = Way::ALL.map(|way| world::interpret(&isa, case, way, &mut state));
            for way in Way::ALL {
                let again = world::interpret(&isa, case, way, &mut state);
                assert!(again.regs == first.regs, "{name}, {way:?}");
            }
            let host = native::model();
            if host.chip().vendor == model.chip().vendor
                && host.has(Feature::Avx2)
                && host.has(Feature::F16c)
            {
                let diff = differences(case, &native::run(&[*case])[0], &first, Ignore::default());
                assert!(diff.is_empty(), "{name}: {diff:?}");
            }
            first
        })
    }

    /// Addresses of the page faults.
    fn addresses(case: &Case) -> [u32; 2] {
        both(case).map(|o| {
            assert_eq!(o.regs.trap, 14);
            let (before, _, _) = initial_memory();
            assert!(o.data[..] == before, "nothing is stored");
            o.regs.address as u32
        })
    }

    /// Lanes of 32 bits, lane 0 first.
    fn lanes(v: [u32; 4]) -> u128 {
        v.into_iter().rev().fold(0, |all, lane| all << 32 | lane as u128)
    }

    #[test]
    fn maskmovdqu_faults() {
        let at = |rdi: u32, mask: u128| {
            // maskmovdqu xmm0, xmm1
            let mut case = case(rdi, &[0x66, 0x0f, 0xf7, 0xc1]);
            case.regs.set_xmm(1, mask);
            addresses(&case)
        };
        // The upper half comes first.
        assert_eq!(at(END, u128::MAX), [END + 8, END]);
        assert_eq!(at(DATA - 16, u128::MAX), [DATA - 8, DATA - 16]);
        assert_eq!(at(DATA - 4, u128::MAX), [DATA - 4; 2]);
        // The part of it behind the end of the page.
        assert_eq!(at(END - 12, u128::MAX), [END; 2]);
        // No mask is needed.
        assert_eq!(at(END, 0), [END + 8, END]);
        // addr32: the halves wrap on their own.
        let mut case = case(u32::MAX - 1, &[0x67, 0x66, 0x0f, 0xf7, 0xc1]);
        case.regs.set_xmm(1, u128::MAX);
        assert_eq!(addresses(&case), [6, u32::MAX - 1]);
    }

    #[test]
    fn masked_store_faults() {
        let at = |rdi: u32, mask: [u32; 8]| {
            // vpmaskmovd [rdi], ymm1, ymm0
            let mut case = case(rdi, &[0xc4, 0xe2, 0x75, 0x8e, 0x07]);
            case.regs.set_xmm(1, lanes(mask[..4].try_into().unwrap()));
            case.regs.set_ymmh(1, lanes(mask[4..].try_into().unwrap()));
            addresses(&case)
        };
        const Y: u32 = 1 << 31;
        // A first lane that faults: there. Else in the last byte of the last lane.
        assert_eq!(at(END - 8, [0, 0, 0, Y, 0, Y, 0, 0]), [END + 4; 2]);
        assert_eq!(at(END - 8, [0, Y, 0, Y, 0, Y, 0, 0]), [END + 15, END + 4]);
        assert_eq!(at(END - 18, [Y, 0, 0, 0, Y, 0, 0, 0]), [END + 1, END]);
        assert_eq!(at(DATA - 16, [0, Y, 0, 0, Y, 0, 0, Y]), [DATA - 12; 2]);
    }

    #[test]
    fn gather_faults() {
        let run = |wide: bool, indices: [u32; 4]| {
            // vpgatherdd xmm0, [rdi + xmm1], xmm2, or with ymm
            let vex = if wide { 0x6d } else { 0x69 };
            let mut case = case(DATA, &[0xc4, 0xe2, vex, 0x90, 0x04, 0x0f]);
            case.patch(DATA, &[0x11; 4]);
            case.regs.set_xmm(1, lanes(indices));
            for n in [0, 2] {
                case.regs.set_ymmh(n, 0xc000_0000_4000_0000 << 64 | 7);
            }
            case.regs.set_xmm(0, 0);
            case.regs.set_xmm(2, lanes([0x8000_0001, 5, 0x9000_0000, 0xffff_ffff]));
            both(&case).map(|o| {
                assert_eq!((o.regs.trap, o.regs.address as u32), (14, END + 64));
                let r = |n| (o.regs.ymmh(n), o.regs.xmm(n));
                [r(0), r(2)]
            })
        };
        let far = END + 64 - DATA;
        let upper = 0xc000_0000_4000_0000 << 64 | 7;
        let read = lanes([0x1111_1111, 0, 0, 0]);
        let whole = lanes([0, 0, !0, !0]);
        // Of the skipped lane 1, too, the mask is clear.
        let amd = [(upper, read), (upper, lanes([0, 0, 0x9000_0000, !0]))];
        assert_eq!(run(false, [0, 0, far, 0]), [[(0, read), (0, whole)], amd]);
        let extended = lanes([0, 0, 0, !0]);
        assert_eq!(run(true, [0, 0, far, 0]), [[(upper, read), (extended, whole)], amd]);
        // Nothing read: the destination is as it was.
        let [[dst, mask], _] = run(false, [far, 0, 0, 0]);
        assert_eq!(dst, (upper, 0));
        assert_eq!(mask, (0, lanes([!0, 0, !0, !0])));
    }

    #[test]
    fn dot_product_nans() {
        for mxcsr in [0x1f80, 0x1f00] {
            let nans = |n: u32| 0x7fc0_0000 | n;
            // dpps xmm0, xmm1, 0xff
            let mut single = case(DATA, &[0x66, 0x0f, 0x3a, 0x40, 0xc1, 0xff]);
            single.regs.set_xmm(0, lanes([0, 1, 2, 3].map(nans)));
            single.regs.set_xmm(1, lanes([0x3f80_0000; 4]));
            single.regs.set_mxcsr(mxcsr);
            let [intel, amd] = both(&single).map(|o| o.regs.xmm(0));
            assert_eq!(intel, lanes([1, 0, 3, 2].map(nans)));
            assert_eq!(amd, lanes([0; 4].map(nans)));
            let nans = |n: u128| 0x7ff8_0000_0000_0000 | n;
            // dppd xmm0, xmm1, 0x33
            let mut double = case(DATA, &[0x66, 0x0f, 0x3a, 0x41, 0xc1, 0x33]);
            double.regs.set_xmm(0, nans(1) << 64 | nans(0));
            double.regs.set_xmm(1, 0x3ff0_0000_0000_0000_3ff0_0000_0000_0000);
            double.regs.set_mxcsr(mxcsr);
            let [intel, amd] = both(&double).map(|o| o.regs.xmm(0));
            assert_eq!(intel, nans(1) << 64 | nans(0));
            assert_eq!(amd, nans(0) << 64 | nans(0));
        }
    }

    #[test]
    fn half_precision_stores() {
        // Inexact, to nowhere.
        // vcvtps2ph [rdi], xmm0, 4
        let mut case = case(END, &[0xc4, 0xe3, 0x79, 0x1d, 0x07, 0x04]);
        case.regs.set_xmm(0, 0x3f80_0001);
        let found = both(&case).map(|o| (o.regs.trap, o.regs.mxcsr()));
        assert_eq!(found, [(14, 0x1fa0), (14, 0x1f80)]);
        case.regs.set_mxcsr(0x0f80);
        let found = both(&case).map(|o| (o.regs.trap, o.regs.mxcsr()));
        assert_eq!(found, [(19, 0x0fa0), (14, 0x0f80)]);
        // On Intel denormals are inexact, also if half precision with any exponent could hold them.
        case.regs.gpr[7] = DATA as u64;
        case.regs.set_xmm(0, 1);
        case.regs.set_mxcsr(0x1780);
        let [intel, _] = both(&case).map(|o| (o.regs.trap, o.regs.mxcsr()));
        assert_eq!(intel, (19, 0x17b2));
    }
}
