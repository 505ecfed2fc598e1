//! The IR shown in `docs/ir.md` is valid. A block of it may start with `; registers: name type, ...` and
//! `; helpers: name(type, ...) -> type [pure] [traps]`, which hold for the blocks behind it, too; a missing
//! header and `block0:` are filled in.

use std::path::Path;
use tulk_ir::{Access, HelperDef, Op, RegLayout, Type, parser, verifier};

fn types(text: &str) -> Vec<Type> {
    let names = text.split(',').map(str::trim).filter(|t| !t.is_empty());
    names.map(|t| Type::parse(t).expect("a type")).collect()
}

fn helper(text: &str) -> HelperDef {
    let (name, rest) = text.split_once('(').expect("a helper's operands");
    let (args, rest) = rest.split_once(')').expect("a helper's operands");
    let ret = rest.trim().strip_prefix("->").and_then(|r| r.split_whitespace().next());
    HelperDef {
        name: name.to_string().leak(),
        func: |_, _| Ok(0),
        args: types(args).leak(),
        ret: ret.and_then(Type::parse),
        reads: Access::None,
        writes: Access::None,
        may_trap: rest.contains("traps"),
        pure: rest.contains("pure"),
        direct: None,
    }
}

#[test]
fn examples_are_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ir.md");
    let text = std::fs::read_to_string(path).expect("docs/ir.md");
    let mut layout = tulk_ir::filetest::env::layout();
    let mut helpers = Vec::new();
    let mut blocks = 0;
    for (n, block) in text.split("```ir\n").skip(1).enumerate() {
        let block = block.split("```").next().expect("the block's end");
        if let Some(list) = block.lines().find_map(|l| l.strip_prefix("; registers: ")) {
            layout = RegLayout::new();
            for register in list.split(',') {
                let (name, ty) = register.trim().split_once(' ').expect("name and type");
                layout.add(name, Type::parse(ty).expect("a type"), None);
            }
        }
        let rows = block.lines().filter_map(|l| l.strip_prefix("; helpers: "));
        helpers.extend(rows.map(helper));
        let mut unit_text = String::new();
        if !block.contains("unit 0x") {
            unit_text += "unit 0x1000 len 16\n";
        }
        if !block.contains("block0:") {
            unit_text += "block0:\n";
        }
        unit_text += block;
        let mut unit = parser::parse(&unit_text, &layout, &helpers)
            .unwrap_or_else(|e| panic!("example {}: {e}\n{unit_text}", n + 1));
        unit.guest_insns = unit.insts.iter().filter(|i| i.op == Op::Insn).count() as u32;
        verifier::assert_valid(&unit, &layout, &helpers);
        blocks += 1;
    }
    assert!(blocks >= 12, "only {blocks} examples found");
}
