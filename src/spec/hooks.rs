//! hooks: the six lists (config.md, POSIX-platform hooks).

use std::path::PathBuf;

use oci_spec::runtime::{Hook, Spec};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One hook.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HookPlan {
    /// Where the config has it: `hooks.createRuntime[0]`.
    pub field: String,
    /// Program, absolute.
    pub path: PathBuf,
    /// argv, argv\[0\] first; the path when the config has none.
    pub args: Vec<String>,
    /// The whole environment; `None` is that of whoever runs it.
    pub env: Option<Vec<String>>,
    /// Seconds after which it is killed.
    pub timeout: Option<u64>,
}

/// The six lists of hooks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Hooks {
    /// After the namespaces exist, by the runtime (deprecated, still in use).
    pub prestart: Vec<HookPlan>,
    /// The same moment, by the runtime.
    pub create_runtime: Vec<HookPlan>,
    /// In the container's namespaces, before pivot_root.
    pub create_container: Vec<HookPlan>,
    /// In the container, before its program.
    pub start_container: Vec<HookPlan>,
    /// After the program was started, by the runtime.
    pub poststart: Vec<HookPlan>,
    /// After the container was deleted, by the runtime.
    pub poststop: Vec<HookPlan>,
}

impl Hooks {
    /// True when `create` runs one.
    pub fn in_create(&self) -> bool {
        let lists = [&self.prestart, &self.create_runtime, &self.create_container];
        lists.iter().any(|list| !list.is_empty())
    }

    /// True when init runs one, inside the container's namespaces.
    pub fn in_container(&self) -> bool {
        !self.create_container.is_empty() || !self.start_container.is_empty()
    }
}

#[allow(deprecated, reason = "prestart hooks are deprecated and still in use")]
pub(super) fn hooks(spec: &Spec) -> Result<Hooks> {
    let Some(all) = spec.hooks() else {
        return Ok(Hooks::default());
    };
    Ok(Hooks {
        prestart: list("prestart", all.prestart().as_deref())?,
        create_runtime: list("createRuntime", all.create_runtime().as_deref())?,
        create_container: list("createContainer", all.create_container().as_deref())?,
        start_container: list("startContainer", all.start_container().as_deref())?,
        poststart: list("poststart", all.poststart().as_deref())?,
        poststop: list("poststop", all.poststop().as_deref())?,
    })
}

fn list(kind: &str, list: Option<&[Hook]>) -> Result<Vec<HookPlan>> {
    let all = list.unwrap_or_default().iter().enumerate();
    all.map(|(index, hook)| plan(format!("hooks.{kind}[{index}]"), hook)).collect()
}

fn plan(field: String, hook: &Hook) -> Result<HookPlan> {
    let path = hook.path().clone();
    if !path.is_absolute() {
        return Err(Error::invalid(format!("{field}.path: {path:?} is not an absolute path")));
    }
    no_nul(&format!("{field}.path"), path.as_os_str().as_encoded_bytes())?;
    let mut args = hook.args().clone().unwrap_or_default();
    for (at, arg) in args.iter().enumerate() {
        no_nul(&format!("{field}.args[{at}]"), arg.as_bytes())?;
    }
    if args.is_empty() {
        args.push(path.to_string_lossy().into_owned());
    }
    let env = hook.env().clone();
    for (at, entry) in env.iter().flatten().enumerate() {
        let name = format!("{field}.env[{at}]");
        no_nul(&name, entry.as_bytes())?;
        if !entry.contains('=') {
            return Err(Error::invalid(format!("{name}: {entry:?} is not NAME=VALUE")));
        }
    }
    let timeout = timeout(&field, hook.timeout())?;
    Ok(HookPlan { field, path, args, env, timeout })
}

fn no_nul(field: &str, bytes: &[u8]) -> Result<()> {
    match bytes.contains(&0) {
        true => Err(Error::invalid(format!("{field}: has a NUL byte inside"))),
        false => Ok(()),
    }
}

fn timeout(field: &str, given: Option<i64>) -> Result<Option<u64>> {
    let Some(seconds) = given else { return Ok(None) };
    match u64::try_from(seconds) {
        Ok(n) if n > 0 => Ok(Some(n)),
        _ => Err(Error::invalid(format!(
            "{field}.timeout: {seconds} is not a number of seconds above 0"
        ))),
    }
}
