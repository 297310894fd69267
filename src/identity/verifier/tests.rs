use std::net::{IpAddr, Ipv4Addr};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose as Eku, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

use super::*;
use crate::identity::authority::{Authority, Credential};
use crate::identity::issuer::Issuer;
use crate::identity::name::{NAME_BYTES_MAX, NameError, Role};
use crate::identity::testing::{NOW, Plant, date, days_from_now, ders, uri};

/// What [`identify`] says of `credential` at [`NOW`].
fn judge(credential: &Credential, issuers: &Issuers) -> Result<CertificateFacts, &'static str> {
    identify(&ders(credential), issuers, NOW).map_err(|refusal| refusal.name())
}

/// What it says of a certificate of `plant` that `change` made wrong.
fn judge_odd(
    plant: &Plant,
    change: impl FnOnce(&mut CertificateParams),
) -> Result<CertificateFacts, &'static str> {
    judge(&plant.odd(change), &plant.issuers())
}

/// A subjectAltName extension with these URIs, whatever their bytes.
fn raw_uris(uris: &[&[u8]]) -> CustomExtension {
    let names: Vec<u8> = uris
        .iter()
        .flat_map(|uri| [&[0x86, u8::try_from(uri.len()).unwrap()][..], uri].concat())
        .collect();
    let der = [&[0x30, u8::try_from(names.len()).unwrap()][..], &names].concat();
    CustomExtension::from_oid_content(&[2, 5, 29, 17], der)
}

#[test]
fn a_device_is_who_its_certificate_says() {
    let plant = Plant::new("a");
    let facts = judge(&plant.client(Role::Device, "press-7"), &plant.issuers()).unwrap();
    assert_eq!(facts.identity().uri(), "spiffe://plant.example/device/press-7");
    assert_eq!(facts.identity().issuer(), "plant");
    assert_eq!(facts.issuer_name(), "CN=a issuing");
    assert_eq!(facts.not_after(), days_from_now(30));
    assert!(facts.not_before() < NOW);
    assert_eq!(facts.serial().len(), 32);
    assert_ne!(facts.x5t(), facts.spki_sha256());
}

#[test]
fn x5t_is_the_certificate_and_spki_is_the_key() {
    let plant = Plant::new("a");
    let first = judge(&plant.client(Role::Device, "a"), &plant.issuers()).unwrap();
    let second = judge(&plant.client(Role::Device, "a"), &plant.issuers()).unwrap();
    assert_eq!(first.identity(), second.identity());
    assert_ne!(first.x5t(), second.x5t());
    assert_ne!(first.spki_sha256(), second.spki_sha256());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, first.path().end_entity());
    assert_eq!(first.x5t(), digest.as_ref());
}

#[test]
fn no_certificate() {
    let refusal = identify(&[], &Plant::new("a").issuers(), NOW).unwrap_err();
    assert_eq!(refusal.name(), "certificate.no_certificate");
}

#[test]
fn not_a_certificate() {
    let issuers = Plant::new("a").issuers();
    let refusal = identify(&[vec![0x30, 0x03, 1, 2, 3].into()], &issuers, NOW).unwrap_err();
    assert_eq!(refusal.name(), "certificate.not_parsable");
}

#[test]
fn certificate_of_a_strangers_ca() {
    let (plant, stranger) = (Plant::new("a"), Plant::new("b"));
    let client = stranger.client(Role::Device, "press-7");
    assert_eq!(judge(&client, &plant.issuers()), Err("certificate.unknown_issuer"));
}

#[test]
fn certificate_of_a_strangers_ca_that_bears_our_name() {
    let (plant, stranger) = (Plant::new("a"), Plant::new("a"));
    let client = stranger.client(Role::Device, "press-7");
    assert_eq!(judge(&client, &plant.issuers()), Err("certificate.bad_signature"));
}

#[test]
fn two_issuers_with_the_same_subject_name_stay_two() {
    let (devices, operators) = (Plant::new("same"), Plant::new("same"));
    let issuers = Issuers::new(vec![
        devices.issuer("devices", &[Role::Device]),
        operators.issuer("operators", &[Role::Operator]),
    ])
    .unwrap();
    let device = judge(&devices.client(Role::Device, "a"), &issuers).unwrap();
    assert_eq!(device.identity().issuer(), "devices");
    let operator = judge(&operators.client(Role::Operator, "a"), &issuers).unwrap();
    assert_eq!(operator.identity().issuer(), "operators");
    let forged = devices.client(Role::Operator, "a");
    assert_eq!(judge(&forged, &issuers), Err("certificate.role_not_bound"));
}

