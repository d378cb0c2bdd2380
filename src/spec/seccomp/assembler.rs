//! The few instructions of classic BPF that a filter is made of.
//!
//! They are written from the end to the beginning: a jump of classic BPF goes
//! forward only, so every place that it may go to is known by then.

use std::collections::BTreeMap;

use crate::sys::seccomp::Insn;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_ABOVE: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_FROM: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// An instruction, by its distance from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// What the loaded word is compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Compare {
    /// It is this.
    Equal,
    /// It is over this.
    Above,
    /// It is this or over.
    From,
}

#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<Insn>,
    returns: BTreeMap<u32, Label>,
}

impl Assembler {
    /// Ends the filter with this answer to the kernel.
    pub(super) fn answer(&mut self, value: u32) -> Label {
        if let Some(label) = self.returns.get(&value)
            && self.distance(*label) <= usize::from(u8::MAX)
        {
            return *label;
        }
        // a second one is as cheap as the long jump to the first
        let label = self.push(RETURN, value);
        self.returns.insert(value, label);
        label
    }

    /// Loads a word of struct seccomp_data, then goes on to `then`, which has to
    /// be what was written last.
    pub(super) fn load(&mut self, offset: u32, then: Label) -> Label {
        self.follow(then);
        self.push(LOAD_WORD, offset)
    }

    /// The same place for who has loaded this word already.
    pub(super) fn loaded(&self, offset: u32, label: Label) -> Label {
        match self.reversed.get(label.0 - 1) {
            Some(insn) if insn.code == LOAD_WORD && insn.k == offset => Label(label.0 - 1),
            _ => label,
        }
    }

    /// Takes out all bits but these.
    pub(super) fn mask(&mut self, mask: u32, then: Label) -> Label {
        self.follow(then);
        self.push(AND, mask)
    }

    /// Goes to one of two places.
    pub(super) fn branch(&mut self, test: Compare, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let (mut yes, mut no) = (yes, no);
        // a jump on the way moves the other one farther away
        loop {
            match (self.near(yes), self.near(no)) {
                (Some(to_yes), Some(to_no)) => {
                    let code = match test {
                        Compare::Equal => JUMP_EQUAL,
                        Compare::Above => JUMP_ABOVE,
                        Compare::From => JUMP_FROM,
                    };
                    let label = self.push(code, k);
                    if let Some(insn) = self.reversed.last_mut() {
                        (insn.yes, insn.no) = (to_yes, to_no);
                    }
                    return label;
                }
                (None, _) => yes = self.bridge(yes),
                (_, None) => no = self.bridge(no),
            }
        }
    }

    /// The program, and how long it is.
    pub(super) fn finish(mut self) -> Vec<Insn> {
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, code: u16, k: u32) -> Label {
        self.reversed.push(Insn { code, yes: 0, no: 0, k });
        Label(self.reversed.len())
    }

    /// How many instructions lie between the next one and this.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label.0
    }

    fn near(&self, label: Label) -> Option<u8> {
        u8::try_from(self.distance(label)).ok()
    }

    /// A place nearby from which it goes on to `label`.
    fn bridge(&mut self, label: Label) -> Label {
        match self.reversed.get(label.0 - 1) {
            Some(insn) if insn.code == RETURN => {
                let value = insn.k;
                self.answer(value)
            }
            _ => self.jump(label),
        }
    }

    fn jump(&mut self, label: Label) -> Label {
        // 4096 instructions at most are ever loaded
        let distance = u32::try_from(self.distance(label)).unwrap_or(u32::MAX);
        self.push(JUMP, distance)
    }

    /// What is written next has no jump in it: it has to run into `then`.
    fn follow(&mut self, then: Label) {
        if then.0 != self.reversed.len() {
            self.jump(then);
        }
    }
}
