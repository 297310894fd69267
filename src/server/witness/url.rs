//! Where a witness takes checkpoints: its submission prefix.
//!
//! The invariant: what is asked over plain HTTP never leaves this machine.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;

use crate::evidence::witness::ADD_CHECKPOINT;

/// A submission prefix that was read.
#[derive(Clone, PartialEq, Eq)]
pub struct SubmissionUrl {
    /// Whether TLS is spoken.
    pub is_https: bool,
    /// Name or address, without the brackets of an IPv6 address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port as the Host field has them.
    pub authority: String,
    /// The path that is posted to.
    pub path: String,
}

/// Why a URL is no submission prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlProblem {
    /// It does not read as a URL with a scheme and a host.
    #[error("not a URL such as https://witness.example/")]
    Malformed,
    /// A scheme that is not spoken here.
    #[error("the scheme is neither https nor http")]
    Scheme,
    /// Plain HTTP to another machine.
    #[error("http reaches this machine alone (127.0.0.1, [::1], localhost); use https")]
    NotLoopback,
    /// A query, or a name and password.
    #[error("neither a query nor a user belongs into it")]
    Extra,
}

impl SubmissionUrl {
    /// Reads `https://host[:port]/prefix`, or `http://` where the host is this machine.
    ///
    /// # Errors
    /// See [`UrlProblem`].
    pub fn parse(text: &str) -> Result<Self, UrlProblem> {
        let uri: Uri = text.parse().map_err(|_| UrlProblem::Malformed)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(UrlProblem::Malformed);
        };
        let is_https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(UrlProblem::Scheme),
        };
        if uri.query().is_some() || authority.as_str().contains('@') || text.contains('#') {
            return Err(UrlProblem::Extra);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_loopback = host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if host.is_empty() {
            return Err(UrlProblem::Malformed);
        }
        if !is_https && !is_loopback {
            return Err(UrlProblem::NotLoopback);
        }
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let path = format!("{}/{ADD_CHECKPOINT}", uri.path().trim_end_matches('/'));
        Ok(Self { is_https, host, port, authority: authority.as_str().to_owned(), path })
    }
}

impl fmt::Display for SubmissionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl fmt::Debug for SubmissionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_gains_the_last_part_of_its_path() {
        for (text, expected, host, port) in [
            ("https://w.example", "https://w.example/add-checkpoint", "w.example", 443),
            ("https://w.example/a/", "https://w.example/a/add-checkpoint", "w.example", 443),
            ("http://127.0.0.1:8088", "http://127.0.0.1:8088/add-checkpoint", "127.0.0.1", 8088),
            ("http://[::1]:1/x", "http://[::1]:1/x/add-checkpoint", "::1", 1),
            ("http://localhost/", "http://localhost/add-checkpoint", "localhost", 80),
        ] {
            let url = SubmissionUrl::parse(text).unwrap();
            assert_eq!(
                (url.to_string().as_str(), url.host.as_str(), url.port),
                (expected, host, port)
            );
        }
    }

    #[test]
    fn other_urls_are_refused() {
        for (text, problem) in [
            ("w.example", UrlProblem::Malformed),
            ("/add", UrlProblem::Malformed),
            ("https://", UrlProblem::Malformed),
            ("ftp://w.example/", UrlProblem::Scheme),
            ("http://w.example/", UrlProblem::NotLoopback),
            ("http://127.0.0.1.w.example/", UrlProblem::NotLoopback),
            ("https://me:secret@w.example/", UrlProblem::Extra),
            ("https://w.example/?x", UrlProblem::Extra),
        ] {
            assert_eq!(SubmissionUrl::parse(text), Err(problem), "{text}");
        }
    }
}
