//! `tare update`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::cli::{GlobalArgs, LimitArgs, UpdateArgs};
use crate::container;
use crate::error::{Error, Result, Step};
use crate::image::limits::size;
use crate::spec::{parse_resources, schemata};

/// Most bytes of resources: far above any real ones.
const MOST: u64 = 4 << 20;

pub(super) fn run(global: &GlobalArgs, args: &UpdateArgs) -> anyhow::Result<()> {
    let text = match &args.resources {
        Some(path) => {
            if args.limits != LimitArgs::default() {
                crate::logging::warn("--resources is given: the limits beside it are passed over");
            }
            read(path)?
        }
        None => Value::Object(of_flags(&args.limits)?).to_string().into_bytes(),
    };
    let from = args.resources.as_ref().map(|path| format!("--resources {}", path.display()));
    let resources = parse_resources(&text).map_err(|e| match from {
        Some(from) => e.step(from),
        None => e,
    })?;
    let schemata = schemata(args.l3_cache_schema.as_deref(), args.mem_bw_schema.as_deref())?;
    let entry = super::find(global, &args.id)?;
    Ok(container::update(&entry, &container::UpdateArgs { resources, schemata })?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let result = match path.as_os_str() == "-" {
        true => std::io::stdin().lock().take(MOST).read_to_end(&mut text),
        false => File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut text)),
    };
    result.step(|| format!("--resources {}", path.display()))?;
    Ok(text)
}

/// The flags as a linux.resources object.
fn of_flags(flags: &LimitArgs) -> Result<Map<String, Value>> {
    let bytes = |flag: &str, text: &Option<String>| -> Result<Option<Value>> {
        let Some(text) = text else { return Ok(None) };
        let bytes = match text.as_str() {
            "-1" => -1,
            text => i64::try_from(size(text).step(|| flag)?)
                .map_err(|_overflow| Error::invalid(format!("{flag}: {text} is too much")))?,
        };
        Ok(Some(bytes.into()))
    };
    let fields = [
        ("blockIO", "weight", flags.blkio_weight.map(Value::from)),
        ("cpu", "period", flags.cpu_period.map(Value::from)),
        ("cpu", "quota", flags.cpu_quota.map(Value::from)),
        ("cpu", "burst", flags.cpu_burst.map(Value::from)),
        ("cpu", "shares", flags.cpu_share.map(Value::from)),
        ("cpu", "realtimePeriod", flags.cpu_rt_period.map(Value::from)),
        ("cpu", "realtimeRuntime", flags.cpu_rt_runtime.map(Value::from)),
        ("cpu", "idle", flags.cpu_idle.map(Value::from)),
        ("cpu", "cpus", flags.cpuset_cpus.clone().map(Value::from)),
        ("cpu", "mems", flags.cpuset_mems.clone().map(Value::from)),
        ("memory", "kernel", bytes("--kernel-memory", &flags.kernel_memory)?),
        ("memory", "kernelTCP", bytes("--kernel-memory-tcp", &flags.kernel_memory_tcp)?),
        ("memory", "limit", bytes("--memory", &flags.memory)?),
        ("memory", "reservation", bytes("--memory-reservation", &flags.memory_reservation)?),
        ("memory", "swap", bytes("--memory-swap", &flags.memory_swap)?),
        ("pids", "limit", flags.pids_limit.map(Value::from)),
    ];
    let mut all = Map::new();
    for (section, name, value) in fields {
        if let Some(value) = value {
            let section = all.entry(section).or_insert_with(|| Value::Object(Map::new()));
            if let Some(section) = section.as_object_mut() {
                section.insert(name.to_owned(), value);
            }
        }
    }
    Ok(all)
}
