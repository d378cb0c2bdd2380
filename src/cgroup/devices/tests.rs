use std::collections::HashMap;

use super::*;
use crate::sys::bpf;

/// What the kernel would answer: a tiny interpreter of the instructions that
/// the assembler knows. It follows no jump back and reads nothing unset.
fn run(program: &[Insn], kind: u32, major: u32, minor: u32, access: u8) -> bool {
    let context = [kind | u32::from(access) << 16, major, minor];
    let mut registers: HashMap<u8, u32> = HashMap::new();
    let mut at = 0usize;
    loop {
        let insn = program[at];
        let (to, from) = (insn.registers & 15, insn.registers >> 4);
        let constant = insn.immediate.cast_unsigned();
        at += 1;
        let jumps = match insn.code {
            0x61 => {
                assert_eq!(from, 1, "loads are from the context");
                let word = usize::try_from(insn.offset).unwrap() / 4;
                registers.insert(to, context[word]);
                false
            }
            0xbc => {
                registers.insert(to, registers[&from]);
                false
            }
            0xb4 => {
                registers.insert(to, constant);
                false
            }
            0x54 => {
                *registers.get_mut(&to).unwrap() &= constant;
                false
            }
            0x6c => {
                let by = registers[&from] & 31;
                *registers.get_mut(&to).unwrap() <<= by;
                false
            }
            0x74 => {
                *registers.get_mut(&to).unwrap() >>= constant;
                false
            }
            0x05 => true,
            0x26 => registers[&to] > constant,
            0x16 => registers[&to] == constant,
            0x46 => registers[&to] & constant != 0,
            0x56 => registers[&to] != constant,
            0x95 => return registers[&0] == 1,
            code => panic!("unknown instruction {code:#x}"),
        };
        if jumps {
            at += usize::try_from(insn.offset).expect("no jump back");
        }
    }
}

/// The meaning of the rules, said another way: bit by bit, the last that applies.
fn oracle(rules: &[Rule], kind: u32, major: u32, minor: u32, access: u8) -> bool {
    [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
        rules
            .iter()
            .rev()
            .find(|rule| {
                let d = rule.devices;
                d.kind.is_none_or(|k| k as u32 == kind)
                    && d.major.is_none_or(|m| m == major)
                    && d.minor.is_none_or(|m| m == minor)
                    && rule.access & bit != 0
            })
            .is_some_and(|rule| rule.allow)
    })
}

fn rules(json: &str) -> Vec<LinuxDeviceCgroup> {
    serde_json::from_str(json).unwrap()
}

fn parse(json: &str) -> Vec<Rule> {
    rules(json).iter().enumerate().map(|(at, rule)| Rule::parse(at, rule).unwrap()).collect()
}

const CHAR: u32 = 2;
const BLOCK: u32 = 1;

#[test]
fn the_default_config_refuses_all_but_the_default_devices() {
    let program = plan(&rules(r#"[{"allow": false, "access": "rwm"}]"#)).unwrap().unwrap();
    for (kind, major, minor, access, allowed) in [
        (CHAR, 1, 3, READ | WRITE, true),
        (CHAR, 1, 3, ALL, true),
        (CHAR, 1, 5, READ, true),
        (CHAR, 1, 9, READ, true),
        (CHAR, 1, 35, READ, false),
        (CHAR, 1, 67, READ, false),
        (CHAR, 5, 0, READ | WRITE, true),
        (CHAR, 5, 2, READ | WRITE, true),
        (CHAR, 136, 77, READ | WRITE, true),
        (CHAR, 1, 1, READ, false),
        (CHAR, 1, 1, MKNOD, true),
        (CHAR, 1, 1, MKNOD | READ, false),
        (CHAR, 5, 1, WRITE, false),
        (CHAR, 10, 200, READ | WRITE, true),
        (CHAR, 10, 201, READ, false),
        (BLOCK, 1, 3, READ, false),
        (BLOCK, 8, 0, MKNOD, true),
        (BLOCK, 8, 0, WRITE, false),
    ] {
        let answer = run(program.insns(), kind, major, minor, access);
        assert_eq!(answer, allowed, "{kind} {major}:{minor} {access}");
    }
    // it is loaded at every create
    assert!(program.insns().len() <= 25, "{}", program.insns().len());
}

#[test]
fn the_last_rule_about_an_access_wins() {
    type Question = (u32, u32, u32, u8, bool);
    let table: [(&str, &[Question]); 5] = [
        // reading and writing allowed apart allow both at once
        (
            r#"[{"allow": false}, {"allow": true, "type": "c", "major": 9, "minor": 1, "access": "r"},
                {"allow": true, "type": "c", "major": 9, "minor": 1, "access": "w"}]"#,
            &[
                (CHAR, 9, 1, READ | WRITE, true),
                (CHAR, 9, 1, MKNOD, false),
                (CHAR, 9, 2, READ, false),
            ],
        ),
        (
            r#"[{"allow": true}, {"allow": false, "type": "b", "access": "w"},
                {"allow": true, "type": "b", "major": 7, "access": "rw"}]"#,
            &[
                (BLOCK, 8, 0, READ, true),
                (BLOCK, 8, 0, READ | WRITE, false),
                (BLOCK, 7, 3, READ | WRITE, true),
                (CHAR, 8, 0, ALL, true),
            ],
        ),
        // what was said before a rule about everything is void
        (
            r#"[{"allow": true, "type": "c", "major": 9, "access": "rwm"},
                {"allow": false, "type": "a", "access": "rwm"}]"#,
            &[(CHAR, 9, 0, READ, false)],
        ),
        // a wildcard spelled out, and one put together from its parts
        (
            r#"[{"allow": true, "type": "u", "major": -1, "minor": -1, "access": "m"},
                {"allow": true, "type": "c", "access": "rw"},
                {"allow": true, "type": "c", "major": 5, "minor": 5, "access": "r"}]"#,
            &[(CHAR, 4, 4, ALL, true), (BLOCK, 4, 4, READ, false)],
        ),
        (
            r#"[{"allow": true, "access": "m"}, {"allow": true, "access": "rw"},
                {"allow": true, "type": "b", "access": "r"}]"#,
            &[(CHAR, 4, 4, ALL, true), (BLOCK, 4, 4, ALL, true)],
        ),
    ];
    for (json, questions) in table {
        let program = compile(&parse(json)).unwrap().unwrap();
        for (kind, major, minor, access, allowed) in questions {
            let answer = run(program.insns(), *kind, *major, *minor, *access);
            assert_eq!(answer, *allowed, "{json}: {kind} {major}:{minor} {access}");
        }
    }
}

