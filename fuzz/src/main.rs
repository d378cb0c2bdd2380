//! Runs one target on changed inputs for a while.

#![allow(clippy::disallowed_methods, reason = "the input of a panic is all or nothing")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tare_fuzz::mutate::{Random, mutate};
use tare_fuzz::{TARGETS, Target};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let target = words.first().and_then(|name| TARGETS.iter().find(|t| t.name == name));
    let number = |at: usize| words.get(at).map_or(Some(0), |text| text.parse::<u64>().ok());
    match (target, number(1), number(2)) {
        (Some(target), Some(seconds), Some(seed)) => run(target, seconds.max(1), seed),
        _ => {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            eprintln!("tare-fuzz TARGET [SECONDS] [SEED], with TARGET one of {}", names.join(", "));
            ExitCode::from(64)
        }
    }
}

fn run(target: &Target, seconds: u64, seed: u64) -> ExitCode {
    let mut pool = (target.seeds)();
    let mut random = Random::new(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut rounds = 0u64;
    while Instant::now() < end {
        rounds += 1;
        let (one, other) = (random.below(pool.len()), random.below(pool.len()));
        let mut input = mutate(&pool[one], &pool[other], &mut random);
        if random.below(8) > 0 {
            (target.repair)(&mut input);
        }
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
            let file = format!("{}-{seed}-{rounds}", target.name);
            match std::fs::write(&file, &input) {
                Ok(()) => eprintln!("round {rounds} of seed {seed}: the input is in {file}"),
                Err(e) => eprintln!("round {rounds} of seed {seed}: {file}: {e}"),
            }
            return ExitCode::FAILURE;
        }
        // changes of changes, some of the time
        if random.below(50) == 0 {
            if pool.len() < 500 {
                pool.push(input);
            } else {
                let at = random.below(pool.len());
                pool[at] = input;
            }
        }
    }
    println!("{}: {rounds} inputs in {seconds} s, seed {seed}", target.name);
    ExitCode::SUCCESS
}
