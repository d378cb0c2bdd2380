//! From a profile to a program.
//!
//! The program looks at the architecture, then finds the number of the call by
//! a binary search over ranges of numbers with the same answer, and looks at
//! arguments only where a rule asks for it.

use oci_spec::runtime::Arch;

use super::arch::{self, Words, X32_BIT};
use super::assembler::{Assembler, Compare, Label};
use super::profile::{Condition, Profile, Rule};
use crate::sys::seccomp::Insn;

/// SECCOMP_RET_KILL_THREAD, for calls of an architecture that the profile does
/// not name: what libseccomp does.
const FOREIGN: u32 = 0;

/// SECCOMP_RET_ERRNO with ENOSYS.
const NO_SUCH_CALL: u32 = 0x0005_0000 | libc::ENOSYS.cast_unsigned();

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// The same answer whatever the arguments are.
    Answer(u32),
    /// The first of these [`Tests`] that fits; none: the default action.
    Test(usize),
}

/// Rules that look at arguments, each list once: calls and architectures share them.
#[derive(Debug, Default)]
pub(super) struct Tests(Vec<(Words, Vec<Rule>)>);

impl Tests {
    fn number_of<'a>(
        &mut self,
        words: Words,
        rules: impl Iterator<Item = &'a Rule> + Clone,
    ) -> usize {
        let is_it = |(of, known): &(Words, Vec<Rule>)| *of == words && rules.clone().eq(known);
        // there are few of them, and most calls have none
        self.0.iter().position(is_it).unwrap_or_else(|| {
            self.0.push((words, rules.cloned().collect()));
            self.0.len() - 1
        })
    }
}

/// The program of a profile.
pub(super) fn compile(profile: &Profile<'_>) -> Vec<Insn> {
    let mut tests = Tests::default();
    let of_one = |one: &Arch| Some((arch::audit(*one), ranges(profile, *one, &mut tests)?));
    let proper = profile.architectures.iter().filter(|a| **a != Arch::ScmpArchX32);
    let found: Vec<_> = proper.filter_map(of_one).collect();
    let labels = vec![None; tests.0.len()];
    let mut out = Writer { profile, asm: Assembler::default(), tests, labels };
    let mut next = out.asm.answer(FOREIGN);
    let mut blocks = Vec::new();
    for (audit, ranges) in found {
        let search = out.search(&ranges);
        blocks.push((audit, out.asm.load(OFFSET_NUMBER, search)));
    }
    // the profile's first architecture is asked for first
    for (audit, block) in blocks.into_iter().rev() {
        next = out.asm.branch(Compare::Equal, audit, block, next);
    }
    out.asm.load(OFFSET_ARCH, next);
    out.asm.finish()
}

/// What the rules of one call say, in their order.
pub(super) fn decide<'a>(
    default: u32,
    rules: impl Iterator<Item = &'a Rule> + Clone,
    words: Words,
    tests: &mut Tests,
) -> Decision {
    // a rule without conditions is for all calls, wherever it stands
    if let Some(rule) = rules.clone().find(|rule| rule.conditions.is_empty()) {
        return Decision::Answer(rule.action);
    }
    if rules.clone().all(|rule| rule.action == default) {
        return Decision::Answer(default);
    }
    Decision::Test(tests.number_of(words, rules))
}

/// Numbers of calls, in ranges: each goes up to the start of the next one.
fn ranges(profile: &Profile<'_>, one: Arch, tests: &mut Tests) -> Option<Vec<(u32, Decision)>> {
    let mut ranges = Ranges { starts: Vec::with_capacity(arch::MOST_CALLS) };
    let rest = ranges.add(profile, one, 0, tests)?;
    if one == Arch::ScmpArchX86_64 {
        if profile.architectures.contains(&Arch::ScmpArchX32) {
            ranges.add(profile, Arch::ScmpArchX32, X32_BIT, tests)?;
        } else {
            ranges.start(X32_BIT, Decision::Answer(FOREIGN));
            // not of x32: a tracer has taken the call away
            ranges.start(u32::MAX, rest);
        }
    }
    Some(ranges.starts)
}

struct Ranges {
    starts: Vec<(u32, Decision)>,
}

impl Ranges {
    /// From this number on, up to all there are, it is this.
    fn start(&mut self, number: u32, decision: Decision) {
        while self.starts.last().is_some_and(|(last, _)| *last >= number) {
            self.starts.pop();
        }
        if self.starts.last().is_none_or(|(_, before)| *before != decision) {
            self.starts.push((number, decision));
        }
    }

    /// The calls of one architecture, whose numbers begin at `first`; the answer
    /// is what becomes of those that are too new for the profile. `None`: it has
    /// no table.
    fn add(
        &mut self,
        profile: &Profile<'_>,
        one: Arch,
        first: u32,
        tests: &mut Tests,
    ) -> Option<Decision> {
        let (calls, newest) = calls(profile, one, tests)?;
        let default = Decision::Answer(profile.default);
        let too_new = match newest {
            Some(_) if profile.hides_newer_calls => Decision::Answer(NO_SUCH_CALL),
            _ => default,
        };
        let newest = newest.unwrap_or(u32::MAX - 1);
        let fill = |ranges: &mut Ranges, from: u32| {
            if from <= newest {
                ranges.start(from, default);
            }
            ranges.start(from.max(newest + 1), too_new);
        };
        let mut next = first;
        for (number, decision) in calls {
            if number > next {
                fill(self, next);
            }
            self.start(number, decision);
            next = number + 1;
        }
        fill(self, next);
        Some(too_new)
    }
}