#[test]
fn rules_that_allow_everything_need_no_program() {
    for json in [
        r#"[{"allow": true, "type": "a", "access": "rwm"}]"#,
        r#"[{"allow": false}, {"allow": true}]"#,
        r#"[{"allow": false, "type": "c"}, {"allow": true, "major": -1, "minor": -1}]"#,
    ] {
        assert_eq!(plan(&rules(json)).unwrap(), None, "{json}");
    }
    // no rule at all is not one of them: what nobody allowed is refused
    let program = plan(&[]).unwrap().unwrap();
    assert!(!run(program.insns(), CHAR, 1, 1, READ));
    assert!(run(program.insns(), CHAR, 1, 3, READ));
    let nothing = compile(&[]).unwrap().unwrap();
    assert_eq!(nothing.insns().len(), 2);
}

#[test]
fn wrong_rules_are_named() {
    for (json, expected) in [
        (
            r#"[{"allow": true, "type": "p"}]"#,
            "linux.resources.devices[0].type: a fifo is not a device",
        ),
        (
            r#"[{"allow": true}, {"allow": true, "major": -2}]"#,
            "linux.resources.devices[1].major: -2 is not a device number, nor -1 for any",
        ),
        (
            r#"[{"allow": true, "minor": 4294967296}]"#,
            "linux.resources.devices[0].minor: 4294967296 is not a device number, nor -1 for any",
        ),
        (
            r#"[{"allow": true, "access": "rx"}]"#,
            "linux.resources.devices[0].access: \"rx\" has letters other than r, w and m",
        ),
    ] {
        assert_eq!(plan(&rules(json)).unwrap_err().to_string(), expected);
    }
    let many = vec![parse(r#"[{"allow": true, "major": 1}]"#)[0]; 40_000];
    assert!(compile(&many).is_ok(), "the same rule again is no rule");
    let many: Vec<_> = (0..20_000)
        .map(|minor| Rule {
            devices: Devices { kind: Some(Kind::Char), major: Some(1), minor: Some(minor) },
            ..many[0]
        })
        .map(|rule| Rule { access: READ, ..rule })
        .collect();
    let error = compile(&many).unwrap_err().to_string();
    assert_eq!(error, "linux.resources.devices: 20000 rules are too many");
}

/// Numbers from a fixed seed (xorshift): the same rules in every run.
struct Numbers(u64);

/// On both sides of 32, from where on a bit has no place, and at the same place.
const MINORS: [u32; 5] = [0, 1, 5, 33, 37];

impl Numbers {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(end)).unwrap()
    }

    fn maybe(&mut self, end: u32) -> Option<u32> {
        (self.below(3) > 0).then(|| self.below(end))
    }

    fn rule(&mut self) -> Rule {
        Rule {
            allow: self.below(2) == 0,
            devices: Devices {
                kind: [None, Some(Kind::Block), Some(Kind::Char)][self.below(3) as usize],
                major: self.maybe(2),
                minor: self.maybe(5).map(|minor| MINORS[minor as usize]),
            },
            access: [ALL, ALL, READ, WRITE, MKNOD, READ | WRITE][self.below(6) as usize],
        }
    }
}

#[test]
fn any_rules_do_as_their_meaning_says() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..3_000 {
        let rules: Vec<_> = (0..numbers.below(14)).map(|_| numbers.rule()).collect();
        let program = compile(&rules).unwrap();
        // the kernel's verifier sees some of them: it refuses what can't be
        // reached and what reads nothing that was set
        if let Some(program) = program.as_ref().filter(|_| round % 10 == 0) {
            let mut log = vec![0; 4096];
            match bpf::load_device_program(program.insns(), Some(&mut log)) {
                Ok(_) | Err(nix::errno::Errno::EPERM) => {}
                Err(e) => panic!("{e}: {}\n{rules:?}", String::from_utf8_lossy(&log)),
            }
        }
        for question in 0..2 * 2 * 6 * 7u32 {
            let (kind, major) = (1 + question % 2, question / 2 % 2);
            let minor = MINORS.get(question as usize / 4 % 6).copied().unwrap_or(69);
            let access = 1 + u8::try_from(question / 24).unwrap();
            let expected = oracle(&rules, kind, major, minor, access);
            let answer =
                program.as_ref().is_none_or(|p| run(p.insns(), kind, major, minor, access));
            assert_eq!(answer, expected, "{kind} {major}:{minor} {access} {rules:?}");
        }
    }
}
