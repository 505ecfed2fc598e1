//! Instruction tables and the decoder made from them.
//!
//! One row per instruction (or per group that differs in one field), grouped by the manual's encoding classes:
//!
//! ```text
//! "Class as chapter C4.1 names it" {
//!     name  "bit picture"  [Feature]  if |i| condition;
//! }
//! ```
//!
//! - `name` is the row's name and the name of its lift function, found in the chapter's module.
//! - The picture lists bits 31 down to 0: `0` and `1` runs are fixed, `field:width` is a field of [`FIELDS`] at
//!   its one place, `(01)` are bits that should have these values but are ignored.
//! - `[Feature]`: a CPU model without it has no such row. Left out: the base architecture.
//! - `if`: a condition over the fields; where it is false the word is undefined.
//!
//! A malformed picture does not compile. Two rows may overlap only if one lies wholly inside the other; the
//! narrower one wins. `tests/decode.rs` compares the tables with capstone.

pub mod atomic;
pub mod branch;
pub mod crypto;
pub mod fp;
pub mod integer;
pub mod memory;
pub mod simd;
pub mod system;

use super::{Feature, Features, Lifter};

/// Writes one instruction's IR. A lift function never sees a word that its row does not describe.
pub type LiftFn = fn(&mut Lifter<'_>, Insn);

/// All tables.
pub static TABLES: [&[Row]; 8] = [
    integer::ROWS,
    branch::ROWS,
    memory::ROWS,
    atomic::ROWS,
    system::ROWS,
    fp::ROWS,
    simd::ROWS,
    crypto::ROWS,
];

/// All rows of all tables.
pub fn rows() -> impl Iterator<Item = &'static Row> + Clone {
    TABLES.iter().flat_map(|t| t.iter())
}

/// An instruction word; the fields are methods.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Insn(pub u32);

/// A field's name, lowest bit and width.
pub type Field = (&'static str, u32, u32);

macro_rules! fields {
    ($($name:ident $lsb:literal $width:literal)+) => {
        /// Every field name that a picture may use. A name has one place in all of A64.
        pub const FIELDS: &[Field] = &[$((stringify!($name), $lsb, $width)),+];

        impl Insn {
            $(
                #[doc = concat!("The field of ", $width, " bits at bit ", $lsb, ".")]
                #[inline]
                pub const fn $name(self) -> u32 {
                    self.0 >> $lsb & ((1 << $width) - 1)
                }
            )+
        }
    };
}

fields! {
    // Registers.
    rd 0 5   rt 0 5   rn 5 5   rm 16 5   rs 16 5   ra 10 5   rt2 10 5
    // Integer data processing.
    sf 31 1  sh 22 1  shift 22 2  n 22 1  hw 21 2  option 13 3
    imm3 10 3  imm5 16 5  imm6 10 6  imm12 10 12  imm16 5 16  immr 16 6  imms 10 6  immlo 29 2  immhi 5 19
    cond 12 4  nzcv 0 4  mask 0 4  rotate 15 6
    // Branches and system.
    imm26 0 26  imm19 5 19  imm14 5 14  b5 31 1  b40 19 5  bcond 0 4
    o0 19 1  op1 16 3  crn 12 4  crm 8 4  op2 5 3
    // Floating point and AdvSIMD.
    q 30 1   vsize 22 2   fsz 22 1   ftype 22 2   fto 15 2   scale 10 6   imm8 13 8
    l 21 1   h 11 1   rot 11 2   rota 12 1   rote 13 2   vidx 11 4   tlen 13 2   abc 16 3   defgh 5 5
    idx2 12 2   tt 10 2
    immb 16 3   immh 19 4   immhh 19 1   immhs 19 2   immhd 19 3
    lopc 12 4   lsize 10 2   lop 13 3   lsel 13 1   lr 21 1
    // Loads and stores.
    size 30 2  sz 30 1  opc 22 2  imm7 15 7  imm9 12 9  s 12 1
    acq 23 1  rel 22 1  cas_acq 22 1  cas_rel 15 1  excl_ord 15 1
}

/// Fixed and should-be bits of a picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pattern {
    pub mask: u32,
    pub value: u32,
    /// Bits that are ignored although the manual gives them a value (`should_value`).
    pub should: u32,
    pub should_value: u32,
}

/// What is wrong with a picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PictureError {
    /// Not 32 bits.
    Width,
    /// A token that is neither bits nor `field:width`.
    Token,
    UnknownField,
    /// A field of another width or at another place than [`FIELDS`] says.
    Place,
}

