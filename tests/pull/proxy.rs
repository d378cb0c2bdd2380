//! Proxies that the environment names.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::server::{Server, Shop};

/// A name that no server for names knows.
const NAME: &str = "registry.invalid:5000/box:v1";

/// A proxy that takes every CONNECT to one place, or refuses it.
struct Proxy {
    address: SocketAddr,
    /// What was asked for: the first line and the headers.
    log: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn to(server: Option<&Server>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (seen, target) = (log.clone(), server.map(|server| server.address));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = seen.clone();
                std::thread::spawn(move || serve(stream, &seen, target).unwrap_or_default());
            }
        });
        Proxy { address, log }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<String>>,
    target: Option<SocketAddr>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    log.lock().unwrap().push(head);
    let Some(target) = target else {
        return stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    };
    let mut far = TcpStream::connect(target)?;
    stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    let mut back = far.try_clone()?;
    let there = std::thread::spawn(move || {
        std::io::copy(&mut back, &mut stream).map(drop).unwrap_or_default();
        stream.shutdown(std::net::Shutdown::Both).unwrap_or_default();
    });
    std::io::copy(&mut reader, &mut far)?;
    far.shutdown(std::net::Shutdown::Write)?;
    there.join().unwrap();
    Ok(())
}

/// A pull with these variables and no other proxies; the error, if it failed.
fn pull(shop: &Shop, name: &str, variables: &[(&str, &str)]) -> Result<(), String> {
    let mut command: Command = shop.scene.command(&["image", "pull", "--plain-http"]);
    command.args(["--insecure", "--quiet", "--name", "box", name]);
    command.env("HOME", shop.scene.path("home"));
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"] {
        command.env_remove(variable).env_remove(variable.to_lowercase());
    }
    command.envs(variables.iter().copied());
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    output.status.success().then_some(()).ok_or(error)
}

#[test]
fn a_registry_is_reached_through_the_proxy() {
    let shop = Shop::new();
    let server = shop.serve(|_| None);
    let proxy = Proxy::to(Some(&server));
    let url = format!("http://{}", proxy.address);
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        pull(&shop, NAME, &[(variable, &url)]).unwrap();
        let asked = proxy.asked();
        assert!(!asked.is_empty());
        for head in asked {
            assert!(head.starts_with("CONNECT registry.invalid:5000 HTTP/1.1\r\n"), "{head}");
        }
        assert_eq!(server.requests("/manifests/v1")[0].header("host"), "registry.invalid:5000");
        shop.assert_pulled();
        shop.scene.ok(&["image", "rm", "box"]);
    }
    // without the scheme, and with a password
    let bare = proxy.address.to_string();
    pull(&shop, NAME, &[("http_proxy", &bare)]).unwrap();
    proxy.asked();
    let named = format!("http://ann:s3cret@{}", proxy.address);
    pull(&shop, NAME, &[("http_proxy", &named)]).unwrap();
    let asked = proxy.asked();
    // ann:s3cret
    let told = "proxy-authorization: basic yw5uonmzy3jlda==";
    assert!(asked.iter().all(|head| head.to_lowercase().contains(told)), "{asked:?}");
}

#[test]
fn what_is_to_be_reached_without_is() {
    let shop = Shop::new();
    let server = shop.serve(|_| None);
    let proxy = Proxy::to(Some(&server));
    let url = format!("http://{}", proxy.address);
    for list in ["registry.invalid", ".invalid", "x.io, registry.invalid:5000", "*"] {
        for variable in ["NO_PROXY", "no_proxy"] {
            let error = pull(&shop, NAME, &[("http_proxy", &url), (variable, list)]).unwrap_err();
            assert!(error.contains("no such host"), "{error}");
        }
    }
    // this host is in no list
    let own = format!("{}/box:v1", server.address);
    pull(&shop, &own, &[("http_proxy", &url), ("ALL_PROXY", &url)]).unwrap();
    assert_eq!(proxy.asked(), Vec::<String>::new());
    for list in ["other.invalid", "registry.invalid:80", "10.0.0.0/8", ".registry.invalid"] {
        pull(&shop, NAME, &[("http_proxy", &url), ("NO_PROXY", list)]).unwrap();
        assert!(!proxy.asked().is_empty(), "{list}");
    }
    // what a web server's caller says is no setting
    let cgi = [("HTTP_PROXY", url.as_str()), ("REQUEST_METHOD", "GET")];
    let error = pull(&shop, NAME, &cgi).unwrap_err();
    assert!(error.contains("no such host"), "{error}");
}

#[test]
fn a_proxy_that_is_of_no_use_is_named() {
    let shop = Shop::new();
    let refusing = Proxy::to(None);
    let url = format!("http://{}", refusing.address);
    let error = pull(&shop, NAME, &[("http_proxy", &url)]).unwrap_err();
    assert!(error.contains("proxy") && error.contains("403"), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    let error = pull(&shop, NAME, &[("http_proxy", "ftp://x:1")]).unwrap_err();
    assert!(error.contains("http_proxy: "), "{error}");
    shop.scene.assert_store_is_empty();
}
