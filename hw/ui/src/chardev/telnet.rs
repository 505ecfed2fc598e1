//! As much of the Telnet protocol (RFC 854, 856, 857, 858) as makes a terminal of a client: it is told to send single
//! characters without echo, its own commands are taken out of the input.

/// Interpret As Command.
pub(super) const IAC: u8 = 255;
const SB: u8 = 250;
const SE: u8 = 240;

/// WILL ECHO, WILL SUPPRESS-GO-AHEAD, WILL BINARY, DO BINARY.
pub(super) const GREETING: [u8; 12] = [IAC, 251, 1, IAC, 251, 3, IAC, 251, 0, IAC, 253, 0];

/// Where in a command the input stands.
#[derive(Default, Clone, Copy, PartialEq)]
enum At {
    #[default]
    Data,
    Command,
    Option,
    Sub,
    SubCommand,
}

#[derive(Default)]
pub(super) struct Telnet(At);

impl Telnet {
    /// Appends the data in `bytes` to `data`. A command may go over several calls.
    pub fn strip(&mut self, bytes: &[u8], data: &mut Vec<u8>) {
        for &byte in bytes {
            self.0 = match (self.0, byte) {
                (At::Data, IAC) => At::Command,
                (At::Command, IAC) => {
                    data.push(IAC);
                    At::Data
                }
                (At::Data, _) => {
                    data.push(byte);
                    At::Data
                }
                (At::Command, SB) => At::Sub,
                // WILL, WONT, DO, DONT have an option behind them; others, BRK among them, stand alone.
                (At::Command, 251..=254) => At::Option,
                (At::Command, _) | (At::Option, _) => At::Data,
                (At::Sub, IAC) => At::SubCommand,
                (At::SubCommand, SE) => At::Data,
                (At::Sub | At::SubCommand, _) => At::Sub,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_out_wherever_they_are_cut() {
        let input =
            [b'a', IAC, 253, 1, b'b', IAC, IAC, IAC, SB, 24, 1, IAC, SE, b'c', IAC, 241, b'd'];
        for cut in 0..input.len() {
            let (mut telnet, mut data) = (Telnet::default(), Vec::new());
            telnet.strip(&input[..cut], &mut data);
            telnet.strip(&input[cut..], &mut data);
            assert_eq!(data, [b'a', b'b', IAC, b'c', b'd'], "cut at {cut}");
        }
    }
}
