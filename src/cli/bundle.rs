//! What a client is given: `key.pem cert.pem ca.pem connect.json`, in a directory of its own.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::{self, Access, FileFault, create, create_dir, require_absent};
use crate::identity::Role;
use crate::identity::authority::Credential;

/// `connect.json`: how to reach the broker with the files beside it. Paths are relative to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectFile {
    /// Version of this file: 1.
    pub(super) version: u32,
    /// Host to connect to; the server certificate names it.
    pub(super) host: String,
    /// Port to connect to.
    pub(super) port: u16,
    /// Who the certificate says its holder is.
    pub(super) identity: String,
    /// A Client Identifier that the shipped policy permits.
    pub(super) client_id: String,
    /// PEM of the CA that the broker's certificate chains to.
    pub(super) ca: String,
    /// PEM of the client certificate and its issuing CA.
    pub(super) cert: String,
    /// PEM of its private key.
    pub(super) key: String,
}

/// A bundle to be written.
pub(super) struct Bundle<'a> {
    pub(super) role: Role,
    pub(super) name: &'a str,
    pub(super) identity: &'a str,
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) credential: &'a Credential,
    pub(super) ca_pem: &'a str,
}

/// The files of a bundle in `dir`.
pub(super) fn paths(dir: &Path) -> [PathBuf; 4] {
    ["key.pem", "cert.pem", "ca.pem", "connect.json"].map(|name| dir.join(name))
}

impl Bundle<'_> {
    /// Writes the four files into `dir`, made if it is not there; refuses to overwrite any.
    pub(super) fn write(&self, dir: &Path) -> Result<(), FileFault> {
        let paths = paths(dir);
        require_absent(&paths)?;
        create_dir(dir)?;
        let connect = ConnectFile {
            version: 1,
            host: self.host.to_owned(),
            port: self.port,
            identity: self.identity.to_owned(),
            client_id: self.name.to_owned(),
            ca: "ca.pem".to_owned(),
            cert: "cert.pem".to_owned(),
            key: "key.pem".to_owned(),
        };
        // A struct of texts and numbers has no value that JSON lacks.
        let connect = serde_json::to_string_pretty(&connect).unwrap_or_default() + "\n";
        let [key, cert, ca, json] = &paths;
        create(key, Access::Private, self.credential.key_pem.as_bytes())?;
        create(cert, Access::Public, self.credential.certificate_pem.as_bytes())?;
        create(ca, Access::Public, self.ca_pem.as_bytes())?;
        create(json, Access::Public, connect.as_bytes())
    }

    /// A line for mosquitto's clients that works with the shipped policy and schemas.
    pub(super) fn mosquitto_line(&self, dir: &Path) -> String {
        let (verb, what) = match self.role {
            Role::Device => {
                let topic = format!("plant/{}/sealed/hello", self.name);
                ("pub", format!("-q 1 -t {topic} -m hello"))
            }
            Role::Dashboard | Role::Operator | Role::Auditor => {
                ("sub", "-q 1 -v -t 'plant/#'".to_owned())
            }
        };
        let [key, cert, ca, _] = paths(dir).map(|path| quote(&path.display().to_string()));
        format!(
            "mosquitto_{verb} -h {} -p {} --cafile {ca} --cert {cert} --key {key} -V mqttv5 -i {} \
             {what}",
            self.host, self.port, self.name
        )
    }
}

/// A note for each bundle below `clients` whose `connect.json` names another port than `port`.
pub(super) fn stale(clients: &Path, port: u16) -> Vec<String> {
    let mut notes = Vec::new();
    for path in files::subdirectories(clients) {
        let path = path.join("connect.json");
        let read = files::read(&path).ok();
        let connect = read.and_then(|text| serde_json::from_str::<ConnectFile>(&text).ok());
        if let Some(connect) = connect.filter(|connect| connect.port != port) {
            notes.push(format!(
                "{}: note: leads to port {}, and `mqtt` of [listen] says {port}; write \
                 `\"port\": {port}` there if the bundle is in use",
                path.display(),
                connect.port
            ));
        }
    }
    notes
}

/// `text` for a POSIX shell.
pub(super) fn quote(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:@%".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_for_a_shell_only_where_it_must_be() {
        assert_eq!(quote("/a/b-1.pem"), "/a/b-1.pem");
        assert_eq!(quote("/my dir/it's"), r"'/my dir/it'\''s'");
    }
}
