//! Work that drivers leave to network cards: Internet checksums (RFC 1071) and cutting large TCP segments (as in the
//! Linux kernel's "segmentation offloads"). Frames are guests' and may be malformed; then these functions decline.

use std::ops::Range;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;

fn be16(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

fn be32(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

fn put(data: &mut [u8], at: usize, bytes: &[u8]) -> Option<()> {
    data.get_mut(at..at.checked_add(bytes.len())?)?.copy_from_slice(bytes);
    Some(())
}

/// Adds 16-bit words to a sum that [`fold`] brings into 16 bits. An odd last byte counts as a word's upper half.
pub fn add(sum: u64, data: &[u8]) -> u64 {
    let (words, rest) = data.as_chunks::<4>();
    let mut sum = words.iter().fold(sum, |s, w| s + u64::from(u32::from_be_bytes(*w)));
    let (words, rest) = rest.as_chunks::<2>();
    sum = words.iter().fold(sum, |s, w| s + u64::from(u16::from_be_bytes(*w)));
    rest.first().map_or(sum, |&b| sum + (u64::from(b) << 8))
}

/// The ones' complement sum in 16 bits, not inverted.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Puts the checksum of `range` at offset `at`, where the sum of the pseudo header stands already. `None`: they do not lie
/// within the frame.
pub fn finish(frame: &mut [u8], range: Range<usize>, at: usize) -> Option<()> {
    let sum = !fold(add(0, frame.get(range)?));
    // For UDP a sum of 0 means that there is none; for TCP both forms of zero are equal.
    let sum = if sum == 0 { 0xffff } else { sum };
    put(frame, at, &sum.to_be_bytes())
}

/// Where the headers of a frame are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    pub ipv6: bool,
    /// Offset of the IP header.
    pub ip: usize,
    /// Transport protocol, and the range of its header and data; `None` for fragments and damaged packets.
    pub transport: Option<(u8, usize, usize)>,
}

/// Finds the IP packet in an Ethernet frame, behind up to two VLAN tags.
pub fn layout(frame: &[u8]) -> Option<Layout> {
    let mut ip = 14;
    let mut kind = be16(frame, 12)?;
    for _ in 0..2 {
        if matches!(kind, 0x8100 | 0x88a8) {
            kind = be16(frame, ip + 2)?;
            ip += 4;
        }
    }
    match kind {
        ETHERTYPE_IPV4 => {
            let first = *frame.get(ip)?;
            let header = usize::from(first & 15) * 4;
            let end = ip + usize::from(be16(frame, ip + 2)?);
            let fragment = be16(frame, ip + 6)? & 0x3fff != 0;
            let sound = first >> 4 == 4 && header >= 20 && ip + header <= end;
            let protocol = *frame.get(ip + 9)?;
            let transport =
                (sound && !fragment && end <= frame.len()).then_some((protocol, ip + header, end));
            Some(Layout { ipv6: false, ip, transport })
        }
        ETHERTYPE_IPV6 => {
            let end = ip + 40 + usize::from(be16(frame, ip + 4)?);
            let protocol = *frame.get(ip + 6)?;
            let transport = (end <= frame.len()).then_some((protocol, ip + 40, end));
            Some(Layout { ipv6: true, ip, transport })
        }
        _ => None,
    }
}

/// The sum of the pseudo header of TCP or UDP.
fn pseudo(frame: &[u8], ipv6: bool, ip: usize, protocol: u8, len: usize) -> Option<u64> {
    let addresses = if ipv6 { ip + 8..ip + 40 } else { ip + 12..ip + 20 };
    Some(add(u64::from(protocol) + len as u64, frame.get(addresses)?))
}

/// Whether the checksum of the IPv4 header is right; `None`: no IPv4.
pub fn ip_sum_right(frame: &[u8], layout: &Layout) -> Option<bool> {
    let header = usize::from(*frame.get(layout.ip)? & 15) * 4;
    let header = frame.get(layout.ip..layout.ip + header).filter(|_| !layout.ipv6)?;
    Some(fold(add(0, header)) == 0xffff)
}

/// Whether the TCP or UDP checksum is right; `None`: neither, or UDP without one.
pub fn transport_sum_right(frame: &[u8], layout: &Layout) -> Option<bool> {
    let (protocol, start, end) = layout.transport?;
    let at = match protocol {
        TCP => 16,
        UDP => 6,
        _ => return None,
    };
    if protocol == UDP && be16(frame, start + at)? == 0 {
        return None;
    }
    let sum = pseudo(frame, layout.ipv6, layout.ip, protocol, end - start)?;
    Some(fold(add(sum, frame.get(start..end)?)) == 0xffff)
}

/// A large TCP segment to be cut: where its headers are, and the most data in a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Large {
    pub ipv6: bool,
    pub ip: usize,
    pub tcp: usize,
    /// Bytes of all headers.
    pub headers: usize,
    pub mss: usize,
}

/// Smallest data size of a piece that drivers have a reason for.
const MIN_MSS: usize = 8;

