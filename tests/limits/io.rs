//! io.max.

use serde_json::{Value, json};

use crate::support::Container;
use crate::{MIB, file, limited};

/// A block device with a few MiB, to read from: path, major, minor.
pub(crate) fn disk() -> (String, u64, u64) {
    let mut disks: Vec<_> = std::fs::read_dir("/sys/block").unwrap().flatten().collect();
    disks.sort_by_key(std::fs::DirEntry::file_name);
    for entry in disks {
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        let sectors: u64 = read("size").trim().parse().unwrap();
        if sectors >= 8 * MIB / 512 && !name.starts_with("ram") && !name.starts_with("loop") {
            let numbers = read("dev");
            let (major, minor) = numbers.trim().split_once(':').unwrap();
            return (format!("/dev/{name}"), major.parse().unwrap(), minor.parse().unwrap());
        }
    }
    panic!("no disk in /sys/block");
}

/// How long the container takes to read this much of the disk, in ms.
fn time_to_read(bytes: u64, block_io: Value) -> u64 {
    let container = limited(json!({}), &["read-device", "/dev/disk", &bytes.to_string()]);
    give_disk(&container, block_io);
    let report = container.json();
    assert_eq!(report["bytes"], bytes);
    report["ms"].as_u64().unwrap()
}

/// Lets the container read the disk, as /dev/disk.
pub(crate) fn give_disk(container: &Container, block_io: Value) {
    let (_, major, minor) = disk();
    container.bundle.edit(|config| {
        config["linux"]["devices"] =
            json!([{"path": "/dev/disk", "type": "b", "major": major, "minor": minor}]);
        let resources = &mut config["linux"]["resources"];
        let rule =
            json!({"allow": true, "type": "b", "major": major, "minor": minor, "access": "r"});
        resources["devices"].as_array_mut().unwrap().push(rule);
        resources["blockIO"] = block_io;
    });
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_rate_bounds_the_reads_of_a_device() {
    let (_, major, minor) = disk();
    let rate =
        json!({"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 2 * MIB}]});
    let free = time_to_read(4 * MIB, json!({}));
    let slow = time_to_read(4 * MIB, rate);
    assert!(free < slow, "{free} ms without a limit, {slow} ms with one");
    // the kernel lets the first of each slice of time pass
    assert!(slow >= 1000, "4 MiB at 2 MiB/s in {slow} ms");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn rates_are_in_the_file() {
    let (_, major, minor) = disk();
    let device = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let container = limited(
        json!({"blockIO": {
            "throttleReadBpsDevice": device(1_000_000),
            "throttleWriteBpsDevice": device(2_000_000),
            "throttleReadIOPSDevice": device(300),
            "throttleWriteIOPSDevice": device(400),
        }}),
        &["wait"],
    );
    let _output = container.started();
    let expected = format!("{major}:{minor} rbps=1000000 wbps=2000000 riops=300 wiops=400");
    assert_eq!(file(&container, "io.max"), expected);
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_weight_is_in_the_file_that_the_kernel_has() {
    let container = limited(json!({"blockIO": {"weight": 500}}), &["wait"]);
    let _output = container.started();
    let has_bfq = container.cgroup().join("io.bfq.weight").try_exists().unwrap();
    let weight = || match has_bfq {
        true => file(&container, "io.bfq.weight"),
        false => file(&container, "io.weight"),
    };
    assert_eq!(weight(), if has_bfq { "default 500" } else { "default 4950" });
    container.on_id("update", &["--blkio-weight", "10"], &[]).run().ok();
    assert_eq!(weight(), if has_bfq { "default 10" } else { "default 1" });
    let path = container.bundle.path().join("resources.json");
    let wrong = json!({"blockIO": {"weight": 1000}, "unified": {"pids.max": "few"}});
    std::fs::write(&path, wrong.to_string()).unwrap();
    container
        .on_id("update", &["--resources", path.to_str().unwrap()], &[])
        .run()
        .fails_with(&["unified[\"pids.max\"]"]);
    assert_eq!(weight(), if has_bfq { "default 10" } else { "default 1" });
}
