//! Huge pages.

use serde_json::json;

use crate::{MIB, file, limited};

/// Huge pages of 2 MiB for the time of a test.
struct Pool {
    before: String,
}

const POOL: &str = "/proc/sys/vm/nr_hugepages";

impl Pool {
    fn of(pages: u32) -> Self {
        let before = std::fs::read_to_string(POOL).unwrap();
        std::fs::write(POOL, pages.to_string()).unwrap();
        assert_eq!(std::fs::read_to_string(POOL).unwrap().trim(), pages.to_string());
        Pool { before }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        std::fs::write(POOL, &self.before).ok();
    }
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_program_gets_as_many_huge_pages_as_its_limit_says() {
    let _pool = Pool::of(8);
    let limit = |bytes: u64| json!({"hugepageLimits": [{"pageSize": "2MB", "limit": bytes}]});
    let (few, many) = (format!("alloc-huge {}", 4 * MIB), format!("alloc-huge {}", 8 * MIB));
    let container = limited(limit(4 * MIB), &["each", &few, &many, "wait", &many]);
    let mut output = container.create();
    container.start().ok();
    assert_eq!(output.line(), "ok");
    // the reservation fails: an error where a page fault would kill
    assert_eq!(output.line(), "ENOMEM");
    assert_eq!(output.line(), "READY");
    assert_eq!(file(&container, "hugetlb.2MB.max"), (4 * MIB).to_string());
    let path = container.bundle.path().join("resources.json");
    std::fs::write(&path, limit(8 * MIB).to_string()).unwrap();
    container.on_id("update", &["--resources", path.to_str().unwrap()], &[]).run().ok();
    container.kill("TERM").ok();
    assert_eq!(output.line(), "GOT SIGTERM");
    assert_eq!(output.line(), "ok");
}