/// What becomes of each call with a rule, by number, and the newest call that
/// the profile names.
type Calls = (Vec<(u32, Decision)>, Option<u32>);

fn calls(profile: &Profile<'_>, one: Arch, tests: &mut Tests) -> Option<Calls> {
    let mut decided = Vec::with_capacity(arch::MOST_CALLS);
    let mut newest = None;
    let words = arch::words(one);
    let has_table = arch::each_call(one, &mut |number, name| {
        let own = profile.rules_of(name);
        if own.is_some() && arch::is_in_sequence(one, number) {
            newest = newest.max(Some(number));
        }
        let through = arch::multiplexed(name);
        let decision = match own {
            own if !through.is_empty() => {
                let is_named = own.is_some();
                let mut rules: Vec<Rule> = own.into_iter().flatten().cloned().collect();
                rules.extend(through.iter().flat_map(|(name, which)| {
                    let of_this = profile.rules_of(name).into_iter().flatten();
                    of_this.filter_map(|rule| rule.through(*which, profile.default))
                }));
                if !is_named && rules.is_empty() {
                    return;
                }
                decide(profile.default, rules.iter(), words, tests)
            }
            Some(rules) => decide(profile.default, rules, words, tests),
            None => return,
        };
        decided.push((number, decision));
    });
    if !decided.is_sorted_by_key(|(number, _)| *number) {
        decided.sort_by_key(|(number, _)| *number);
    }
    has_table.then_some((decided, newest))
}

/// Writes the search and the tests.
struct Writer<'a> {
    profile: &'a Profile<'a>,
    asm: Assembler,
    tests: Tests,
    /// Where those are that are there already.
    labels: Vec<Option<Label>>,
}

impl Writer<'_> {
    fn search(&mut self, ranges: &[(u32, Decision)]) -> Label {
        match ranges {
            [] => self.asm.answer(self.profile.default),
            [(_, decision)] => self.decision(*decision),
            // one number between two like ranges
            [(_, around), (number, it), (next, after)]
                if around == after && *next == number.wrapping_add(1) =>
            {
                let no = self.decision(*around);
                let yes = self.decision(*it);
                self.asm.branch(Compare::Equal, *number, yes, no)
            }
            _ => {
                let (lower, upper) = ranges.split_at(ranges.len() / 2);
                let from = upper.first().map_or(0, |(start, _)| *start);
                let yes = self.search(upper);
                let no = self.search(lower);
                self.asm.branch(Compare::From, from, yes, no)
            }
        }
    }

    fn decision(&mut self, decision: Decision) -> Label {
        let number = match decision {
            Decision::Answer(value) => return self.asm.answer(value),
            Decision::Test(number) => number,
        };
        if let Some(Some(label)) = self.labels.get(number) {
            return *label;
        }
        let mut next = self.asm.answer(self.profile.default);
        let (words, rules) = match self.tests.0.get_mut(number) {
            // written once
            Some((words, rules)) => (*words, std::mem::take(rules)),
            None => return next,
        };
        for rule in rules.iter().rev() {
            next = self.rule(rule, next, words);
        }
        if let Some(label) = self.labels.get_mut(number) {
            *label = Some(next);
        }
        next
    }

    /// The rule's action if all its conditions hold, else on to `next`.
    fn rule(&mut self, rule: &Rule, next: Label, words: Words) -> Label {
        let mut label = self.asm.answer(rule.action);
        for condition in rule.conditions.iter().rev() {
            label = self.condition(condition, label, next, words);
        }
        label
    }

    /// An argument of 64 bits is compared as two words, the high one first.
    fn condition(&mut self, condition: &Condition, yes: Label, no: Label, words: Words) -> Label {
        let (yes, no) = if condition.holds { (yes, no) } else { (no, yes) };
        let test = condition.test;
        let argument = OFFSET_ARGUMENTS + 8 * condition.argument;
        let (high_at, low_at) =
            if words.big_endian { (argument, argument + 4) } else { (argument + 4, argument) };
        let (high, low) = halves(condition.value);
        let (mask_high, mask_low) = halves(condition.mask);
        let word = Word { at: low_at, mask: mask_low, value: low };
        let low_test = self.word(word, &[(test, yes)], no);
        if !words.wide {
            return low_test;
        }
        let word = Word { at: high_at, mask: mask_high, value: high };
        match test {
            Compare::Equal => self.word(word, &[(Compare::Equal, low_test)], no),
            _ => self.word(word, &[(Compare::Above, yes), (Compare::Equal, low_test)], no),
        }
    }

    /// Loads a word and compares it: the first test that is true says where to go.
    fn word(&mut self, word: Word, tests: &[(Compare, Label)], no: Label) -> Label {
        let is_whole = word.mask == u32::MAX;
        // what follows may begin with the same word
        let near =
            |asm: &Assembler, label| if is_whole { asm.loaded(word.at, label) } else { label };
        let mut next = near(&self.asm, no);
        for (test, target) in tests.iter().rev() {
            let yes = near(&self.asm, *target);
            next = self.asm.branch(*test, word.value, yes, next);
        }
        let next = if is_whole { next } else { self.asm.mask(word.mask, next) };
        self.asm.load(word.at, next)
    }
}

/// A word of struct seccomp_data, and what it is compared with.
#[derive(Clone, Copy)]
struct Word {
    at: u32,
    mask: u32,
    value: u32,
}

fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}