/// Reads a picture. Every fixed bit is in `mask`.
pub const fn parse(picture: &str) -> Result<Pattern, PictureError> {
    let text = picture.as_bytes();
    let mut p = Pattern { mask: 0, value: 0, should: 0, should_value: 0 };
    let mut at = 32u32;
    let mut i = 0;
    let mut should = false;
    while i < text.len() {
        match text[i] {
            b' ' => i += 1,
            b'(' if !should => {
                should = true;
                i += 1;
            }
            b')' if should => {
                should = false;
                i += 1;
            }
            b'0' | b'1' => {
                if at == 0 {
                    return Err(PictureError::Width);
                }
                at -= 1;
                let bit = ((text[i] - b'0') as u32) << at;
                if should {
                    p.should |= 1 << at;
                    p.should_value |= bit;
                } else {
                    p.mask |= 1 << at;
                    p.value |= bit;
                }
                i += 1;
            }
            b'a'..=b'z' if !should => {
                let start = i;
                while i < text.len() && text[i] != b':' && text[i] != b' ' {
                    i += 1;
                }
                let (name, mut width) = ((start, i), 0u32);
                if i == text.len() || text[i] != b':' {
                    return Err(PictureError::Token);
                }
                i += 1;
                while i < text.len() && text[i].is_ascii_digit() && width < 32 {
                    width = width * 10 + (text[i] - b'0') as u32;
                    i += 1;
                }
                if width == 0 || (i < text.len() && text[i] != b' ') {
                    return Err(PictureError::Token);
                }
                if width > at {
                    return Err(PictureError::Width);
                }
                at -= width;
                match place(text, name) {
                    None => return Err(PictureError::UnknownField),
                    Some(f) if f.1 != at || f.2 != width => return Err(PictureError::Place),
                    Some(_) => {}
                }
            }
            _ => return Err(PictureError::Token),
        }
    }
    if should {
        return Err(PictureError::Token);
    }
    if at == 0 { Ok(p) } else { Err(PictureError::Width) }
}

/// The field of this name.
const fn place(text: &[u8], name: (usize, usize)) -> Option<Field> {
    let mut f = 0;
    while f < FIELDS.len() {
        let known = FIELDS[f].0.as_bytes();
        let mut same = known.len() == name.1 - name.0;
        let mut i = 0;
        while same && i < known.len() {
            same = known[i] == text[name.0 + i];
            i += 1;
        }
        if same {
            return Some(FIELDS[f]);
        }
        f += 1;
    }
    None
}

/// One instruction (or a group of near relatives).
pub struct Row {
    pub name: &'static str,
    /// The manual's encoding class (chapter C4.1).
    pub class: &'static str,
    pub picture: &'static str,
    pub pattern: Pattern,
    pub feature: Feature,
    /// False for the row's undefined words.
    pub valid: Option<fn(Insn) -> bool>,
    pub lift: LiftFn,
}

impl Row {
    /// # Panics
    /// When the picture is malformed: at compile time, in a table.
    pub const fn new(
        name: &'static str,
        class: &'static str,
        picture: &'static str,
        feature: Feature,
        valid: Option<fn(Insn) -> bool>,
        lift: LiftFn,
    ) -> Row {
        let pattern = match parse(picture) {
            Ok(p) => p,
            Err(PictureError::Width) => panic!("the picture has not 32 bits"),
            Err(PictureError::Token) => panic!("the picture has a malformed token"),
            Err(PictureError::UnknownField) => panic!("the picture names an unknown field"),
            Err(PictureError::Place) => panic!("the picture has a field in a wrong place"),
        };
        Row { name, class, picture, pattern, feature, valid, lift }
    }

    pub fn matches(&self, word: u32) -> bool {
        word & self.pattern.mask == self.pattern.value
            && self.valid.is_none_or(|valid| valid(Insn(word)))
    }

    /// The row's fields, highest first.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.picture.split(' ').filter_map(|token| {
            let name = token.split_once(':')?.0;
            FIELDS.iter().find(|f| f.0 == name).copied()
        })
    }
}

/// Declares a table, see the module. The chapter's lift functions are in scope as `lift`.
macro_rules! table {
    (@feature) => { $crate::a64::Feature::Base };
    (@feature $feature:ident) => { $crate::a64::Feature::$feature };
    (@valid) => { None };
    (@valid $valid:expr) => { Some($valid) };
    ($($class:literal { $($name:ident $picture:literal $([$feature:ident])? $(if $valid:expr)?;)* })*) => {
        pub static ROWS: &[$crate::a64::decode::Row] = &[$($($crate::a64::decode::Row::new(
            stringify!($name),
            $class,
            $picture,
            $crate::a64::decode::table!(@feature $($feature)?),
            $crate::a64::decode::table!(@valid $($valid)?),
            lift::$name,
        )),*),*];
    };
}
pub(crate) use table;

