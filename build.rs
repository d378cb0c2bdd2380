//! Puts the functions that every container's way touches next to each other in
//! the binary (link-order.txt): fewer pages of it are ever in memory.

use std::env::var;

fn main() {
    println!("cargo:rerun-if-changed=link-order.txt");
    println!("cargo:rerun-if-env-changed=TARE_KEEP_SYMBOLS");
    let is = |name: &str, value: &str| var(name).is_ok_and(|v| v == value);
    // lld knows the option, and is what rustc links with on this target
    let known = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if known {
        // src/sys/entry.rs
        println!("cargo:rustc-link-arg-bin=tare=-Wl,--entry=tare_entry");
    }
    if known
        && is("PROFILE", "release")
        && let Ok(root) = var("CARGO_MANIFEST_DIR")
    {
        println!("cargo:rustc-link-arg-bin=tare=-Wl,--symbol-ordering-file={root}/link-order.txt");
        // a name that is gone costs nothing
        println!("cargo:rustc-link-arg-bin=tare=-Wl,--no-warn-symbol-ordering");
    }
    // not by the profile: cargo makes the names of functions depend on that, and
    // the order is by name
    if is("PROFILE", "release") && var("TARE_KEEP_SYMBOLS").is_err() {
        println!("cargo:rustc-link-arg-bin=tare=-Wl,--strip-all");
    }
}
