//! Guest structures as data: field kinds whose size, alignment and byte order the guest's data model decides.
//!
//! [`record!`] declares a structure once for all guests. Its Rust form has host-native fields; `Field::get` and
//! `Field::put` convert from and to guest bytes. A structure that one guest lays out in its own way is a
//! record of its own in that guest's file.

/// What C types look like in guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataModel {
    pub big_endian: bool,
    /// Bytes of `long` and of a pointer: 4 or 8.
    pub word: usize,
    /// Alignment of a 64-bit integer in a structure (4 on i386).
    pub align64: usize,
    /// Bytes of the seconds and nanoseconds in a `timespec`: a word, but 8 in the newer calls of 32-bit guests.
    pub time: usize,
}

impl DataModel {
    /// 64-bit little-endian.
    pub const LP64: DataModel = DataModel { big_endian: false, word: 8, align64: 8, time: 8 };
    /// 32-bit x86: 64-bit integers are aligned to 4 bytes.
    pub const I386: DataModel = DataModel { big_endian: false, word: 4, align64: 4, time: 4 };
    /// The data model that tulk itself is compiled for.
    pub const HOST: DataModel = DataModel {
        big_endian: cfg!(target_endian = "big"),
        word: size_of::<usize>(),
        align64: align_of::<u64>(),
        time: 8,
    };

    /// The model of a call whose `timespec`s are 64 bits wide whatever the word.
    pub const fn with_time64(self) -> DataModel {
        DataModel { time: 8, ..self }
    }
}

/// One kind of field. `get` and `put` panic when the slice is shorter than `size`.
pub trait Field {
    type Host: Copy;
    fn align(m: DataModel) -> usize;
    fn size(m: DataModel) -> usize;
    fn get(bytes: &[u8], m: DataModel) -> Self::Host;
    fn put(bytes: &mut [u8], value: Self::Host, m: DataModel);
}

fn get_uint(bytes: &[u8], m: DataModel) -> u64 {
    let fold = |v: u64, b: &u8| v << 8 | *b as u64;
    if m.big_endian { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) }
}

fn put_uint(bytes: &mut [u8], value: u64, m: DataModel) {
    let len = bytes.len();
    for (i, b) in bytes.iter_mut().enumerate() {
        let at = if m.big_endian { len - 1 - i } else { i };
        *b = (value >> (8 * at)) as u8;
    }
}

