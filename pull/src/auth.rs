//! From a registry's challenge to what opens it: Basic, or a token of its token
//! server (distribution-spec's token authentication, OAuth2's refresh tokens).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tare::error::{Error, ErrorKind, Result};
use ureq::http::{HeaderMap, Uri};

use crate::credentials::Credentials;
use crate::http::{Client, Request, place};
use crate::retry::retrying;

/// Bytes of a token server's answer.
const TOKEN: u64 = 1 << 20;

/// What a registry wants (RFC 9110, 11.6.1).
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The value of Authorization that answers a 401.
///
/// # Errors
/// No credentials where some are needed; what the token server says.
pub(crate) fn answer(
    client: &Client,
    from: &Uri,
    headers: &HeaderMap,
    repository: &str,
    credentials: Option<&Credentials>,
) -> Result<String> {
    let values = headers.get_all("www-authenticate").iter();
    let all: Vec<Challenge> = values.filter_map(|v| v.to_str().ok()).flat_map(challenges).collect();
    let bearer = all.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
    match bearer.or(all.first()) {
        Some(Challenge::Bearer { realm, service, scope }) => {
            if let Some(token) = credentials.and_then(|c| c.bearer.as_ref()) {
                return Ok(format!("Bearer {token}"));
            }
            let scope = scope.clone().unwrap_or_else(|| format!("repository:{repository}:pull"));
            let url = token_server(realm, from)?;
            let asked = Asked { url, service: service.as_deref(), scope: &scope };
            asked.token(client, credentials).map_err(|e| e.step("token"))
        }
        Some(Challenge::Basic) => match credentials.and_then(|c| c.basic.as_ref()) {
            Some((user, password)) => Ok(basic(user, password)),
            None => Err(no_login(&place(from))),
        },
        None => Err(Error::unsupported(format!(
            "{} wants to be logged in to, but neither by Basic nor by Bearer",
            place(from)
        ))),
    }
}

/// The error that credentials are missing.
fn no_login(registry: &str) -> Error {
    Error::new(ErrorKind::State, format!("{registry} wants a name and a password"))
        .hint("podman, skopeo or docker login writes them down, or give --auth-file")
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// The realm's URL. Credentials go there, so it is no less safe than the registry.
fn token_server(realm: &str, from: &Uri) -> Result<Uri> {
    let wrong = || Error::invalid(format!("{realm:.200?} is no URL of a token server"));
    let url: Uri = realm.parse().map_err(|_not_a_url| wrong())?;
    match (url.scheme_str(), from.scheme_str()) {
        (Some("https"), _) | (Some("http"), Some("http")) if url.host().is_some() => Ok(url),
        (Some("http"), _) => Err(Error::invalid(format!("{} is without TLS", place(&url)))),
        _ => Err(wrong()),
    }
}

/// What to ask a token server for.
struct Asked<'a> {
    url: Uri,
    service: Option<&'a str>,
    scope: &'a str,
}

impl Asked<'_> {
    fn token(&self, client: &Client, credentials: Option<&Credentials>) -> Result<String> {
        let (url, request) = self.request(credentials)?;
        let reply = retrying(|| {
            let reply = client.send(&url, &request)?;
            crate::registry::check_busy(reply)
        })?;
        let status = reply.status;
        if status != 200 {
            let words = reply.words().map_or(String::new(), |words| format!(": {words}"));
            let e =
                Error::new(ErrorKind::State, format!("{} answers {status}{words}", place(&url)));
            return Err(match status {
                401 | 403 if credentials.is_some() => e.hint("are the credentials still good?"),
                _ => e,
            });
        }
        let body = reply.read(TOKEN).map_err(|f| f.error)?;
        let answer: Answer = tare::json::parse(&body)?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| Error::invalid("the answer has none"))?;
        match token.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(format!("Bearer {token}")),
            false => Err(Error::invalid("the answer's can't be sent")),
        }
    }

    fn request(&self, credentials: Option<&Credentials>) -> Result<(Uri, Request)> {
        let mut words = Vec::new();
        let mut add = |name: &str, value: &str| {
            words.push(format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        };
        if let Some(service) = self.service {
            add("service", service);
        }
        add("scope", self.scope);
        if let Some(identity) = credentials.and_then(|c| c.identity.as_ref()) {
            add("grant_type", "refresh_token");
            add("client_id", "tare");
            add("refresh_token", identity);
            let form = Some(words.join("&"));
            return Ok((self.url.clone(), Request { form, ..Request::default() }));
        }
        let login = credentials.and_then(|c| c.basic.as_ref());
        if let Some((user, _)) = login {
            add("account", user);
        }
        let mark = if self.url.query().is_some() { '&' } else { '?' };
        let url = format!("{}{mark}{}", self.url, words.join("&"));
        let url = url.parse().map_err(|e| Error::invalid(format!("{e}")))?;
        let authorization = login.map(|(user, password)| basic(user, password));
        Ok((url, Request { authorization, ..Request::default() }))
    }
}

/// The challenges of one header's value: `Bearer realm="…",service="…", Basic …`.
fn challenges(value: &str) -> Vec<Challenge> {
    let mut all = Vec::new();
    let mut rest = value.trim_start();
    while let Some((scheme, after)) = word(rest) {
        let mut parameters = Vec::new();
        rest = after;
        while let Some((name, text, after)) = parameter(rest) {
            parameters.push((name.to_ascii_lowercase(), text));
            rest = after.trim_start_matches([',', ' ', '\t']);
        }
        let get = |name: &str| {
            let found = parameters.iter().find(|(n, _)| n == name);
            found.map(|(_, text)| text.clone())
        };
        match (scheme.to_ascii_lowercase().as_str(), get("realm")) {
            ("basic", _) => all.push(Challenge::Basic),
            ("bearer", Some(realm)) => {
                let (service, scope) = (get("service"), get("scope"));
                all.push(Challenge::Bearer { realm, service, scope });
            }
            _ => {}
        }
    }
    all
}

/// A token, and what comes after it.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches([',', ' ', '\t']);
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.~+!#$%&'*^`|".contains(c);
    let end = text.find(|c| !known(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(end)?;
    (!word.is_empty()).then(|| (word, rest.trim_start()))
}

/// `name=value` or `name="value"`, and what comes after it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = word(text)?;
    let rest = rest.strip_prefix('=')?.trim_start();
    let Some(quoted) = rest.strip_prefix('"') else {
        let (value, rest) = word(rest)?;
        return Some((name, value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((name, value, quoted.get(at + 1..)?.trim_start())),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        };
        let usual = r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull,push""#;
        let whole = bearer("https://a/t", Some("s"), Some("repository:x:pull,push"));
        assert_eq!(challenges(usual), [whole]);
        let two = r#"Basic realm="a, b \" Bearer", bearer Realm=r"#;
        assert_eq!(challenges(two), [Challenge::Basic, bearer("r", None, None)]);
        assert_eq!(challenges("Basic"), [Challenge::Basic]);
        for none in
            ["", "Bearer", "Negotiate abc==", "Bearer realm=\"x", "=", ",,", "\"\"", "Bearer =ä"]
        {
            assert_eq!(challenges(none), [], "{none}");
        }
    }

    #[test]
    fn a_token_server_is_no_less_safe_than_the_registry() {
        let (tls, plain) = ("https://r.io/".parse().unwrap(), "http://r.io/".parse().unwrap());
        assert!(token_server("https://t.io/x", &tls).is_ok());
        assert!(token_server("http://t.io/x", &plain).is_ok());
        assert!(token_server("http://t.io/x", &tls).is_err());
        assert!(token_server("/x", &plain).is_err());
    }
}