#[test]
fn an_issuer_above_another_is_refused_rather_than_guessed() {
    let plant = Plant::new("a");
    let narrow = Issuer::new("narrow", "plant.example", &[Role::Device], "", &ders(&plant.issuing));
    let issuers = Issuers::new(vec![plant.issuer("wide", &Role::ALL), narrow.unwrap()]).unwrap();
    let operator = plant.client(Role::Operator, "a");
    assert_eq!(judge(&operator, &issuers), Err("certificate.ambiguous_issuer"));
}

#[test]
fn validity_counts_to_the_second() {
    let plant = Plant::new("a");
    let client = ders(&plant.client(Role::Device, "a"));
    let facts = identify(&client, &plant.issuers(), NOW).unwrap();
    let at = |seconds| {
        identify(&client, &plant.issuers(), UnixNanos::from_seconds(seconds))
            .map(|_| ())
            .map_err(|refusal| refusal.name())
    };
    let (first, last) = (facts.not_before().as_seconds(), facts.not_after().as_seconds());
    assert_eq!(at(first), Ok(()));
    assert_eq!(at(first - 1), Err("certificate.not_yet_valid"));
    assert_eq!(at(last), Ok(()));
    assert_eq!(at(last + 1), Err("certificate.expired"));
}

#[test]
fn an_anchor_past_its_end_vouches_for_nobody() {
    let plant = Plant::new("a");
    let client = plant.odd(|params| params.not_after = date(days_from_now(5_000)));
    let issuer =
        Issuer::new("plant", "plant.example", &Role::ALL, "", &ders(&plant.issuing)).unwrap();
    let issuers = Issuers::new(vec![issuer]).unwrap();
    let end_entity = &ders(&client)[..1];
    assert!(identify(end_entity, &issuers, NOW).is_ok());
    let refusal = identify(end_entity, &issuers, days_from_now(731)).unwrap_err();
    assert_eq!(refusal.name(), "certificate.anchor_not_valid");
}

#[test]
fn no_issuer_above_takes_the_place_of_an_anchor_past_its_end() {
    let plant = Plant::new("a");
    let client = plant.odd(|params| params.not_after = date(days_from_now(5_000)));
    // The issuing CA's key and name again, certified by the root for longer.
    let ca_key = KeyPair::from_pem(&plant.issuing.key_pem).unwrap();
    let root_key = KeyPair::from_pem(&plant.root.key_pem).unwrap();
    let root = rcgen::Issuer::from_ca_cert_pem(&plant.root.certificate_pem, root_key).unwrap();
    let mut renewed = CertificateParams::default();
    renewed.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    renewed.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    renewed.distinguished_name = DistinguishedName::new();
    renewed.distinguished_name.push(DnType::CommonName, "a issuing");
    let renewed = renewed.signed_by(&ca_key, &root).unwrap();

    let path = [ders(&client)[0].clone(), renewed.into()];
    let wide = || plant.issuer("wide", &Role::ALL);
    let narrow =
        Issuer::new("narrow", "plant.example", &[Role::Device], "", &ders(&plant.issuing)).unwrap();
    let later = days_from_now(731);
    assert!(identify(&path, &Issuers::new(vec![wide()]).unwrap(), later).is_ok());
    let both = Issuers::new(vec![wide(), narrow]).unwrap();
    let refusal = identify(&path, &both, later).unwrap_err();
    assert_eq!(refusal.name(), "certificate.anchor_not_valid");
}

#[test]
fn e03_extended_key_usage_must_say_client_auth() {
    let plant = Plant::new("a");
    let with = |usages: &[Eku]| judge_odd(&plant, |p| p.extended_key_usages = usages.to_vec());
    assert_eq!(with(&[]), Err("certificate.no_extended_key_usage"));
    assert_eq!(with(&[Eku::Any]), Err("certificate.no_client_auth"));
    assert_eq!(with(&[Eku::ServerAuth]), Err("certificate.no_client_auth"));
    assert_eq!(with(&[Eku::ServerAuth, Eku::Any]), Err("certificate.no_client_auth"));
    assert!(with(&[Eku::ServerAuth, Eku::ClientAuth]).is_ok());
    assert_eq!(judge(&plant.server(), &plant.issuers()), Err("certificate.no_client_auth"));
}

