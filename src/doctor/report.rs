//! What a check says, and all of it together.

use serde::Serialize;

use super::trial::is_untried;
use crate::error::Error;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is there.
    Ok,
    /// It is not, and tare does something else instead.
    Fallback,
    /// It is not, and something can't be done without it.
    Missing,
    /// For the reader alone: tare does nothing with it.
    Info,
}

/// The answer of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) status: Status,
    pub(super) detail: String,
    pub(super) hint: Option<String>,
    pub(super) untried: bool,
}

/// One line of the report. JSON: as it stands here; `hint` may be null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name for programs: lower case, words joined by `-`, no other check's. It
    /// stays, while the check may come into another group.
    pub id: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// How it came out.
    pub status: Status,
    /// What was found; where something is not there, what is lost, and why.
    /// May be empty for `ok`.
    pub detail: String,
    /// How to get what is not there.
    pub hint: Option<String>,
    /// A container with tare's default config (`tare spec`, `run --image`) can't
    /// be created if this is missing.
    pub required: bool,
    /// Missing for want of something else that is missing, and not by itself.
    #[serde(skip)]
    pub(super) untried: bool,
}

/// Checks with one subject.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// Its name for programs.
    pub id: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// In the order in which they were tried.
    pub checks: Vec<Check>,
}

/// What it all comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// True when no required check is missing.
    pub usable: bool,
    /// The same and what else matters, in one line.
    pub text: String,
    /// Ids of the required checks that are missing, without those that could not
    /// be tried because of the others.
    pub blocked_by: Vec<&'static str>,
    /// Controllers whose limits can't be set, and `swap`.
    pub missing_limits: Vec<&'static str>,
}

/// Everything that was found out.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// All checks.
    pub groups: Vec<Group>,
    /// What they come to.
    pub summary: Summary,
}

impl Finding {
    pub(super) fn ok(detail: impl Into<String>) -> Self {
        Finding { status: Status::Ok, detail: detail.into(), hint: None, untried: false }
    }

    pub(super) fn fallback(detail: impl Into<String>) -> Self {
        Finding { status: Status::Fallback, ..Finding::ok(detail) }
    }

    pub(super) fn missing(detail: impl Into<String>) -> Self {
        Finding { status: Status::Missing, ..Finding::ok(detail) }
    }

    /// Something is missing for this reason.
    pub(super) fn because(what: &str, e: &Error) -> Self {
        Finding { untried: is_untried(e), ..Finding::missing(told(what, e)) }
    }

    /// Something is not to be had for this reason, and tare does without anyway.
    pub(super) fn info_because(what: &str, e: &Error) -> Self {
        Finding { untried: is_untried(e), ..Finding::info(told(what, e)) }
    }

    pub(super) fn info(detail: impl Into<String>) -> Self {
        Finding { status: Status::Info, ..Finding::ok(detail) }
    }

    /// With a way to get it: what was not tried waits for something else.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        let hint = (!self.untried).then(|| hint.into());
        Finding { hint, ..self }
    }
}

fn told(what: &str, e: &Error) -> String {
    if is_untried(e) { e.to_string() } else { format!("{what}: {e}") }
}

impl Check {
    fn is_no_obstacle(&self) -> bool {
        !self.required || self.status != Status::Missing
    }
}

impl Report {
    /// Draws the sum of the groups. `limits` is the id of the group whose checks
    /// stand for controllers: their titles are the controllers' names.
    pub(super) fn new(groups: Vec<Group>, limits: &str) -> Self {
        let summary = summarize(&groups, limits);
        Report { groups, summary }
    }
}

fn summarize(groups: &[Group], limits: &str) -> Summary {
    let missing = |check: &&Check| check.status == Status::Missing && !check.untried;
    let (limits, others): (Vec<&Group>, Vec<&Group>) =
        groups.iter().partition(|group| group.id == limits);
    let of = |groups: Vec<&'_ Group>| -> Vec<Check> {
        groups.iter().flat_map(|group| group.checks.iter().filter(missing).cloned()).collect()
    };
    let (limits, others) = (of(limits), of(others));
    let titles = |checks: &[Check]| checks.iter().map(|check| check.title).collect::<Vec<_>>();
    let required: Vec<Check> = others.iter().filter(|check| check.required).cloned().collect();
    let usable = groups.iter().flat_map(|group| &group.checks).all(Check::is_no_obstacle);
    let text = match usable {
        true => usable_text(&titles(&limits), &titles(&others)),
        false => format!(
            "containers can't be created here; what is needed: {}",
            titles(&required).join(", ")
        ),
    };
    Summary {
        usable,
        text,
        blocked_by: required.iter().map(|check| check.id).collect(),
        missing_limits: titles(&limits),
    }
}

fn usable_text(limits: &[&str], lost: &[&str]) -> String {
    let mut text = "containers run here".to_owned();
    match limits {
        [] => {}
        [one] => text.push_str(&format!("; a limit can't be set ({one})")),
        all => {
            text.push_str(&format!("; {} limits can't be set ({})", all.len(), all.join(", ")));
        }
    }
    if !lost.is_empty() {
        text.push_str(&format!("; also missing: {}", lost.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &'static str, status: Status, required: bool) -> Check {
        Check { id, title: id, status, detail: String::new(), hint: None, required, untried: false }
    }

    fn report(checks: Vec<Check>, limits: Vec<Check>) -> Summary {
        let group = |id, checks| Group { id, title: id, checks };
        Report::new(vec![group("a", checks), group("limits", limits)], "limits").summary
    }

    #[test]
    fn only_what_is_required_stands_in_the_way() {
        let found = report(
            vec![
                check("x", Status::Ok, true),
                check("y", Status::Fallback, true),
                check("z", Status::Info, false),
            ],
            vec![check("memory", Status::Missing, false), check("cpu", Status::Ok, false)],
        );
        assert!(found.usable);
        assert_eq!(found.text, "containers run here; a limit can't be set (memory)");
        assert_eq!(found.missing_limits, ["memory"]);

        let found = report(
            vec![check("x", Status::Missing, true), check("y", Status::Missing, false)],
            vec![],
        );
        assert!(!found.usable);
        assert_eq!(found.blocked_by, ["x"]);
        assert_eq!(found.text, "containers can't be created here; what is needed: x");
    }

    #[test]
    fn several_losses_are_counted_and_named() {
        let text = usable_text(&["cpu", "pids"], &["overlayfs"]);
        let expected = "containers run here; 2 limits can't be set (cpu, pids); \
                        also missing: overlayfs";
        assert_eq!(text, expected);
        assert_eq!(usable_text(&[], &[]), "containers run here");
    }
}
