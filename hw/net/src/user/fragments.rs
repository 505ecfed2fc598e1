//! Fragments of IP packets put together again (RFC 791, 3.2): [`Fragments`].

use smoltcp::wire::Ipv4Packet;
use std::time::{Duration, Instant};

/// Packets in pieces at once; one more ends the oldest.
const PACKETS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(15);
const LONGEST: usize = 65_535;

#[derive(PartialEq, Eq, Clone, Copy)]
struct Key {
    addresses: [u8; 8],
    ident: u16,
    protocol: u8,
}

struct Partial {
    key: Key,
    since: Instant,
    /// The first fragment's header.
    header: Vec<u8>,
    payload: Vec<u8>,
    /// Ranges that have come, not overlapping.
    ranges: Vec<(usize, usize)>,
    length: Option<usize>,
}

#[derive(Default)]
pub(super) struct Fragments(Vec<Partial>);

impl Fragments {
    /// Takes a fragment, checked for its lengths. The whole packet, when this was the last one that was missing.
    pub fn add(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let packet = Ipv4Packet::new_checked(bytes).ok()?;
        let key = Key {
            addresses: bytes.get(12..20)?.try_into().ok()?,
            ident: packet.ident(),
            protocol: packet.next_header().into(),
        };
        let (from, more) = (usize::from(packet.frag_offset()), packet.more_frags());
        let piece = packet.payload();
        let to = from + piece.len();
        let now = Instant::now();
        self.0.retain(|partial| now - partial.since < PATIENCE);
        if piece.is_empty() || (more && piece.len() % 8 != 0) || to > LONGEST - 60 {
            return None;
        }
        let at = match self.0.iter().position(|partial| partial.key == key) {
            Some(at) => at,
            None => {
                if self.0.len() == PACKETS {
                    self.0.remove(0);
                }
                self.0.push(Partial {
                    key,
                    since: now,
                    header: Vec::new(),
                    payload: Vec::new(),
                    ranges: Vec::new(),
                    length: None,
                });
                self.0.len() - 1
            }
        };
        let partial = &mut self.0[at];
        if partial.ranges.contains(&(from, to)) {
            // The same once more.
            return None;
        }
        // Overlaps are attacks only (RFC 5722 says so for IPv6), and so are two ends.
        let overlaps = partial.ranges.iter().any(|&(a, b)| from < b && a < to);
        let behind = partial.length.is_some_and(|length| to > length || !more);
        let too_short = !more && partial.ranges.iter().any(|&(_, b)| b > to);
        if overlaps || behind || too_short {
            self.0.remove(at);
            return None;
        }
        if partial.payload.len() < to {
            partial.payload.resize(to, 0);
        }
        partial.payload[from..to].copy_from_slice(piece);
        partial.ranges.push((from, to));
        if from == 0 {
            partial.header = bytes[..usize::from(packet.header_len())].to_vec();
        }
        if !more {
            partial.length = Some(to);
        }
        let have: usize = partial.ranges.iter().map(|(a, b)| b - a).sum();
        if partial.length != Some(have) {
            return None;
        }
        let partial = self.0.remove(at);
        let mut whole = partial.header;
        whole.extend_from_slice(&partial.payload);
        let length = u16::try_from(whole.len()).ok()?;
        let mut packet = Ipv4Packet::new_unchecked(&mut whole[..]);
        packet.set_total_len(length);
        packet.set_more_frags(false);
        packet.set_frag_offset(0);
        packet.fill_checksum();
        Some(whole)
    }
}
