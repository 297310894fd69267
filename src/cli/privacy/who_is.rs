//! `avow audit who-is`: whether a pseudonym is of this address or Client Identifier, and what
//! theirs is.
//!
//! A pseudonym cannot be turned back; it can be compared, for as long as its key exists. Every
//! question leaves a `query` entry, which names the pseudonym and never what stands behind it.

use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use serde_json::json;

use super::PrivacyFault;
use super::keys::{PseudonymKeys, StoredKey};
use crate::cli::record::Recorder;
use crate::cli::{Answer, CliFailure, show};
use crate::evidence::{PseudonymKey, pseudonym_key_id};

/// Addresses of a block that are tried, as a power of two: about ten seconds.
const SEARCH_BITS_MAX: u8 = 24;

/// Ask who stands behind a pseudonym, or what somebody's pseudonym is (exit 0 or 1)
#[derive(Args, Debug)]
pub(in crate::cli) struct WhoIsArguments {
    /// A pseudonym, as entries have it in `peer` or `client`; without it, those of --peer or
    /// --client-id are shown, under every key that exists
    #[arg(value_name = "PSEUDONYM", required_unless_present_any = ["peer", "client_id"])]
    pseudonym: Option<String>,
    /// The address to compare with
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<IpAddr>,
    /// The Client Identifier to compare with
    #[arg(long, value_name = "ID", conflicts_with = "peer")]
    client_id: Option<String>,
    /// A block of addresses to try, of at most 2^24
    #[arg(long = "in", value_name = "NETWORK", requires = "pseudonym",
        conflicts_with_all = ["peer", "client_id"])]
    network: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(dir: &Path, arguments: &WhoIsArguments) -> Result<Answer, CliFailure> {
    let config = crate::cli::configuration(dir)?;
    let keys = PseudonymKeys::open(&config.privacy.keys)?;
    let (subject, found) = match &arguments.pseudonym {
        Some(pseudonym) => (pseudonym.clone(), compare(&keys, pseudonym, arguments)?),
        None => {
            let all = pseudonyms(keys.all(), arguments);
            let newest = all.last().cloned().unwrap_or_default();
            (newest, Found::Pseudonyms(all))
        }
    };
    // The entry stands before the answer is given.
    let mut recorder = Recorder::open(&config)?;
    recorder.record("pseudonym.resolve", &subject, &[])?;
    recorder.close()?;
    found.show(&subject, arguments.json);
    Ok(found.answer())
}

/// What was found out.
enum Found {
    /// The pseudonym is of this.
    Who(String),
    /// It is of nothing that it was compared with.
    Nobody,
    /// These are the pseudonyms of what was asked for.
    Pseudonyms(Vec<String>),
}

impl Found {
    fn answer(&self) -> Answer {
        match self {
            Self::Who(_) => Answer::Yes,
            Self::Pseudonyms(all) if !all.is_empty() => Answer::Yes,
            Self::Nobody | Self::Pseudonyms(_) => Answer::No,
        }
    }

    fn show(&self, subject: &str, as_json: bool) {
        match (self, as_json) {
            (Self::Who(who), true) => show::json(&json!({ "pseudonym": subject, "who": who })),
            (Self::Who(who), false) => show::line(&format!("{subject} is {who}")),
            (Self::Nobody, true) => show::json(&json!({ "pseudonym": subject, "who": null })),
            (Self::Nobody, false) => show::line(&format!("{subject} is somebody else")),
            (Self::Pseudonyms(all), true) => show::json(&json!({ "pseudonyms": all })),
            (Self::Pseudonyms(all), false) if all.is_empty() => {
                show::line("there is no key yet, so there are no pseudonyms");
            }
            (Self::Pseudonyms(all), false) => show::line(&all.join("\n")),
        }
    }
}

fn compare(
    keys: &PseudonymKeys,
    pseudonym: &str,
    arguments: &WhoIsArguments,
) -> Result<Found, PrivacyFault> {
    let id = pseudonym_key_id(pseudonym);
    let id = id.ok_or_else(|| PrivacyFault::NoPseudonym(pseudonym.to_owned()))?;
    let key = keys.all().iter().find(|stored| stored.key.id() == id);
    let key = &key.ok_or(PrivacyFault::KeyGone(id))?.key;
    let found = match (&arguments.network, arguments.peer, &arguments.client_id) {
        (Some(network), ..) => search(key, pseudonym, network)?.map(|found| found.to_string()),
        (None, Some(peer), _) => (key.of_address(peer) == pseudonym).then(|| peer.to_string()),
        (None, None, Some(client_id)) => {
            (key.of_client(client_id) == pseudonym).then(|| client_id.clone())
        }
        (None, None, None) => return Err(PrivacyFault::NothingToCompare),
    };
    Ok(found.map_or(Found::Nobody, Found::Who))
}

/// The pseudonyms of what was asked for, under each of the keys.
fn pseudonyms(keys: &[StoredKey], arguments: &WhoIsArguments) -> Vec<String> {
    let of = |stored: &StoredKey| match (arguments.peer, &arguments.client_id) {
        (Some(peer), _) => Some(stored.key.of_address(peer)),
        (None, Some(client_id)) => Some(stored.key.of_client(client_id)),
        (None, None) => None,
    };
    keys.iter().filter_map(of).collect()
}

/// The address of a block that has this pseudonym.
fn search(
    key: &PseudonymKey,
    pseudonym: &str,
    network: &str,
) -> Result<Option<IpAddr>, PrivacyFault> {
    let no_network = || PrivacyFault::Network(network.to_owned());
    let block = crate::limits::Network::parse(network).ok_or_else(no_network)?;
    let (first, behind_bits) = block.first();
    if behind_bits > SEARCH_BITS_MAX {
        return Err(no_network());
    }
    let address = |offset: u32| match first {
        IpAddr::V4(first) => IpAddr::from(first.to_bits().saturating_add(offset).to_be_bytes()),
        IpAddr::V6(first) => {
            IpAddr::from(first.to_bits().saturating_add(offset.into()).to_be_bytes())
        }
    };
    Ok((0..1_u32 << behind_bits).map(address).find(|it| key.of_address(*it) == pseudonym))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_its_block_and_nowhere_else() {
        let key = PseudonymKey::new(1, &[3; 32]);
        for (address, block, other) in [
            ("10.1.255.255", "10.1.0.0/16", "10.2.0.0/16"),
            ("255.255.255.255", "255.255.255.0/24", "10.2.0.0/24"),
            ("2001:db8::7", "2001:db8::/120", "2001:db8:1::/120"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            let pseudonym = key.of_address(address);
            assert_eq!(search(&key, &pseudonym, block).unwrap(), Some(address));
            assert_eq!(search(&key, &pseudonym, other).unwrap(), None);
        }
        for bad in ["0.0.0.0/7", "::/103", "10.0.0.1/8", "x"] {
            assert!(matches!(search(&key, "", bad), Err(PrivacyFault::Network(_))), "{bad}");
        }
    }
}
