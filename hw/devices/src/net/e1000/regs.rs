//! Registers of the 82540EM (8254x Software Developer's Manual, chapter 13): offsets, values behind reset, and the bits
//! that software may write.

/// Declares the plain registers: offset, reset value, writable bits.
macro_rules! registers {
    ($($name:ident = $offset:literal, $reset:literal, $writable:literal;)*) => {
        /// A register that is kept as a value. Its number is its place in the saved state.
        #[allow(clippy::upper_case_acronyms, non_camel_case_types)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Reg { $($name,)* }

        impl Reg {
            pub const ALL: &[Reg] = &[$(Reg::$name,)*];

            pub fn at(offset: u64) -> Option<Reg> {
                match offset {
                    $($offset => Some(Reg::$name),)*
                    _ => None,
                }
            }
            pub fn reset(self) -> u32 {
                match self { $(Reg::$name => $reset,)* }
            }
            pub fn writable(self) -> u32 {
                match self { $(Reg::$name => $writable,)* }
            }
        }
    };
}

registers! {
    CTRL     = 0x0000, 0x0000_0201, 0xfbff_ffff;
    STATUS   = 0x0008, 0x0000_0281, 0;
    EECD     = 0x0010, 0x0000_0100, 0x0000_0077;
    EERD     = 0x0014, 0x0000_0000, 0;
    CTRL_EXT = 0x0018, 0x0000_0000, 0x00ff_dfff;
    FLA      = 0x001c, 0x0000_0000, 0x0000_0000;
    MDIC     = 0x0020, 0x1000_0000, 0;
    FCAL     = 0x0028, 0x0000_0000, 0xffff_ffff;
    FCAH     = 0x002c, 0x0000_0000, 0x0000_ffff;
    FCT      = 0x0030, 0x0000_0000, 0x0000_ffff;
    VET      = 0x0038, 0x0000_0000, 0x0000_ffff;
    ICR      = 0x00c0, 0x0000_0000, 0;
    ITR      = 0x00c4, 0x0000_0000, 0x0000_ffff;
    IMS      = 0x00d0, 0x0000_0000, 0;
    RCTL     = 0x0100, 0x0000_0000, 0x07df_ffff;
    FCTTV    = 0x0170, 0x0000_0000, 0x0000_ffff;
    TXCW     = 0x0178, 0x0000_0000, 0xc000_ffff;
    RXCW     = 0x0180, 0x0000_0000, 0;
    TCTL     = 0x0400, 0x0000_0008, 0x01ff_ffff;
    TIPG     = 0x0410, 0x0060_2008, 0x3fff_ffff;
    AIFS     = 0x0458, 0x0000_0000, 0x0000_ffff;
    LEDCTL   = 0x0e00, 0x0706_8302, 0xefef_efef;
    PBA      = 0x1000, 0x0010_0030, 0x0000_ffff;
    FCRTL    = 0x2160, 0x0000_0000, 0x8000_fff8;
    FCRTH    = 0x2168, 0x0000_0000, 0x0000_fff8;
    RDBAL    = 0x2800, 0x0000_0000, 0xffff_fff0;
    RDBAH    = 0x2804, 0x0000_0000, 0xffff_ffff;
    RDLEN    = 0x2808, 0x0000_0000, 0x000f_ff80;
    RDH      = 0x2810, 0x0000_0000, 0x0000_ffff;
    RDT      = 0x2818, 0x0000_0000, 0x0000_ffff;
    RDTR     = 0x2820, 0x0000_0000, 0x0000_ffff;
    RXDCTL   = 0x2828, 0x0101_0000, 0x013f_3f3f;
    RADV     = 0x282c, 0x0000_0000, 0x0000_ffff;
    RSRPD    = 0x2c00, 0x0000_0000, 0x0000_0fff;
    TDBAL    = 0x3800, 0x0000_0000, 0xffff_fff0;
    TDBAH    = 0x3804, 0x0000_0000, 0xffff_ffff;
    TDLEN    = 0x3808, 0x0000_0000, 0x000f_ff80;
    TDH      = 0x3810, 0x0000_0000, 0x0000_ffff;
    TDT      = 0x3818, 0x0000_0000, 0x0000_ffff;
    TIDV     = 0x3820, 0x0000_0000, 0x0000_ffff;
    TXDCTL   = 0x3828, 0x0000_0000, 0xff3f_3f3f;
    TADV     = 0x382c, 0x0000_0000, 0x0000_ffff;
    TSPMT    = 0x3830, 0x0100_0400, 0xffff_ffff;
    RXCSUM   = 0x5000, 0x0000_0000, 0x0000_07ff;
    WUC      = 0x5800, 0x0000_0000, 0x0000_000f;
    WUFC     = 0x5808, 0x0000_0000, 0x000f_80ff;
    WUS      = 0x5810, 0x0000_0000, 0;
    MANC     = 0x5820, 0x0000_0000, 0xffff_ffff;
}

