//! A process of `exec`: one more program for a container that is there.

use std::io::Read;
use std::path::Path;

use oci_spec::runtime::Process;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::labels::LabelPlan;
use super::numbers::mask;
use super::process::ProcessPlan;
use super::scheduling::{MAX_PROCESSOR, SchedulingPlan};
use super::seccomp::SeccompPlan;
use super::spelling;
use crate::error::{Error, Result, Step};

/// Most bytes of a process object: far above any real one.
const MAX_PROCESS: u64 = 16 << 20;

/// A process object where a config has it, so that errors name the same paths.
#[derive(Deserialize)]
struct Within {
    process: Process,
}

/// Everything that `exec` needs to know of its process, decided.
#[derive(Debug, Clone)]
pub struct ExecPlan {
    /// The program.
    pub process: ProcessPlan,
    /// How the kernel schedules it.
    pub scheduling: SchedulingPlan,
    /// What AppArmor and SELinux make of it.
    pub labels: LabelPlan,
    /// The filter of system calls; `None` allows all.
    pub seccomp: Option<SeccompPlan>,
    /// Processors up to the moment when it is in the container's cgroup, as bits,
    /// 64 a word.
    pub first_processors: Option<Vec<u64>>,
    /// Processors from then on.
    pub last_processors: Option<Vec<u64>>,
}

impl ExecPlan {
    /// Resolves and checks a process. What a config has in other objects
    /// (`linux.seccomp`, `memoryPolicy`, `personality`) is left empty.
    ///
    /// # Errors
    /// The first field that is wrong, by name.
    pub fn resolve(process: &Process) -> Result<Self> {
        let scheduling = SchedulingPlan::resolve(process, None)?;
        let affinity = scheduling.exec_affinity.clone().unwrap_or_default();
        let bits = |list: Option<String>| list.map(|list| mask(&list, MAX_PROCESSOR)).transpose();
        Ok(ExecPlan {
            process: ProcessPlan::resolve(process)?,
            labels: LabelPlan::resolve(process, None)?,
            seccomp: None,
            first_processors: bits(affinity.initial)?,
            last_processors: bits(affinity.last)?,
            scheduling,
        })
    }
}

/// Reads a process object (config.md, process) from a file of its own, or from a
/// pipe.
///
/// # Errors
/// As for [`super::load`].
pub fn load_process(path: &Path) -> Result<Process> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_PROCESS + 1).read_to_end(&mut bytes))
        .step(|| path.display())?;
    if bytes.len() as u64 > MAX_PROCESS {
        return Err(Error::invalid("is too long for a process").step(path.display()));
    }
    parse_process(&bytes).step(|| path.display())
}

fn parse_process(bytes: &[u8]) -> Result<Process> {
    match crate::json::parse(bytes) {
        Ok(process) => Ok(process),
        // with a position in the text as it is
        Err(e) if serde_json::from_slice::<IgnoredAny>(bytes).is_err() => Err(e),
        Err(_other_words) => {
            let within = [br#"{"process":"#, bytes, b"}"].concat();
            let corrected = spelling::corrected(&within).unwrap_or(within);
            crate::json::parse::<Within>(&corrected).map(|within| within.process)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_paths_of_a_config() {
        let message = |text: &str| parse_process(text.as_bytes()).unwrap_err().to_string();
        let text = message(r#"{"user":{"uid":"x"},"cwd":"/"}"#);
        assert!(text.starts_with("process.user.uid: "), "{text}");
        let text = message("{\"user\":\n");
        assert!(text.starts_with("not valid JSON") && text.contains("line 2"), "{text}");
        assert!(message("[]").starts_with("process: "), "{}", message("[]"));
    }

    #[test]
    fn what_is_not_known_is_left_out_as_in_a_config() {
        let text = r#"{"user":{},"cwd":"/","capabilities":{"bounding":["CAP_FLY","CAP_KILL"]},
            "execCPUAffinity":{"initial":"0-1,64","final":""}}"#;
        let mut process = parse_process(text.as_bytes()).unwrap();
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
        process.set_args(Some(vec!["a".into()]));
        let plan = ExecPlan::resolve(&process).unwrap();
        assert_eq!(plan.first_processors, Some(vec![3, 1]));
        assert_eq!(plan.last_processors, None);
    }
}