/// Rows that overlap without one lying inside the other, as readable complaints.
pub fn conflicts<'a>(rows: impl Iterator<Item = &'a Row> + Clone) -> Vec<String> {
    let mut found = Vec::new();
    for (i, a) in rows.clone().enumerate() {
        for b in rows.clone().skip(i + 1) {
            let (p, q) = (a.pattern, b.pattern);
            let both = p.mask & q.mask;
            let overlap = (p.value ^ q.value) & both == 0;
            let nested = p.mask != q.mask && (both == p.mask || both == q.mask);
            if overlap && !nested {
                found.push(format!(
                    "{} \"{}\" overlaps {} \"{}\"",
                    a.name, a.picture, b.name, b.picture
                ));
            }
        }
    }
    found
}

/// A row as the decoder looks at it.
#[derive(Clone, Copy)]
struct Entry {
    mask: u32,
    value: u32,
    row: &'static Row,
}

/// Finds the row of a word: one table lookup by bits 31:21, for crowded places a second one by bits 15:10,
/// then a few candidates, narrowest first.
pub struct Decoder {
    /// By bits 31:21: start and length in `entries` as `start << 8 | length`, or `CROWDED | start in second`.
    first: Vec<u32>,
    /// By bits 15:10, 64 for each crowded place: `start << 8 | length`.
    second: Vec<u32>,
    entries: Vec<Entry>,
}

const CROWDED: u32 = 1 << 31;
/// More candidates than this make a place crowded.
const MOST: usize = 4;

impl Decoder {
    /// The decoder of a CPU with these features.
    pub fn new(features: Features) -> Decoder {
        let mut rows: Vec<&'static Row> = rows().filter(|r| features.has(r.feature)).collect();
        rows.sort_by_key(|r| std::cmp::Reverse(r.pattern.mask.count_ones()));
        let (starts, all) = spread(&rows, 21, 11);
        let mut decoder =
            Decoder { first: Vec::with_capacity(1 << 11), second: Vec::new(), entries: Vec::new() };
        // Neighbouring places often hold the same rows: share what was built for the last one.
        let mut last: (&[&Row], u32) = (&[], 0);
        for place in starts.windows(2) {
            let here = &all[place[0]..place[1]];
            let same = here.len() == last.0.len()
                && here.iter().zip(last.0).all(|(a, b)| std::ptr::eq(*a, *b));
            if !same {
                last = (here, decoder.add_place(here));
            }
            decoder.first.push(last.1);
        }
        decoder
    }

