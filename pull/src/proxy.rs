//! Proxies, by the environment, as curl and Go's programs read it.

use std::env;
use std::net::IpAddr;

use tare::error::{Error, Result};
use ureq::Proxy;
use ureq::http::Uri;

/// The proxy for URLs of a scheme.
///
/// # Errors
/// A variable that holds no proxy's URL.
pub(crate) fn proxy(scheme: &str) -> Result<Option<Proxy>> {
    let own = match scheme {
        "https" => ["HTTPS_PROXY", "https_proxy"],
        // a CGI script's HTTP_PROXY is whatever its caller sends as a header
        _ if env::var_os("REQUEST_METHOD").is_some() => ["http_proxy", "http_proxy"],
        _ => ["HTTP_PROXY", "http_proxy"],
    };
    let names = own.into_iter().chain(["ALL_PROXY", "all_proxy"]);
    let mut set = names.filter_map(|name| Some((name, env::var(name).ok()?)));
    let Some((name, text)) = set.find(|(_, text)| !text.is_empty()) else {
        return Ok(None);
    };
    Proxy::new(&text).map(Some).map_err(|e| Error::invalid(format!("{name}: {e}")))
}

/// What is reached without a proxy.
#[derive(Debug, Default)]
pub(crate) struct Direct(Vec<Pattern>);

#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    All,
    /// A network: its address and how many bits of it count.
    Network(IpAddr, u8),
    /// A host or what is below a domain, at a port or any; with the dot, not the domain
    /// itself.
    Name(String, Option<u16>),
}

impl Direct {
    /// Those of NO_PROXY, or no_proxy.
    pub(crate) fn of_environment() -> Self {
        let set = ["NO_PROXY", "no_proxy"].into_iter().filter_map(|name| env::var(name).ok());
        Direct::of(set)
    }

    /// By the first of these that says anything.
    fn of(mut set: impl Iterator<Item = String>) -> Self {
        Direct::parse(&set.find(|text| !text.is_empty()).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let words = text.split(|c: char| c == ',' || c.is_whitespace());
        Direct(words.filter(|word| !word.is_empty()).map(Pattern::parse).collect())
    }

    /// Whether a URL is reached without a proxy. This host is, always.
    pub(crate) fn has(&self, url: &Uri) -> bool {
        let host = url.host().unwrap_or_default().to_ascii_lowercase();
        let host = host.trim_end_matches('.');
        let address = bare(host).parse::<IpAddr>().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let usual = if url.scheme_str() == Some("http") { 80 } else { 443 };
        let port = url.port_u16().unwrap_or(usual);
        self.0.iter().any(|pattern| match pattern {
            Pattern::All => true,
            Pattern::Network(network, bits) => {
                address.is_some_and(|address| is_in(address, *network, *bits))
            }
            Pattern::Name(name, at) => at.is_none_or(|at| at == port) && is_below(bare(host), name),
        })
    }
}

impl Pattern {
    fn parse(word: &str) -> Self {
        let word = word.to_ascii_lowercase();
        if word == "*" {
            return Pattern::All;
        }
        if let Some((address, bits)) = word.split_once('/')
            && let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse())
        {
            return Pattern::Network(address, bits);
        }
        // an address of version 6 has colons and no port, unless it is in brackets
        if let Ok(address) = bare(&word).parse::<IpAddr>() {
            return Pattern::Network(address, 128);
        }
        let (name, port) = match word.rsplit_once(':').map(|(name, port)| (name, port.parse())) {
            Some((name, Ok(port))) => (name, Some(port)),
            _ => (word.as_str(), None),
        };
        Pattern::Name(bare(name.strip_prefix('*').unwrap_or(name)).to_owned(), port)
    }
}

/// Without the brackets of an address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn is_below(host: &str, name: &str) -> bool {
    match name.strip_prefix('.') {
        Some(_) => host.ends_with(name),
        None => host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
    }
}

fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let ((one, width), (other, other_width)) = (number(address), number(network));
    let rest = width - u32::from(bits).min(width);
    width == other_width && (rest == 128 || one >> rest == other >> rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_hides_no_other() {
        let url = "https://r.io/".parse().unwrap();
        let has = |set: &[&str]| Direct::of(set.iter().map(|&text| text.to_owned())).has(&url);
        assert!(has(&["", "r.io"]) && has(&["r.io", ""]));
        assert!(!has(&["a.io", "r.io"]) && !has(&["", ""]) && !has(&[]));
    }

    #[test]
    fn what_is_reached_without_a_proxy() {
        let direct = |list: &str, url: &str| Direct::parse(list).has(&url.parse().unwrap());
        for (list, url) in [
            ("", "http://localhost:5000/v2/"),
            ("", "http://127.3.2.1/"),
            ("", "http://[::1]:80/"),
            ("*", "https://r.io/"),
            ("r.io", "https://r.io/x"),
            ("r.io", "https://a.R.io:5000/x"),
            (".r.io", "https://a.r.io/x"),
            ("*.r.io", "https://a.b.r.io/x"),
            ("x.io, r.io:5000", "https://r.io:5000/"),
            ("r.io:443", "https://r.io/"),
            ("r.io:80", "http://r.io/"),
            ("10.0.0.0/8", "http://10.200.0.1:5000/"),
            ("10.1.2.3", "http://10.1.2.3:5000/"),
            ("fd00::/8", "http://[fd12::1]:5000/"),
            ("[fd12::1]:5000", "http://[fd12::1]:5000/"),
            ("fd12::1", "http://[fd12::1]/"),
            ("0.0.0.0/0", "http://8.8.8.8/"),
        ] {
            assert!(direct(list, url), "{list} {url}");
        }
        for (list, url) in [
            ("", "https://r.io/"),
            ("r.io", "https://r.io.example/"),
            ("r.io", "https://bar.io/"),
            (".r.io", "https://r.io/"),
            ("r.io:5000", "https://r.io/"),
            ("10.0.0.0/8", "http://11.0.0.1/"),
            ("10.0.0.0/8", "http://[fd12::1]/"),
            ("::/0", "http://10.0.0.1/"),
            ("10.0.0.0/x", "http://10.0.0.1/"),
            ("128.0.0.1", "http://128.0.0.2/"),
        ] {
            assert!(!direct(list, url), "{list} {url}");
        }
    }
}
