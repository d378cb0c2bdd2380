//! The few eBPF instructions that a device program is made of.

use crate::sys::bpf::Insn;

const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE32: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const SET32: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const AND32: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_LEFT_BY32: u8 = 0x6c; // BPF_ALU | BPF_LSH | BPF_X
const SHIFT_RIGHT32: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP: u8 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL32: u8 = 0x16; // BPF_JMP32 | BPF_JEQ | BPF_K
const JUMP_ABOVE32: u8 = 0x26; // BPF_JMP32 | BPF_JGT | BPF_K
const JUMP_ANY_BIT32: u8 = 0x46; // BPF_JMP32 | BPF_JSET | BPF_K
const JUMP_NOT_EQUAL32: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;

/// What the program works with, by register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    /// Block or character device.
    Kind = 2,
    /// The accesses that are asked for and not allowed yet.
    Wanted = 3,
    Major = 4,
    Minor = 5,
    /// One bit, at the place that a number says.
    Bit = 6,
}

/// Where a jump goes that ends the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Allow,
    Deny,
}

/// When it goes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cond {
    Equal,
    AnyBit,
}

/// A jump whose place is not known yet.
#[derive(Debug)]
pub(super) struct Pending(usize);

#[derive(Debug, Default)]
pub(super) struct Assembler {
    insns: Vec<Insn>,
    ends: Vec<(usize, Target)>,
    /// Nothing leads to the next instruction. It is left out then: the kernel's
    /// verifier refuses code that is never reached.
    dead: bool,
    /// A jump that would be longer than its 16 bits.
    too_long: bool,
}

impl Assembler {
    pub(super) fn new() -> Self {
        Assembler { insns: Vec::with_capacity(64), ..Assembler::default() }
    }

    /// Takes struct bpf_cgroup_dev_ctx apart: the access and the kind in the
    /// halves of one word, then the two numbers.
    pub(super) fn load_context(&mut self) {
        let (kind, wanted) = (Register::Kind as u8, Register::Wanted as u8);
        self.push(LOAD_WORD, kind, CONTEXT, 0, 0);
        self.push(MOVE32, wanted, kind, 0, 0);
        self.push(SHIFT_RIGHT32, wanted, 0, 0, 16);
        self.push(AND32, kind, 0, 0, 0xffff);
        self.push(LOAD_WORD, Register::Major as u8, CONTEXT, 4, 0);
        self.push(LOAD_WORD, Register::Minor as u8, CONTEXT, 8, 0);
    }

    /// Jumps ahead, to where [`Self::place`] says, unless the register has `value`.
    pub(super) fn skip_unless(&mut self, register: Register, value: u32) -> Option<Pending> {
        let at = self.insns.len();
        self.push(JUMP_NOT_EQUAL32, register as u8, 0, 0, value);
        (!self.dead).then_some(Pending(at))
    }

    /// Ends the program if the minor number is one of those below 32 whose bits
    /// are set. Two branches for any number of numbers: branches are what the
    /// verifier takes its time for, some 4 µs each.
    pub(super) fn jump_if_minor_among(&mut self, bits: u32, target: Target) {
        let at = self.insns.len();
        self.push(JUMP_ABOVE32, Register::Minor as u8, 0, 0, 31);
        let beyond = (!self.dead).then_some(Pending(at));
        let bit = Register::Bit as u8;
        self.push(SET32, bit, 0, 0, 1);
        self.push(SHIFT_LEFT_BY32, bit, Register::Minor as u8, 0, 0);
        self.jump_if(Cond::AnyBit, Register::Bit, bits, target);
        self.place(beyond);
    }

    /// Lets a jump, if there is one, land here.
    pub(super) fn place(&mut self, jump: Option<Pending>) {
        if let Some(Pending(from)) = jump {
            self.land(from, self.insns.len());
            self.dead = false;
        }
    }

    pub(super) fn jump_if(&mut self, cond: Cond, register: Register, value: u32, target: Target) {
        let code = match cond {
            Cond::Equal => JUMP_EQUAL32,
            Cond::AnyBit => JUMP_ANY_BIT32,
        };
        self.end_at(target);
        self.push(code, register as u8, 0, 0, value);
    }

    pub(super) fn jump(&mut self, target: Target) {
        self.end_at(target);
        self.push(JUMP, 0, 0, 0, 0);
        self.dead = true;
    }

    fn end_at(&mut self, target: Target) {
        if !self.dead {
            self.ends.push((self.insns.len(), target));
        }
    }

    /// Takes accesses off those that are wanted.
    pub(super) fn clear_wanted(&mut self, access: u32) {
        self.push(AND32, Register::Wanted as u8, 0, 0, !access);
    }

    /// Ends the program: who comes this far gets the default. `None` if a jump
    /// is too long.
    pub(super) fn finish(mut self, default: bool) -> Option<Vec<Insn>> {
        for allow in [default, !default] {
            self.end(if allow { Target::Allow } else { Target::Deny });
        }
        (!self.too_long).then_some(self.insns)
    }

    fn end(&mut self, target: Target) {
        let here = self.insns.len();
        self.dead &= !self.ends.iter().any(|(_, wanted)| *wanted == target);
        self.push(SET32, RESULT, 0, 0, u32::from(target == Target::Allow));
        self.push(EXIT, 0, 0, 0, 0);
        self.dead = true;
        for (from, wanted) in std::mem::take(&mut self.ends) {
            if wanted == target {
                self.land(from, here);
            } else {
                self.ends.push((from, wanted));
            }
        }
    }

    /// Sets a jump's distance, which counts from the instruction after it.
    fn land(&mut self, from: usize, to: usize) {
        let distance = i16::try_from(to.saturating_sub(from + 1));
        match (self.insns.get_mut(from), distance) {
            (Some(insn), Ok(distance)) => insn.offset = distance,
            _ => self.too_long = true,
        }
    }

    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: u32) {
        if self.dead {
            return;
        }
        self.insns.push(Insn {
            code,
            registers: from << 4 | to,
            offset,
            immediate: immediate.cast_signed(),
        });
    }
}