#[test]
fn key_usage_must_say_digital_signature() {
    let plant = Plant::new("a");
    let with = |usages: &[KeyUsagePurpose]| judge_odd(&plant, |p| p.key_usages = usages.to_vec());
    assert_eq!(with(&[]), Err("certificate.no_key_usage"));
    let other = [KeyUsagePurpose::KeyAgreement];
    assert_eq!(with(&other), Err("certificate.no_digital_signature"));
}

#[test]
fn a_ca_is_not_a_client() {
    let plant = Plant::new("a");
    let constraints = BasicConstraints::Constrained(0);
    let refused = plant.odd(|p| p.is_ca = IsCa::Ca(constraints));
    let refusal = identify(&ders(&refused), &plant.issuers(), NOW).unwrap_err();
    insta::assert_snapshot!(
        refusal,
        @"the certification path is not valid (CaUsedAsEndEntity); issue the certificate anew"
    );
}

#[test]
fn a_client_cannot_issue() {
    let plant = Plant::new("a");
    let client = plant.client(Role::Device, "a");
    let loaded = Authority::load(&client.certificate_pem, &client.key_pem);
    assert!(loaded.is_err());
}

#[test]
fn e05_an_issuer_names_only_what_it_is_bound_to() {
    let plant = Plant::new("a");
    let bound = |domain: &str, roles: &[Role], prefix: &str| {
        let issuer = Issuer::new("x", domain, roles, prefix, &ders(&plant.root)).unwrap();
        let issuers = Issuers::new(vec![issuer]).unwrap();
        judge(&plant.client(Role::Device, "press-7"), &issuers).map(|_| ())
    };
    assert_eq!(bound("plant.example", &[Role::Device], "press-"), Ok(()));
    assert_eq!(
        bound("other.example", &[Role::Device], ""),
        Err("certificate.trust_domain_not_bound")
    );
    assert_eq!(
        bound("plant.example", &[Role::Operator, Role::Dashboard], ""),
        Err("certificate.role_not_bound")
    );
    assert_eq!(bound("plant.example", &[Role::Device], "pump-"), Err("certificate.name_not_bound"));
}

#[test]
fn e06_exactly_one_uri_of_our_form() {
    let plant = Plant::new("a");
    let good = "spiffe://plant.example/device/press-7";
    let with = |sans: Vec<SanType>| judge_odd(&plant, |p| p.subject_alt_names = sans);
    let dns = || SanType::DnsName("operator".try_into().unwrap());
    let ip = || SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let mail = || SanType::Rfc822Name("a@plant.example".try_into().unwrap());

    assert_eq!(with(vec![]), Err("certificate.no_uri_san"));
    assert_eq!(with(vec![dns(), ip()]), Err("certificate.no_uri_san"));
    assert_eq!(with(vec![uri(good), uri(good)]), Err("certificate.several_uri_sans"));
    assert_eq!(with(vec![uri(good), uri("urn:x")]), Err("certificate.several_uri_sans"));
    assert_eq!(with(vec![uri("https://plant.example/device/a")]), Err("certificate.name"));
    assert_eq!(with(vec![uri("spiffe://plant.example/device/a\0b")]), Err("certificate.name"));
    assert_eq!(with(vec![uri("spiffe://plant.example/device/a/b")]), Err("certificate.name"));

    let beside = with(vec![dns(), mail(), uri(good), ip()]).unwrap();
    assert_eq!(beside.identity().uri(), good);
}

#[test]
fn e06_a_common_name_is_never_an_identity() {
    let plant = Plant::new("a");
    let named = judge_odd(&plant, |p| {
        p.distinguished_name.push(DnType::CommonName, "spiffe://plant.example/operator/root");
    });
    assert_eq!(named.unwrap().identity().role(), Role::Device);
    let only = judge_odd(&plant, |p| {
        p.distinguished_name.push(DnType::CommonName, "spiffe://plant.example/device/a");
        p.subject_alt_names.clear();
    });
    assert_eq!(only, Err("certificate.no_uri_san"));
}

