//! What a request is answered: which file of the log it names, or why it is denied.
//!
//! A path names a file only if it is, letter for letter, the path of a tile as C2SP tlog-tiles writes
//! it, or one of the two checkpoints: nothing else of the directory can be asked for, however it is
//! written. No judgement about content: whoever mirrors a log checks it.

#![expect(clippy::disallowed_methods, reason = "reads the files of the log")]

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN};
use hyper::{Method, Request, Response, StatusCode};

use crate::evidence::tile::{ENTRY_BYTES_MAX, TILE_WIDTH, Tile};
use crate::identity::{Identity, Role};
use crate::storage::checkpoint_store::CHECKPOINT_FILE;
use crate::storage::cosigned::COSIGNED_FILE;

/// Largest file that is served, in bytes: a bundle of the longest entries, each with its length.
const FILE_BYTES_MAX: u64 = TILE_WIDTH as u64 * (ENTRY_BYTES_MAX as u64 + 2);

const TEXT: &str = "text/plain; charset=utf-8";
const BINARY: &str = "application/octet-stream";
/// For nobody's shared cache: readers are authenticated one by one.
const IMMUTABLE: &str = "private, max-age=31536000, immutable";
const FRESH: &str = "no-store";

/// Why a request is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// The certificate is that of another role.
    Role,
    /// A browser sent it for a page.
    Origin,
    /// It came too soon.
    TooMany,
    /// It is no GET.
    Method,
    /// It names no file of the log.
    Path,
}

impl Denial {
    /// The name in the log.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Role => "audit.role",
            Self::Origin => "audit.origin",
            Self::TooMany => "audit.rate",
            Self::Method => "audit.method",
            Self::Path => "audit.path",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Role | Self::Origin => StatusCode::FORBIDDEN,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Path => StatusCode::NOT_FOUND,
        }
    }
}

/// A file of the log, by its path in the log's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFile {
    path: String,
    content_type: &'static str,
    cache: &'static str,
}

/// What is sent.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    content_type: &'static str,
    cache: &'static str,
    body: Bytes,
}

/// The file that a request of `identity` names, or why it gets none.
pub(super) fn judge<B>(request: &Request<B>, identity: &Identity) -> Result<LogFile, Denial> {
    if identity.role() != Role::Auditor {
        return Err(Denial::Role);
    }
    if request.headers().contains_key(ORIGIN) {
        return Err(Denial::Origin);
    }
    if request.method() != Method::GET {
        return Err(Denial::Method);
    }
    if request.uri().query().is_some() {
        return Err(Denial::Path);
    }
    file(request.uri().path()).ok_or(Denial::Path)
}

fn file(path: &str) -> Option<LogFile> {
    let path = path.strip_prefix('/')?;
    let (path, content_type, cache) = match path {
        CHECKPOINT_FILE | COSIGNED_FILE => (path.to_owned(), TEXT, FRESH),
        // Made again from what was understood, so that no other letter reaches the disk.
        _ => (Tile::parse(path)?.path(), BINARY, IMMUTABLE),
    };
    Some(LogFile { path, content_type, cache })
}

impl LogFile {
    /// Reads it from the log in `directory`.
    pub(super) fn read(&self, directory: &Path) -> Answer {
        let mut body = Vec::new();
        let opened = std::fs::File::open(directory.join(&self.path));
        let read = opened.and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut body));
        match read {
            Ok(_) => Answer {
                status: StatusCode::OK,
                content_type: self.content_type,
                cache: self.cache,
                body: body.into(),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Answer::text(StatusCode::NOT_FOUND, "there is no such file of the log\n")
            }
            Err(error) => {
                tracing::error!(%error, file = self.path, "a file of the log is not read");
                Answer::unavailable()
            }
        }
    }
}

impl Answer {
    fn text(status: StatusCode, text: &'static str) -> Self {
        let body = Bytes::from_static(text.as_bytes());
        Self { status, content_type: TEXT, cache: FRESH, body }
    }

