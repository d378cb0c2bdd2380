//! Where a bus is: the addresses of D-Bus (D-Bus specification, Server
//! Addresses), as far as they lead to Unix sockets.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::sys::socket::UnixAddr;

use crate::error::{Error, Result, Step};

/// Where the system bus is, unless the environment says otherwise.
const SYSTEM: &str = "unix:path=/run/dbus/system_bus_socket";

/// The address of the system bus.
pub(super) fn system() -> String {
    variable("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| SYSTEM.to_owned())
}

/// The address of the user's own bus.
///
/// # Errors
/// Nothing in the environment tells where it is.
pub(super) fn user() -> Result<String> {
    if let Some(address) = variable("DBUS_SESSION_BUS_ADDRESS") {
        return Ok(address);
    }
    match variable("XDG_RUNTIME_DIR") {
        Some(dir) => Ok(format!("unix:path={}/bus", escaped(&dir))),
        None => Err(Error::unsupported(
            "neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR tells where the user's bus is",
        )),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What may stand in an address as it is, does; the rest as `%20`.
fn escaped(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_/.\\*".contains(&b);
    path.bytes().fold(String::new(), |mut text, byte| {
        match plain(byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02x}")),
        }
        text
    })
}

/// The sockets that an address names, in the order in which to try them.
///
/// # Errors
/// None of them is a Unix socket.
pub(super) fn sockets(address: &str) -> Result<Vec<UnixAddr>> {
    let step = || format!("the bus address {address:?}");
    let mut found = Vec::new();
    for one in address.split(';') {
        let Some(keys) = one.strip_prefix("unix:") else { continue };
        for (key, value) in keys.split(',').filter_map(|pair| pair.split_once('=')) {
            let value = unescaped(value).ok_or_else(|| Error::invalid("a wrong %").step(step()))?;
            match key {
                "path" => {
                    let path = PathBuf::from(OsString::from_vec(value));
                    found.push(UnixAddr::new(&path).step(step)?);
                }
                "abstract" => found.push(UnixAddr::new_abstract(&value).step(step)?),
                // guid and the like
                _ => {}
            }
        }
    }
    match found.is_empty() {
        true => Err(Error::invalid("names no Unix socket").step(step())),
        false => Ok(found),
    }
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(address: &str) -> String {
        match sockets(address) {
            Ok(all) => all
                .iter()
                .map(|socket| match (socket.path(), socket.as_abstract()) {
                    (Some(path), _) => path.display().to_string(),
                    (_, Some(name)) => format!("@{}", String::from_utf8_lossy(name)),
                    _ => "?".to_owned(),
                })
                .collect::<Vec<_>>()
                .join(" "),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn addresses_name_sockets() {
        for (address, expected) in [
            ("unix:path=/run/user/1000/bus", "/run/user/1000/bus"),
            ("unix:path=/tmp/a%20b,guid=00ff", "/tmp/a b"),
            ("unix:abstract=/tmp/dbus-x,guid=00ff", "@/tmp/dbus-x"),
            ("tcp:host=localhost,port=1;unix:path=/a;unix:path=/b", "/a /b"),
            ("tcp:host=localhost", "the bus address \"tcp:host=localhost\": names no Unix socket"),
            ("unix:path=/a%2", "the bus address \"unix:path=/a%2\": a wrong %"),
            ("", "the bus address \"\": names no Unix socket"),
        ] {
            assert_eq!(found(address), expected);
        }
        assert_eq!(found(&format!("unix:path={}", escaped("/run/a b,c%"))), "/run/a b,c%");
    }
}
