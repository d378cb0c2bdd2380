//! Puts the functions that every container's way touches next to each other in
//! the binary (link-order/): fewer pages of it are ever in memory.

use std::env::var;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=TARE_KEEP_SYMBOLS");
    let is = |name: &str, value: &str| var(name).is_ok_and(|v| v == value);
    let known = is("CARGO_CFG_TARGET_ARCH", "x86_64");
    if known {
        // src/sys/entry.rs
        println!("cargo:rustc-link-arg-bin=tare=-Wl,--entry=tare_entry");
    }
    let (Ok(root), Ok(libc)) = (var("CARGO_MANIFEST_DIR"), var("CARGO_CFG_TARGET_ENV")) else {
        return;
    };
    // the names of functions differ between the two
    let order = format!("link-order/{libc}.txt");
    println!("cargo:rerun-if-changed={order}");
    if known && is("PROFILE", "release") && (libc == "gnu" || own_linker()) {
        println!("cargo:rustc-link-arg-bin=tare=-Wl,--symbol-ordering-file={root}/{order}");
        // a name that is gone costs nothing
        println!("cargo:rustc-link-arg-bin=tare=-Wl,--no-warn-symbol-ordering");
    }
    // not by the profile: cargo makes the names of functions depend on that, and
    // the order is by name
    if is("PROFILE", "release") && var("TARE_KEEP_SYMBOLS").is_err() {
        println!("cargo:rustc-link-arg-bin=tare=-Wl,--strip-all");
    }
}

/// Asks for the lld that comes with rustc: it knows the option, but for musl it is
/// not what rustc links with. False where there is none.
fn own_linker() -> bool {
    let (Ok(rustc), Ok(host)) = (var("RUSTC"), var("HOST")) else {
        return false;
    };
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output();
    let Some(sysroot) = sysroot.ok().and_then(|found| String::from_utf8(found.stdout).ok()) else {
        return false;
    };
    let lld = format!("{}/lib/rustlib/{host}/bin/gcc-ld", sysroot.trim());
    if !Path::new(&lld).join("ld.lld").try_exists().unwrap_or(false) {
        return false;
    }
    println!("cargo:rustc-link-arg-bin=tare=-B{lld}");
    println!("cargo:rustc-link-arg-bin=tare=-fuse-ld=lld");
    true
}