/// Write-only faces of ICR and IMS.
pub const ICS: u64 = 0x00c8;
pub const IMC: u64 = 0x00d8;

/// Statistics (13.7), cleared by reading.
pub const STATISTICS: std::ops::Range<u64> = 0x4000..0x4128;
/// Multicast table, receive addresses and VLAN table (13.5).
pub const MTA: std::ops::Range<u64> = 0x5200..0x5400;
pub const RA: std::ops::Range<u64> = 0x5400..0x5480;
pub const VFTA: std::ops::Range<u64> = 0x5600..0x5800;

pub mod ctrl {
    pub const RST: u32 = 1 << 26;
    pub const VME: u32 = 1 << 30;
}
pub mod status {
    pub const LINK_UP: u32 = 1 << 1;
}
pub mod eecd {
    pub const SK: u32 = 1 << 0;
    pub const CS: u32 = 1 << 1;
    pub const DI: u32 = 1 << 2;
    pub const DO: u32 = 1 << 3;
    pub const REQ: u32 = 1 << 6;
    pub const GNT: u32 = 1 << 7;
}
pub mod eerd {
    pub const START: u32 = 1 << 0;
    pub const DONE: u32 = 1 << 4;
}
pub mod mdic {
    pub const WRITE: u32 = 1 << 26;
    pub const READ: u32 = 1 << 27;
    pub const READY: u32 = 1 << 28;
    pub const INTERRUPT: u32 = 1 << 29;
    pub const ERROR: u32 = 1 << 30;
}
pub mod interrupt {
    pub const TXDW: u32 = 1 << 0;
    pub const TXQE: u32 = 1 << 1;
    pub const LSC: u32 = 1 << 2;
    pub const RXDMT0: u32 = 1 << 4;
    pub const RXT0: u32 = 1 << 7;
    pub const MDAC: u32 = 1 << 9;
    pub const ALL: u32 = 0x0001_f6df;
}
pub mod rctl {
    pub const EN: u32 = 1 << 1;
    pub const UPE: u32 = 1 << 3;
    pub const MPE: u32 = 1 << 4;
    pub const LPE: u32 = 1 << 5;
    pub const BAM: u32 = 1 << 15;
    pub const VFE: u32 = 1 << 18;
    pub const BSEX: u32 = 1 << 25;
    pub const SECRC: u32 = 1 << 26;
}
pub mod tctl {
    pub const EN: u32 = 1 << 1;
    pub const PSP: u32 = 1 << 3;
}
pub mod rxcsum {
    pub const IPOFLD: u32 = 1 << 8;
    pub const TUOFLD: u32 = 1 << 9;
}

/// Offsets of the statistics that are counted.
pub mod stat {
    pub const MPC: u64 = 0x4010;
    /// By size: 64, 65 to 127, 128 to 255, 256 to 511, 512 to 1023, longer.
    pub const PRC: u64 = 0x405c;
    pub const GPRC: u64 = 0x4074;
    pub const BPRC: u64 = 0x4078;
    pub const MPRC: u64 = 0x407c;
    pub const GPTC: u64 = 0x4080;
    pub const GORC: u64 = 0x4088;
    pub const GOTC: u64 = 0x4090;
    pub const RNBC: u64 = 0x40a0;
    pub const ROC: u64 = 0x40ac;
    pub const TOR: u64 = 0x40c0;
    pub const TOT: u64 = 0x40c8;
    pub const TPR: u64 = 0x40d0;
    pub const TPT: u64 = 0x40d4;
    pub const PTC: u64 = 0x40d8;
    pub const MPTC: u64 = 0x40f0;
    pub const BPTC: u64 = 0x40f4;
    pub const TSCTC: u64 = 0x40f8;
    pub const TSCTFC: u64 = 0x40fc;
    /// The lower halves of counters of 64 bits; reading the upper half clears both.
    pub const WIDE: [u64; 4] = [GORC, GOTC, TOR, TOT];
}