#[test]
fn e06_bytes_that_are_not_text() {
    let plant = Plant::new("a");
    let with = |uris: &[&[u8]]| {
        judge_odd(&plant, |p| {
            p.subject_alt_names.clear();
            p.custom_extensions.push(raw_uris(uris));
        })
    };
    assert!(with(&[b"spiffe://plant.example/device/a"]).is_ok());
    assert_eq!(with(&[b"spiffe://plant.example/device/\xff"]), Err("certificate.uri_san_not_utf8"));
    assert_eq!(
        with(&[b"spiffe://plant.example/device/a", b"\xff"]),
        Err("certificate.several_uri_sans")
    );
    assert_eq!(with(&["spiffe://plant.example/device/é".as_bytes()]), Err("certificate.name"));
}

#[test]
fn e06_the_same_extension_twice() {
    let plant = Plant::new("a");
    let twice = judge_odd(&plant, |p| {
        p.custom_extensions.push(raw_uris(&[b"spiffe://plant.example/operator/root"]));
    });
    assert_eq!(twice, Err("certificate.path"));
}

#[test]
fn e06_a_name_at_the_bound_and_one_past_it() {
    let plant = Plant::new("a");
    let named = |bytes: usize| {
        let name = format!("spiffe://plant.example/device/{}", "a".repeat(bytes));
        judge_odd(&plant, |p| p.subject_alt_names = vec![uri(&name)]).map(|_| ())
    };
    assert_eq!(named(NAME_BYTES_MAX), Ok(()));
    assert_eq!(named(NAME_BYTES_MAX + 1), Err("certificate.name"));
}

#[test]
fn e07_more_certificates_than_the_bound() {
    let plant = Plant::new("a");
    let client = ders(&plant.client(Role::Device, "a"));
    let (end_entity, ca) = client.split_first().unwrap();
    let chain = |count: usize| {
        let cas = std::iter::repeat_with(|| ca[0].clone()).take(count - 1);
        let all: Vec<_> = std::iter::once(end_entity.clone()).chain(cas).collect();
        identify(&all, &plant.issuers(), NOW).map(|_| ()).map_err(|refusal| refusal.name())
    };
    assert_eq!(chain(CERTIFICATES_MAX), Ok(()));
    assert_eq!(chain(CERTIFICATES_MAX + 1), Err("certificate.too_many"));
    assert_eq!(chain(1_000), Err("certificate.too_many"));
}

#[test]
fn e07_a_certificate_larger_than_the_bound() {
    let plant = Plant::new("a");
    let sized = |count: u8| {
        let dns = |n| SanType::DnsName(format!("{n:0>60}.example").try_into().unwrap());
        judge_odd(&plant, |p| p.subject_alt_names.extend((0..count).map(dns))).map(|_| ())
    };
    assert_eq!(sized(100), Ok(()));
    assert_eq!(sized(200), Err("certificate.too_large"));
}

#[test]
fn e07_no_ca_stands_below_the_issuing_ca() {
    let plant = Plant::new("a");
    let below = plant.odd(|p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        p.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        p.extended_key_usages.clear();
        p.distinguished_name.push(DnType::CommonName, "below");
    });
    let authority = Authority::load(&below.certificate_pem, &below.key_pem).unwrap();
    let profile = plant.profiles.client(Role::Operator);
    let client = authority.issue_client(profile, "plant.example", "a", NOW).unwrap();
    let path = [ders(&client), ders(&plant.issuing)].concat();
    let refusal = identify(&path, &plant.issuers(), NOW).unwrap_err();
    assert_eq!(refusal.name(), "certificate.path");
}

#[test]
fn a_refusal_says_what_to_do() {
    let plant = Plant::new("a");
    let client = plant.odd(|p| p.subject_alt_names = vec![uri("spiffe://plant.example/x/y")]);
    let refusal = identify(&ders(&client), &plant.issuers(), NOW).unwrap_err();
    assert!(matches!(refusal, CertificateRefusal::Name(NameError::Path(_))));
    insta::assert_snapshot!(
        refusal,
        @"the URI subjectAltName is not a name here: the path `x/y` is not `/<role>/<name>`; roles \
          are device, dashboard, operator, auditor; issue the certificate anew"
    );
}