impl Large {
    /// Cuts a frame and gives the pieces, with lengths, identifications, sequence numbers, flags and checksums as if the
    /// driver had cut it. `piece` holds each piece in turn. Returns how many; `None`: the headers make no sense.
    pub fn cut(
        &self,
        frame: &[u8],
        piece: &mut Vec<u8>,
        mut emit: impl FnMut(&[u8]),
    ) -> Option<usize> {
        let headers = frame.get(..self.headers)?;
        let data = &frame[self.headers..];
        let ip_header = if self.ipv6 { 40 } else { 20 };
        let sound = self.ip >= 14
            && self.tcp >= self.ip + ip_header
            && self.headers >= self.tcp + 20
            && self.mss >= MIN_MSS;
        if !sound {
            return None;
        }
        let sequence = be32(frame, self.tcp + 4)?;
        let flags = *frame.get(self.tcp + 13)?;
        let id = be16(frame, self.ip + 4)?;
        let count = data.len().div_ceil(self.mss).max(1);
        for n in 0..count {
            let part = &data[n * self.mss..data.len().min((n + 1) * self.mss)];
            piece.clear();
            piece.extend_from_slice(headers);
            piece.extend_from_slice(part);
            let (len, ip) = (piece.len(), self.ip);
            if self.ipv6 {
                put(piece, ip + 4, &u16::try_from(len - ip - 40).ok()?.to_be_bytes())?;
            } else {
                put(piece, ip + 2, &u16::try_from(len - ip).ok()?.to_be_bytes())?;
                put(piece, ip + 4, &id.wrapping_add(n as u16).to_be_bytes())?;
                put(piece, ip + 10, &[0, 0])?;
                let sum = !fold(add(0, &piece[ip..self.tcp]));
                put(piece, ip + 10, &sum.to_be_bytes())?;
            }
            let at = sequence.wrapping_add((n * self.mss) as u32);
            put(piece, self.tcp + 4, &at.to_be_bytes())?;
            // FIN and PSH belong to the last piece, CWR to the first.
            let mut flags = flags;
            if n + 1 != count {
                flags &= !0x09;
            }
            if n != 0 {
                flags &= !0x80;
            }
            put(piece, self.tcp + 13, &[flags])?;
            put(piece, self.tcp + 16, &[0, 0])?;
            let sum = pseudo(piece, self.ipv6, ip, TCP, len - self.tcp)?;
            let sum = !fold(add(sum, &piece[self.tcp..]));
            put(piece, self.tcp + 16, &sum.to_be_bytes())?;
            emit(piece);
        }
        Some(count)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A TCP segment over IPv4 with `data` bytes, with right checksums.
    pub(crate) fn tcp4(data: usize) -> Vec<u8> {
        let mut f = vec![0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 8, 0];
        let total = (40 + data) as u16;
        f.extend([0x45, 0]);
        f.extend(total.to_be_bytes());
        f.extend([0x12, 0x34, 0x40, 0, 64, TCP, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
        f.extend([0x30, 0x39, 0, 80, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 1, 0x50, 0x99, 1, 0]);
        f.extend([0; 4]);
        f.extend((0..data).map(|n| (n * 7) as u8));
        let ip = !fold(add(0, &f[14..34]));
        f[24..26].copy_from_slice(&ip.to_be_bytes());
        let tcp = !fold(add(pseudo(&f, false, 14, TCP, 20 + data).unwrap(), &f[34..]));
        f[50..52].copy_from_slice(&tcp.to_be_bytes());
        f
    }

    #[test]
    fn sums_of_rfc_1071() {
        // The example of RFC 1071, section 3.
        assert_eq!(fold(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
        assert_eq!(fold(add(0, &[0xab])), 0xab00);
        let frame = tcp4(101);
        let at = layout(&frame).unwrap();
        assert_eq!(at.transport, Some((TCP, 34, frame.len())));
        assert_eq!(ip_sum_right(&frame, &at), Some(true));
        assert_eq!(transport_sum_right(&frame, &at), Some(true));
        let mut bad = frame.clone();
        bad[60] ^= 1;
        assert_eq!(transport_sum_right(&bad, &at), Some(false));
        bad = frame.clone();
        bad[15] ^= 1;
        assert_eq!(ip_sum_right(&bad, &at), Some(false));
    }

    #[test]
    fn finishes_what_the_driver_began() {
        let right = tcp4(33);
        let mut frame = right.clone();
        let partial = fold(pseudo(&frame, false, 14, TCP, 53).unwrap());
        frame[50..52].copy_from_slice(&partial.to_be_bytes());
        let end = frame.len();
        finish(&mut frame, 34..end, 50).unwrap();
        assert_eq!(frame, right);
        assert_eq!(finish(&mut frame, 34..end + 1, 50), None);
        assert_eq!(finish(&mut frame, 34..end, end - 1), None);
    }

    #[test]
    fn cuts_large_segments() {
        let frame = tcp4(3000);
        let large = Large { ipv6: false, ip: 14, tcp: 34, headers: 54, mss: 1400 };
        let (mut pieces, mut buffer) = (Vec::new(), Vec::new());
        assert_eq!(large.cut(&frame, &mut buffer, |p| pieces.push(p.to_vec())), Some(3));
        let lengths: Vec<_> = pieces.iter().map(Vec::len).collect();
        assert_eq!(lengths, [1454, 1454, 254]);
        for (n, p) in pieces.iter().enumerate() {
            let at = layout(p).unwrap();
            assert_eq!(ip_sum_right(p, &at), Some(true));
            assert_eq!(transport_sum_right(p, &at), Some(true));
            assert_eq!(be16(p, 18), Some(0x1234 + n as u16));
            assert_eq!(be32(p, 38), Some(0xffff_fff0u32.wrapping_add(n as u32 * 1400)));
        }
        let flags: Vec<_> = pieces.iter().map(|p| p[47]).collect();
        assert_eq!(flags, [0x90, 0x10, 0x19]);
        let joined: Vec<u8> = pieces.iter().flat_map(|p| p[54..].to_vec()).collect();
        assert_eq!(joined, frame[54..]);
        // Nonsense is declined.
        for bad in [
            Large { mss: 1, ..large },
            Large { ip: 13, ..large },
            Large { tcp: 33, ..large },
            Large { headers: 50, ..large },
            Large { headers: 5000, ..large },
        ] {
            assert_eq!(bad.cut(&frame, &mut buffer, |_| panic!("no piece")), None, "{bad:?}");
        }
    }
}
