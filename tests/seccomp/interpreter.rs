//! Classic BPF as seccomp knows it: enough to run what compilers of filters write.

use tare::sys::seccomp::Insn;

/// struct seccomp_data, little-endian.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub arch: u32,
    pub number: u32,
    pub args: [u64; 6],
}

impl Call {
    fn bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0..4].copy_from_slice(&self.number.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.arch.to_le_bytes());
        for (at, arg) in self.args.iter().enumerate() {
            bytes[16 + 8 * at..24 + 8 * at].copy_from_slice(&arg.to_le_bytes());
        }
        bytes
    }
}

/// The answer of a filter.
pub fn run(program: &[Insn], call: &Call) -> u32 {
    let data = call.bytes();
    let mut a = 0u32;
    let mut memory = [0u32; 16];
    let mut at = 0usize;
    loop {
        let insn = program[at];
        at += 1;
        let k = insn.k;
        let jump = |is_true: bool| usize::from(if is_true { insn.yes } else { insn.no });
        match insn.code {
            0x20 => {
                let k = k as usize;
                assert!(k.is_multiple_of(4), "the kernel refuses a load from {k}");
                a = u32::from_le_bytes(data[k..k + 4].try_into().unwrap());
            }
            0x00 => a = k,
            0x60 => a = memory[k as usize],
            0x02 => memory[k as usize] = a,
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(a == k),
            0x25 => at += jump(a > k),
            0x35 => at += jump(a >= k),
            0x45 => at += jump(a & k != 0),
            0x06 => return k,
            code => panic!("instruction {code:#x} at {}", at - 1),
        }
    }
}

/// What the kernel asks of a program before it takes it: every jump inside, the
/// last one a return.
pub fn check(program: &[Insn]) {
    assert!(program.len() <= 4096, "{} instructions", program.len());
    for (at, insn) in program.iter().enumerate() {
        let rest = program.len() - at - 1;
        match insn.code {
            0x05 => assert!((insn.k as usize) < rest, "{at}: {insn:?}"),
            0x15 | 0x25 | 0x35 | 0x45 => {
                assert!(usize::from(insn.yes.max(insn.no)) < rest, "{at}: {insn:?}");
            }
            _ => {}
        }
    }
    assert_eq!(program.last().map(|insn| insn.code), Some(0x06));
}
