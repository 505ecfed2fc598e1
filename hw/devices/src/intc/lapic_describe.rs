//! A local APIC in words, for users who look at a machine (`info lapic`).

use super::lapic_regs::*;
use std::fmt::Write;

/// The delivery modes of table 11-1.
const MODES: [&str; 8] = ["Fixed", "LowPrio", "SMI", "-", "NMI", "INIT", "SIPI", "ExtINT"];

fn lvt(name: &str, value: u32) -> String {
    let (polarity, trigger) = (value >> 13 & 1, value >> 15 & 1);
    let mode = MODES[(value >> 8 & 7) as usize];
    let timer = match (name, value >> 17 & 3) {
        ("LVTT", 0) => "one-shot",
        ("LVTT", 1) => "periodic",
        ("LVTT", 2) => "tsc-deadline",
        _ => "",
    };
    let vector = if mode == "Fixed" { format!("(vec {})", value & 0xff) } else { String::new() };
    let line = format!(
        "{name:<8} {value:#010x} {:<9} {:<5} {:<6} {:<7} {timer:<12} {mode:<6} {vector}",
        ["active-hi", "active-lo"][polarity as usize],
        ["edge", "level"][trigger as usize],
        if value >> 16 & 1 != 0 { "masked" } else { "" },
        if value >> 12 & 1 != 0 { "pending" } else { "" },
    );
    line.trim_end().to_string() + "\n"
}

impl LocalApic {
    /// All registers, a line for each of the kinds.
    pub(super) fn describe(&self, now: u64) -> String {
        let get = |register| self.read(register, now).unwrap_or(0);
        let mut out = String::new();
        let mode = match (self.enabled(), self.x2apic()) {
            (false, _) => "disabled",
            (true, false) => "xAPIC",
            (true, true) => "x2APIC",
        };
        let _ = writeln!(out, "APIC_BASE {:#x} ({mode}), ID {:#x}", self.base, get(ID));
        // In the order of the pins, then the counters, the errors, the temperature, the timer.
        for (name, n) in
            [("LVT0", 3), ("LVT1", 4), ("LVTPC", 2), ("LVTERR", 5), ("LVTTHMR", 1), ("LVTT", 0)]
        {
            out += &lvt(name, get(LVT_TIMER + n));
        }
        let divide = get(DIVIDE);
        let shift = ((divide & 3 | divide >> 1 & 4) + 1) & 7;
        let _ = writeln!(
            out,
            "Timer    DCR={divide:#x} (divide by {}) initial_count = {} current_count = {}",
            1 << shift,
            get(INITIAL_COUNT),
            get(CURRENT_COUNT)
        );
        let svr = get(SVR);
        let on = if self.software_enabled() { "enabled" } else { "disabled" };
        let _ = writeln!(out, "SPIV     {svr:#010x} APIC {on}, spurious vec {}", svr & 0xff);
        let icr = get(ICR_LOW);
        let shorthand = ["no-shorthand", "self", "all", "all-self"][(icr >> 18 & 3) as usize];
        let _ = writeln!(
            out,
            "ICR      {icr:#010x} {} {} {} {} {shorthand} vec {}",
            MODES[(icr >> 8 & 7) as usize],
            ["physical", "logical"][(icr >> 11 & 1) as usize],
            ["edge", "level"][(icr >> 15 & 1) as usize],
            ["de-assert", "assert"][(icr >> 14 & 1) as usize],
            icr & 0xff
        );
        let _ = writeln!(out, "ICR2     {:#010x}", get(ICR_HIGH));
        let _ = writeln!(out, "ESR      {:#010x}", get(ESR));
        for (name, first) in [("ISR", ISR), ("IRR", IRR)] {
            let set = |vector: u8| get(first + (vector >> 5)) >> (vector & 31) & 1 != 0;
            let level = |vector: u8| get(TMR + (vector >> 5)) >> (vector & 31) & 1 != 0;
            let vectors = (0..=255u8).filter(|v| set(*v));
            let words: Vec<String> =
                vectors.map(|v| format!("{v}{}", if level(v) { "(level)" } else { "" })).collect();
            let list = if words.is_empty() { "(none)".into() } else { words.join(" ") };
            let _ = writeln!(out, "{name}      {list}");
        }
        let dfr = if self.x2apic() { 0 } else { get(DFR) };
        let (ppr, tpr, ldr) = (self.ppr(), self.tpr(), get(LDR));
        let _ = writeln!(out, "PPR {ppr:#04x} TPR {tpr:#04x} DFR {dfr:#x} LDR {ldr:#x}");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_in_words() {
        let mut apic = LocalApic::new(0);
        apic.write(SVR, 0x1ff, 0);
        apic.write(LVT_TIMER, 0x2_00ec, 0);
        apic.write(DIVIDE, 0xb, 0);
        apic.accept(super::super::lapic::DeliveryMode::Fixed, 0x31, true);
        let text = apic.describe(0);
        for line in [
            "APIC_BASE 0xfee00900 (xAPIC), ID 0x0",
            "LVT0     0x00000700 active-hi edge                              ExtINT",
            "LVTT     0x000200ec active-hi edge                 periodic     Fixed  (vec 236)",
            "Timer    DCR=0xb (divide by 1) initial_count = 0 current_count = 0",
            "SPIV     0x000001ff APIC enabled, spurious vec 255",
            "ISR      (none)",
            "IRR      49(level)",
            "PPR 0x00 TPR 0x00 DFR 0xffffffff LDR 0x0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
    }
}