    fn add_place(&mut self, rows: &[&'static Row]) -> u32 {
        if rows.len() <= MOST {
            return self.add_list(rows);
        }
        let (starts, all) = spread(rows, 10, 6);
        let at = self.second.len() as u32;
        for place in starts.windows(2) {
            let list = self.add_list(&all[place[0]..place[1]]);
            self.second.push(list);
        }
        CROWDED | at
    }

    fn add_list(&mut self, rows: &[&'static Row]) -> u32 {
        let start = self.entries.len() as u32;
        self.entries.extend(rows.iter().map(|&row| Entry {
            mask: row.pattern.mask,
            value: row.pattern.value,
            row,
        }));
        start << 8 | rows.len() as u32
    }

    /// The row that describes `word`, or `None` if it is undefined.
    #[inline]
    pub fn decode(&self, word: u32) -> Option<&'static Row> {
        let mut list = self.first[(word >> 21) as usize];
        if list & CROWDED != 0 {
            list = self.second[((list & !CROWDED) + (word >> 10 & 63)) as usize];
        }
        let start = (list >> 8) as usize;
        let row = self.entries[start..start + (list & 0xff) as usize]
            .iter()
            .find(|e| word & e.mask == e.value)?
            .row;
        match row.valid {
            Some(valid) if !valid(Insn(word)) => None,
            _ => Some(row),
        }
    }

    /// Most candidates that a lookup may have to try.
    pub fn longest(&self) -> u32 {
        let lists = self.first.iter().filter(|&&l| l & CROWDED == 0).chain(&self.second);
        lists.map(|l| l & 0xff).max().unwrap_or(0)
    }
}

/// Sorts rows into the places that `bits` bits at `lsb` can name, keeping their order: place `p` is
/// `rows[starts[p]..starts[p + 1]]`.
fn spread<'a>(rows: &[&'a Row], lsb: u32, bits: u32) -> (Vec<usize>, Vec<&'a Row>) {
    let all = (1u32 << bits) - 1;
    let places = |row: &Row| {
        let (mask, value) = (row.pattern.mask >> lsb & all, row.pattern.value >> lsb & all);
        let free = all & !mask;
        // The subsets of the free bits, counting up through them.
        let mut next = Some(0u32);
        std::iter::from_fn(move || {
            let subset = next?;
            next =
                if subset == free { None } else { Some((subset | !free).wrapping_add(1) & free) };
            Some((value | subset) as usize)
        })
    };
    let mut starts = vec![0usize; (1 << bits) + 1];
    for row in rows {
        places(row).for_each(|p| starts[p + 1] += 1);
    }
    for p in 0..1 << bits {
        starts[p + 1] += starts[p];
    }
    let Some(&filler) = rows.first() else { return (starts, Vec::new()) };
    let mut sorted = vec![filler; starts[1 << bits]];
    let mut next = starts.clone();
    for row in rows {
        for p in places(row) {
            sorted[next[p]] = row;
            next[p] += 1;
        }
    }
    (starts, sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &mut Lifter<'_>, _: Insn) {}

    #[test]
    fn pictures_that_must_be_rejected() {
        for (picture, error) in [
            ("", PictureError::Width),
            ("0101 0101", PictureError::Width),
            ("sf:1 0 0 100010 sh:1 imm12:12 rn:5 rd:5 0", PictureError::Width),
            ("sf:1 0 0 10001 sh:1 imm12:12 rn:5 rd:5", PictureError::Place),
            ("sf:1 0 0 100010 sh:1 imm12:12 rn:5 rd:4", PictureError::Place),
            ("sf:1 0 0 100010 sh:1 imm12:12 rd:5 rn:5", PictureError::Place),
            ("sf:1 0 0 100010 sh:1 imm12:12 rn:5 what:5", PictureError::UnknownField),
            ("sf 0 0 100010 sh:1 imm12:12 rn:5 rd:5", PictureError::Token),
            ("sf: 0 0 100010 sh:1 imm12:12 rn:5 rd:5", PictureError::Token),
            ("sf:1 0 0 100010 sh:1 imm12:12 rn:5 rd:5x", PictureError::Token),
            ("2 00 100010 sh:1 imm12:12 rn:5 rd:5", PictureError::Token),
            ("sf:1 00 100010 sh:1 imm12:12 rn:5 (11111", PictureError::Token),
        ] {
            assert_eq!(parse(picture), Err(error), "{picture}");
        }
    }

    #[test]
    fn picture_bits() {
        let p = parse("sf:1 1 0 100010 sh:1 imm12:12 rn:5 (11110)").unwrap();
        assert_eq!((p.mask, p.value), (0x7f80_0000, 0x5100_0000));
        assert_eq!((p.should, p.should_value), (0x1f, 0x1e));
    }

    #[test]
    fn overlaps_that_must_be_rejected() {
        let row = |name, picture| Row::new(name, "", picture, Feature::Base, None, nothing);
        let rest = "000000 00000000 00000000";
        let picture = |head: &str| -> &'static str { format!("{head} {rest}").leak() };
        let crossing = [
            row("a", "sf:1 0000000 00000000 00000000 00000000"),
            row("b", "0 0000000 00000000 00000000 000 rd:5"),
        ];
        assert_eq!(conflicts(crossing.iter()).len(), 1);
        let equal = [row("a", picture("00000000 00")), row("b", picture("00000000 00"))];
        assert_eq!(conflicts(equal.iter()).len(), 1);
        let nested = [
            row("a", "sf:1 0000000 00000000 00000000 000 rd:5"),
            row("b", "0 0000000 00000000 00000000 000 rd:5"),
        ];
        assert_eq!(conflicts(nested.iter()), Vec::<String>::new());
        let apart = [
            row("a", "0 0000000 00000000 00000000 000 rd:5"),
            row("b", "1 0000000 00000000 00000000 000 rd:5"),
        ];
        assert_eq!(conflicts(apart.iter()), Vec::<String>::new());
    }

    #[test]
    fn the_tables_are_sound() {
        assert_eq!(conflicts(rows()), Vec::<String>::new());
        let decoder = Decoder::new(Features::ALL);
        assert!(decoder.longest() <= 14, "{} candidates at one place", decoder.longest());
    }

    /// The fast decoder finds what a search through all rows finds.
    #[test]
    fn decoder_agrees_with_a_linear_search() {
        let decoder = Decoder::new(Features::ALL);
        let mut x = 0x9e37_79b9_7f4a_7c15u64;
        let rows: Vec<&Row> = rows().collect();
        for n in 0..200_000 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let mut word = (x >> 32) as u32;
            if n % 2 == 0 {
                let p = rows[n / 2 % rows.len()].pattern;
                word = word & !p.mask | p.value;
            }
            let slow = rows
                .iter()
                .filter(|r| word & r.pattern.mask == r.pattern.value)
                .max_by_key(|r| r.pattern.mask.count_ones())
                .filter(|r| r.matches(word));
            let fast = decoder.decode(word);
            assert_eq!(fast.map(|r| r.name), slow.map(|r| r.name), "{word:08x}");
        }
    }
}