macro_rules! integers {
    ($($(#[$doc:meta])* $name:ident: $host:ty, $size:expr, $align:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}
        impl Field for $name {
            type Host = $host;
            fn align(m: DataModel) -> usize {
                let f: fn(DataModel) -> usize = $align;
                f(m)
            }
            fn size(m: DataModel) -> usize {
                let f: fn(DataModel) -> usize = $size;
                f(m)
            }
            fn get(bytes: &[u8], m: DataModel) -> $host {
                let size = Self::size(m);
                let v = get_uint(&bytes[..size], m);
                // Sign-extend from the guest's size where the host type is signed.
                let up = 64 - 8 * size as u32;
                if <$host>::MIN != 0 { ((v << up) as i64 >> up) as $host } else { v as $host }
            }
            fn put(bytes: &mut [u8], value: $host, m: DataModel) {
                put_uint(&mut bytes[..Self::size(m)], value as u64, m);
            }
        }
    )*};
}
integers! {
    U8: u8, |_| 1, |_| 1;
    U16: u16, |_| 2, |_| 2;
    I16: i16, |_| 2, |_| 2;
    U32: u32, |_| 4, |_| 4;
    I32: i32, |_| 4, |_| 4;
    U64: u64, |_| 8, |m| m.align64;
    I64: i64, |_| 8, |m| m.align64;
    /// `long`, also the classic `time_t`.
    Long: i64, |m| m.word, |m| m.word;
    /// `unsigned long`, `size_t`.
    ULong: u64, |m| m.word, |m| m.word;
    /// A pointer, as a guest address.
    Ptr: u64, |m| m.word, |m| m.word;
    /// Seconds of a `timespec`.
    Time: i64, |m| m.time, |m| m.time.min(m.align64);
    /// A time of System V IPC: on 32-bit guests two words, low first.
    IpcTime: i64, |_| 8, |m| m.word;
}

/// Nanoseconds of a `timespec`. A 32-bit program leaves the upper half of the wide form undefined.
#[derive(Clone, Copy, Debug)]
pub enum Nsec {}

impl Field for Nsec {
    type Host = i64;
    fn align(m: DataModel) -> usize {
        Time::align(m)
    }
    fn size(m: DataModel) -> usize {
        Time::size(m)
    }
    fn get(bytes: &[u8], m: DataModel) -> i64 {
        let v = Time::get(bytes, m);
        if m.word == 4 { v as i32 as i64 } else { v }
    }
    fn put(bytes: &mut [u8], value: i64, m: DataModel) {
        Time::put(bytes, value, m);
    }
}

/// Bytes without meaning; written as zero.
#[derive(Clone, Copy, Debug)]
pub struct Pad<const N: usize>;

impl<const N: usize> Field for Pad<N> {
    type Host = ();
    fn align(_: DataModel) -> usize {
        1
    }
    fn size(_: DataModel) -> usize {
        N
    }
    fn get(_: &[u8], _: DataModel) {}
    fn put(bytes: &mut [u8], (): (), _: DataModel) {
        bytes[..N].fill(0);
    }
}

impl<F: Field, const N: usize> Field for [F; N] {
    type Host = [F::Host; N];
    fn align(m: DataModel) -> usize {
        F::align(m)
    }
    fn size(m: DataModel) -> usize {
        N * F::size(m)
    }
    fn get(bytes: &[u8], m: DataModel) -> Self::Host {
        std::array::from_fn(|i| F::get(&bytes[i * F::size(m)..], m))
    }
    fn put(bytes: &mut [u8], value: Self::Host, m: DataModel) {
        for (i, v) in value.into_iter().enumerate() {
            F::put(&mut bytes[i * F::size(m)..], v, m);
        }
    }
}

/// Declares a guest structure: `record! { pub struct Name { field: Kind, ... } }`. Kinds are those of this
/// module, arrays of them, and other records.
#[macro_export]
macro_rules! record {
    ($($(#[$meta:meta])* $vis:vis struct $name:ident { $($field:ident: $kind:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        $vis struct $name {
            $(pub $field: <$kind as $crate::abi::record::Field>::Host,)*
        }
        impl $crate::abi::record::Field for $name {
            type Host = $name;
            fn align(m: $crate::abi::record::DataModel) -> usize {
                let align = 1;
                $(let align = align.max(<$kind as $crate::abi::record::Field>::align(m));)*
                align
            }
            fn size(m: $crate::abi::record::DataModel) -> usize {
                let at = 0usize;
                $(let at = at.next_multiple_of(<$kind as $crate::abi::record::Field>::align(m))
                    + <$kind as $crate::abi::record::Field>::size(m);)*
                at.next_multiple_of(Self::align(m))
            }
            fn get(bytes: &[u8], m: $crate::abi::record::DataModel) -> $name {
                let end = 0usize;
                $(let at = end.next_multiple_of(<$kind as $crate::abi::record::Field>::align(m));
                  #[allow(clippy::let_unit_value)]
                  let $field = <$kind as $crate::abi::record::Field>::get(&bytes[at..], m);
                  let end = at + <$kind as $crate::abi::record::Field>::size(m);)*
                let _ = end;
                $name { $($field),* }
            }
            fn put(bytes: &mut [u8], value: $name, m: $crate::abi::record::DataModel) {
                bytes[..Self::size(m)].fill(0);
                let end = 0usize;
                $(let at = end.next_multiple_of(<$kind as $crate::abi::record::Field>::align(m));
                  <$kind as $crate::abi::record::Field>::put(&mut bytes[at..], value.$field, m);
                  let end = at + <$kind as $crate::abi::record::Field>::size(m);)*
                let _ = end;
            }
        }
        impl $name {
            /// All bytes zero.
            #[allow(dead_code)]
            $vis fn zero() -> $name {
                use $crate::abi::record::{DataModel, Field};
                let size = <$name as Field>::size(DataModel::LP64);
                <$name as Field>::get(&vec![0; size], DataModel::LP64)
            }
        }
    )*};
}

#[cfg(test)]
mod tests {
    use super::*;

    record! {
        struct Mixed { a: U8, b: U64, c: I16, d: Long, e: [I32; 2], f: Ptr, g: Pad<3>, h: U8 }
        struct Outer { x: U8, inner: Mixed }
    }

    const MODELS: [DataModel; 4] = [
        DataModel::LP64,
        DataModel { big_endian: true, word: 8, align64: 8, time: 8 },
        DataModel::I386,
        DataModel { big_endian: true, word: 4, align64: 8, time: 4 },
    ];

    #[test]
    fn layout_follows_the_data_model() {
        let sizes = MODELS.map(Mixed::size);
        // a@0 b@8 c@16 d@24 e@32 f@40 g@48 h@51 | i386: a@0 b@4 c@12 d@16 e@20 f@28 g@32 h@35
        assert_eq!(sizes, [56, 56, 36, 40]);
        assert_eq!(MODELS.map(Outer::size), [64, 64, 40, 48]);
    }

    #[test]
    fn values_survive_a_round_trip_and_signs_extend() {
        let v = Mixed {
            a: 0xfe,
            b: 0x0102_0304_0506_0708,
            c: -2,
            d: -70000,
            e: [-1, 7],
            f: 0xdead_beef,
            g: (),
            h: 9,
        };
        for m in MODELS {
            let mut bytes = vec![0xaa; Outer::size(m)];
            Outer::put(&mut bytes, Outer { x: 1, inner: v }, m);
            let r = Outer::get(&bytes, m).inner;
            assert_eq!((r.a, r.b, r.c, r.d, r.e, r.f, r.h), (v.a, v.b, v.c, v.d, v.e, v.f, v.h));
        }
        let mut bytes = vec![0; 8];
        U32::put(&mut bytes, 0x1234_5678, MODELS[1]);
        assert_eq!(bytes[..4], [0x12, 0x34, 0x56, 0x78]);
    }

    #[test]
    fn zero_is_zero() {
        assert_eq!(Mixed::zero().d, 0);
    }
}