    /// The answer to what is denied.
    pub(super) fn denied(denial: Denial) -> Self {
        let text = match denial {
            Denial::Role => "auditors alone read the log\n",
            Denial::Origin => "no page reads the log\n",
            Denial::TooMany => "too many requests\n",
            Denial::Method => "GET alone\n",
            Denial::Path => "there is no such file of the log\n",
        };
        Self::text(denial.status(), text)
    }

    /// The answer where there is none now.
    pub(super) fn unavailable() -> Self {
        Self::text(StatusCode::SERVICE_UNAVAILABLE, "not now\n")
    }

    /// As HTTP has it.
    pub(super) fn response(self) -> Response<Full<Bytes>> {
        const NOSNIFF: HeaderName = hyper::header::X_CONTENT_TYPE_OPTIONS;
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(self.cache));
        headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(role: &str) -> Identity {
        Identity::parse(&format!("spiffe://p/{role}/x"), "p").unwrap()
    }

    fn request(method: &str, uri: &str) -> Request<()> {
        Request::builder().method(method).uri(uri).body(()).unwrap()
    }

    #[test]
    fn auditors_alone_get_files_of_the_log_alone() {
        let asked = |role: &str, method: &str, uri: &str| {
            judge(&request(method, uri), &identity(role)).map(|file| file.path)
        };
        for path in [
            "checkpoint",
            "witness/checkpoint",
            "tile/0/000",
            "tile/0/x001/067",
            "tile/1/000.p/17",
            "tile/entries/000.p/255",
        ] {
            assert_eq!(asked("auditor", "GET", &format!("/{path}")), Ok(path.to_owned()));
        }
        for role in ["device", "dashboard", "operator"] {
            assert_eq!(asked(role, "GET", "/checkpoint"), Err(Denial::Role));
        }
        assert_eq!(asked("auditor", "POST", "/checkpoint"), Err(Denial::Method));
        for path in [
            "/",
            "/checkpoint/",
            "//checkpoint",
            "/checkpoint?x=1",
            "/segments/00000000.seg",
            "/tile/0/../../checkpoint",
            "/tile/0/..%2f..%2fcheckpoint",
            "/tile/0/%30%30%30",
            "/tile/0/0",
            "/tile/0/000.p/256",
            "/tile/0/000.p/0",
            "/tile/64/000",
            "/tile/entries/../0/000",
            "/witness/../log.key",
            "/index/db",
        ] {
            assert_eq!(asked("auditor", "GET", path), Err(Denial::Path), "{path}");
        }
    }

    #[test]
    fn whoever_names_an_origin_is_denied_whatever_it_is() {
        for origin in ["https://plant.example", "null", ""] {
            let mut request = request("GET", "/checkpoint");
            request.headers_mut().insert(ORIGIN, origin.parse().unwrap());
            assert_eq!(judge(&request, &identity("auditor")), Err(Denial::Origin));
        }
    }

    #[test]
    fn tiles_may_be_kept_and_checkpoints_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("tile/0")).unwrap();
        std::fs::write(dir.path().join("tile/0/000"), [7; 8192]).unwrap();
        std::fs::write(dir.path().join("checkpoint"), "note\n").unwrap();
        let answer = |path: &str| file(path).unwrap().read(dir.path()).response();
        let header = |response: &Response<Full<Bytes>>, name: HeaderName| {
            response.headers()[name].to_str().unwrap().to_owned()
        };
        let tile = answer("/tile/0/000");
        assert_eq!(
            (tile.status(), header(&tile, CACHE_CONTROL)),
            (StatusCode::OK, IMMUTABLE.into())
        );
        assert_eq!(header(&tile, CONTENT_TYPE), BINARY);
        let checkpoint = answer("/checkpoint");
        assert_eq!(header(&checkpoint, CACHE_CONTROL), FRESH);
        assert_eq!(header(&checkpoint, CONTENT_TYPE), TEXT);
        let missing = answer("/tile/0/001");
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
        assert_eq!(header(&missing, CACHE_CONTROL), FRESH, "it may be there later");
    }
}
