//! Pseudonyms: what stands in an entry in place of a peer's address or a Client Identifier.
//!
//! ```text
//! pseudonym   k<id of the key> . base64url of the first 16 bytes of
//!             HMAC-SHA-256(key, "peer" ‖ 0 ‖ address)        an address, as text, without its port
//!             HMAC-SHA-256(key, "client" ‖ 0 ‖ identifier)   a Client Identifier
//!             HMAC-SHA-256(key, "subject" ‖ 0 ‖ text)        a person whose data was erased
//! ```
//!
//! Whoever has the key can tell whether a pseudonym is of this address or of that one; without it,
//! nobody can. So what a key named is erased by destroying the key, although the entries stay. No
//! file is read here and no key is made: the shell does both. The invariant: where a pseudonym is
//! wanted and there is no key, nothing is written, never the plain text.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Length of a pseudonym's key, in bytes.
pub const PSEUDONYM_KEY_BYTES: usize = 32;
/// Length of a pseudonym before it is text, in bytes.
const PSEUDONYM_BYTES: usize = 16;
/// Length of that as text.
const PSEUDONYM_DIGITS: usize = 22;

/// A key that pseudonyms are made with, and its number.
#[derive(Clone)]
pub struct PseudonymKey {
    id: u32,
    key: hmac::Key,
}

/// How entries hold something that tells of a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// As it is.
    Plain,
    /// As a pseudonym.
    #[default]
    Pseudonym,
    /// Not at all.
    None,
}

/// What entries hold of the peers' addresses and Client Identifiers.
#[derive(Clone, Debug)]
pub struct Privacy {
    /// Addresses.
    pub peer_address: Shown,
    /// Client Identifiers.
    pub client_id: Shown,
    /// What pseudonyms are made with.
    pub key: Option<Arc<PseudonymKey>>,
}

impl PseudonymKey {
    /// The key with this number, from 1.
    pub fn new(id: u32, bytes: &[u8; PSEUDONYM_KEY_BYTES]) -> Self {
        Self { id, key: hmac::Key::new(hmac::HMAC_SHA256, bytes) }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The pseudonym of an address.
    pub fn of_address(&self, address: IpAddr) -> String {
        // An IPv4 address is the same however it came.
        self.of(b"peer\0", address.to_canonical().to_string().as_bytes())
    }

    /// The pseudonym of a Client Identifier.
    pub fn of_client(&self, client_id: &str) -> String {
        self.of(b"client\0", client_id.as_bytes())
    }

    /// The pseudonym of a person whose data payloads are.
    pub fn of_subject(&self, subject: &str) -> String {
        self.of(b"subject\0", subject.as_bytes())
    }

    fn of(&self, kind: &[u8], value: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(kind);
        context.update(value);
        let tag = context.sign();
        let digits = tag.as_ref().get(..PSEUDONYM_BYTES).unwrap_or_default();
        format!("k{}.{}", self.id, URL_SAFE_NO_PAD.encode(digits))
    }
}

/// Its number alone.
impl fmt::Debug for PseudonymKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PseudonymKey({})", self.id)
    }
}

/// The number of the key that a pseudonym was made with; `None` if the text is none.
pub fn pseudonym_key_id(text: &str) -> Option<u32> {
    let (id, digits) = text.strip_prefix('k')?.split_once('.')?;
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_form = digits.len() == PSEUDONYM_DIGITS && digits.bytes().all(is_digit);
    let id: u32 = id.bytes().all(|byte| byte.is_ascii_digit()).then(|| id.parse().ok())??;
    (is_form && id > 0).then_some(id)
}

impl Privacy {
    /// Everything as it is: for tests, and for whoever says so.
    pub const PLAIN: Self = Self { peer_address: Shown::Plain, client_id: Shown::Plain, key: None };

    /// What an entry holds of a peer's address; of its port only in plain.
    pub fn peer(&self, address: IpAddr, port: Option<u16>) -> Option<String> {
        match (self.peer_address, port) {
            (Shown::Plain, Some(port)) => {
                Some(std::net::SocketAddr::new(address, port).to_string())
            }
            (Shown::Plain, None) => Some(address.to_string()),
            (Shown::Pseudonym, _) => self.key.as_ref().map(|key| key.of_address(address)),
            (Shown::None, _) => None,
        }
    }

    /// What an entry holds of a Client Identifier.
    pub fn client<'a>(&self, client_id: &'a str) -> Option<Cow<'a, str>> {
        match self.client_id {
            Shown::Plain => Some(Cow::Borrowed(client_id)),
            Shown::Pseudonym => self.key.as_ref().map(|key| key.of_client(client_id).into()),
            Shown::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u32) -> PseudonymKey {
        PseudonymKey::new(id, &[7; PSEUDONYM_KEY_BYTES])
    }

    /// By Python: `hmac.new(b"\x07"*32, b"peer\0192.0.2.7", "sha256").digest()[:16]`.
    #[test]
    fn vectors() {
        let address = "192.0.2.7".parse().unwrap();
        assert_eq!(key(3).of_address(address), "k3.TZYfuGQxA1qtJv8rfGjgmw");
        assert_eq!(key(3).of_client("press-7"), "k3.974mW6x9RTa8vfJuQdAaMg");
    }

    #[test]
    fn a_pseudonym_tells_its_key_and_its_kind_and_nothing_else() {
        let one = key(1).of_address("192.0.2.7".parse().unwrap());
        assert_eq!(pseudonym_key_id(&one), Some(1));
        assert_eq!(one, key(1).of_address("::ffff:192.0.2.7".parse().unwrap()));
        assert_ne!(one, key(1).of_address("192.0.2.8".parse().unwrap()));
        assert_ne!(one, key(1).of_client("192.0.2.7"));
        assert_ne!(one, PseudonymKey::new(1, &[8; 32]).of_address("192.0.2.7".parse().unwrap()));
        for bad in ["", "k1", "k0.AAAAAAAAAAAAAAAAAAAAAA", "k1.AAAA", "1.2.3.4", "k+1.x", "kx.y"] {
            assert_eq!(pseudonym_key_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn without_a_key_nothing_is_written_where_a_pseudonym_is_wanted() {
        let address = "192.0.2.7".parse().unwrap();
        let mut privacy =
            Privacy { peer_address: Shown::Pseudonym, client_id: Shown::Pseudonym, key: None };
        assert_eq!((privacy.peer(address, Some(1)), privacy.client("x")), (None, None));
        privacy.key = Some(Arc::new(key(2)));
        assert_eq!(privacy.peer(address, Some(1)), privacy.peer(address, None));
        assert!(privacy.client("x").unwrap().starts_with("k2."));
        privacy.peer_address = Shown::None;
        assert_eq!(privacy.peer(address, None), None);
        assert_eq!(Privacy::PLAIN.peer(address, Some(1)).as_deref(), Some("192.0.2.7:1"));
        assert_eq!(Privacy::PLAIN.peer(address, None).as_deref(), Some("192.0.2.7"));
        assert_eq!(Privacy::PLAIN.client("x").as_deref(), Some("x"));
    }
}
