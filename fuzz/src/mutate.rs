//! Changes to inputs, by a generator with a seed: the same seed, the same inputs.

/// xorshift64*: good enough to choose, and three lines.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins a sequence.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number below `n`; 0 if that is 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap_or(0) % n.max(1)
    }
}

/// What has led readers astray before.
const WORDS: [&[u8]; 24] = [
    b"..",
    b"/",
    b"../",
    b"\0",
    b".wh.",
    b".wh..wh..opq",
    b"sha256:",
    b"99999999999999999999",
    b"-1",
    b"0",
    b"{}",
    b"[]",
    b"null",
    b"\"\"",
    b"\\u0000",
    b"\xff",
    b"path=",
    b"GNU.sparse.map=",
    b"size=",
    b"11 path=/x\n",
    b"SCHILY.xattr.",
    b"7777777777777",
    b"\x80\0\0\0\xff\xff\xff\xff",
    b"@",
];

/// One to eight changes: bits, bytes, words, pieces left out, doubled, or from another
/// input.
pub fn mutate(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut data = input.to_vec();
    for _ in 0..=random.below(8) {
        let at = random.below(data.len() + 1);
        let end = (at + random.below(64)).min(data.len());
        match random.below(8) {
            0 if at < data.len() => data[at] ^= 1 << random.below(8),
            1 if at < data.len() => data[at] = u8::try_from(random.below(256)).unwrap_or(0),
            2 => overwrite(&mut data, at, WORDS[random.below(WORDS.len())]),
            3 => drop(data.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
            4 => drop(data.drain(at..end)),
            5 => data.truncate(at),
            6 => {
                // whole blocks of an archive change places
                let block = at / 512 * 512;
                let piece = data[block.min(end)..end.max(block).min(data.len())].to_vec();
                drop(data.splice(at..at, piece));
            }
            _ => {
                let from = random.below(other.len() + 1);
                let piece = &other[from..(from + random.below(600)).min(other.len())];
                overwrite(&mut data, at, piece);
            }
        }
    }
    data.truncate(1 << 20);
    data
}

fn overwrite(data: &mut [u8], at: usize, piece: &[u8]) {
    for (to, from) in data[at..].iter_mut().zip(piece) {
        *to = *from;
    }
}

/// Makes the sums of an archive's headers right, without which nothing behind them is
/// ever looked at.
pub fn checksums(data: &mut [u8]) {
    for block in data.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}
