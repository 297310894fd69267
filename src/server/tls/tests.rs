use std::time::Duration;

use rustls::server::danger::ClientCertVerifier as _;
use rustls::{ClientConnection, HandshakeKind, NamedGroup, ServerConnection};
use rustls_pki_types::{ServerName, UnixTime};

use super::*;
use crate::identity::authority::Credential;
use crate::identity::testing::{NOW, Plant, date, days_from_now};
use crate::identity::{Role, identify};

/// A clock that stands at [`NOW`].
#[derive(Debug)]
struct Still;

impl TimeProvider for Still {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW.as_seconds())))
    }
}

/// The PEM of a credential's certificate or key, as if from a file.
fn cert(credential: &Credential) -> Pem<'_> {
    Pem { file: "cert.pem", text: &credential.certificate_pem }
}

fn key(credential: &Credential) -> Pem<'_> {
    Pem { file: "key.pem", text: &credential.key_pem }
}

fn listener(plant: &Plant) -> Arc<ServerConfig> {
    let server = plant.server();
    let issuers = Arc::new(plant.issuers());
    server_config_at(cert(&server), key(&server), issuers, Arc::new(Still)).unwrap()
}

/// A client that trusts `plant` and shows `credential`, if any.
fn client(plant: &Plant, credential: Option<&Credential>) -> ClientConfig {
    client_of(plant, credential, &VERSIONS)
}

fn client_of(
    plant: &Plant,
    credential: Option<&Credential>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let credential = credential.map(|credential| (cert(credential), key(credential)));
    client_config_at(cert(&plant.root), credential, versions, Arc::new(Still)).unwrap()
}

/// Carries bytes between both ends, without sockets, until neither has any left.
fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    while client.wants_write() || server.wants_write() {
        carry(&mut client, &mut server)?;
        carry(&mut server, &mut client)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn carry<A, B>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<(), rustls::Error>
where
    A: rustls::SideData,
    B: rustls::SideData,
{
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    deliver(&bytes, to)
}

fn deliver<S: rustls::SideData>(
    mut bytes: &[u8],
    to: &mut ConnectionCommon<S>,
) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        to.read_tls(&mut bytes).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// The name of what a listener says to a client that shows `credential`.
fn failure(plant: &Plant, credential: Option<&Credential>) -> &'static str {
    let client = Arc::new(client(plant, credential));
    let error = handshake(&client, &listener(plant)).unwrap_err();
    HandshakeFailure::of(&io::Error::new(io::ErrorKind::InvalidData, error)).name()
}

#[test]
fn a_full_handshake_and_what_is_known_after_it() {
    let plant = Plant::new("a");
    let device = plant.client(Role::Device, "press-7");
    let config = Arc::new(client(&plant, Some(&device)));
    let (client, server) = handshake(&config, &listener(&plant)).unwrap();

    let facts = TlsFacts::of(&server).unwrap();
    assert_eq!(facts, TlsFacts::of(&client).unwrap());
    assert_eq!(facts.version, ProtocolVersion::TLSv1_3);
    let group = server.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    assert_eq!(server.alpn_protocol(), Some(ALPN_MQTT));

    let peer = identify(server.peer_certificates().unwrap(), &plant.issuers(), NOW).unwrap();
    assert_eq!(peer.identity().name(), "press-7");

    let (_, again) = handshake(&config, &listener(&plant)).unwrap();
    assert_ne!(facts.exporter_hash, TlsFacts::of(&again).unwrap().exporter_hash);
}

#[test]
fn tls_1_2_with_an_aead_is_spoken() {
    let plant = Plant::new("a");
    let device = plant.client(Role::Device, "a");
    let config = Arc::new(client_of(&plant, Some(&device), &[&version::TLS12]));
    let (client, server) = handshake(&config, &listener(&plant)).unwrap();
    let facts = TlsFacts::of(&server).unwrap();
    assert_eq!(facts, TlsFacts::of(&client).unwrap());
    assert_eq!(facts.version, ProtocolVersion::TLSv1_2);
    assert_eq!(facts.suite, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
}

#[test]
fn tls_1_2_with_cbc_suites_only_is_refused() {
    let body = [
        &[3, 3][..],                              // TLS 1.2
        &[7; 32],                                 // random
        &[0],                                     // no session id
        &[0, 6, 0xc0, 0x13, 0xc0, 0x09, 0, 0x2f], // ECDHE-RSA, ECDHE-ECDSA, RSA; AES-128-CBC-SHA
        &[1, 0],                                  // no compression
        &[0, 20],                                 // extensions:
        &[0, 23, 0, 0],                           // extended master secret
        &[0, 10, 0, 4, 0, 2, 0, 23],              // groups: secp256r1
        &[0, 13, 0, 4, 0, 2, 4, 3],               // signatures: ecdsa_secp256r1_sha256
    ]
    .concat();
    let length = u8::try_from(body.len()).unwrap();
    let hello = [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat();
    let mut server = ServerConnection::new(listener(&Plant::new("a"))).unwrap();
    let error = deliver(&hello, &mut server).unwrap_err();
    let incompatible = rustls::PeerIncompatible::NoCipherSuitesInCommon;
    assert_eq!(error, rustls::Error::PeerIncompatible(incompatible));
}

#[test]
fn e01_nothing_resumes() {
    let plant = Plant::new("a");
    let device = plant.client(Role::Device, "a");
    let server = listener(&plant);
    for version in VERSIONS {
        let mut config = client_of(&plant, Some(&device), &[version]);
        config.resumption = Resumption::in_memory_sessions(8);
        config.enable_early_data = true;
        let config = Arc::new(config);
        for _ in 0..2 {
            let (client, server) = handshake(&config, &server).unwrap();
            for kind in [client.handshake_kind(), server.handshake_kind()] {
                // A retry for another group is a full handshake too.
                let full = [HandshakeKind::Full, HandshakeKind::FullWithHelloRetryRequest];
                assert!(full.contains(&kind.unwrap()), "{version:?}: {kind:?}");
            }
            assert_eq!(client.tls13_tickets_received(), 0);
            assert!(!client.is_early_data_accepted());
        }
    }
}

#[test]
fn a_client_needs_no_alpn_but_not_another() {
    let plant = Plant::new("a");
    let device = plant.client(Role::Device, "a");
    let offering = |protocols: &[&[u8]]| {
        let mut config = client(&plant, Some(&device));
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        handshake(&Arc::new(config), &listener(&plant)).map(|_| ())
    };
    assert_eq!(offering(&[]), Ok(()));
    assert_eq!(offering(&[b"h2", b"mqtt"]), Ok(()));
    assert_eq!(offering(&[b"h2"]), Err(rustls::Error::NoApplicationProtocol));
}

#[test]
fn each_refused_certificate_has_its_name() {
    let (plant, stranger) = (Plant::new("a"), Plant::new("b"));
    let expired = plant.odd(|p| p.not_after = date(days_from_now(-1)));
    let early = plant.odd(|p| p.not_before = date(days_from_now(1)));
    let unnamed = plant.odd(|p| p.subject_alt_names.clear());
    let cases = [
        (None, "certificate.no_certificate"),
        (Some(stranger.client(Role::Device, "a")), "certificate.unknown_issuer"),
        (Some(expired), "certificate.expired"),
        (Some(early), "certificate.not_yet_valid"),
        (Some(plant.server()), "certificate.no_client_auth"),
        (Some(unnamed), "certificate.no_uri_san"),
    ];
    for (credential, name) in cases {
        assert_eq!(failure(&plant, credential.as_ref()), name);
    }
}

#[test]
fn e07_a_chain_bomb_ends_the_handshake() {
    let plant = Plant::new("a");
    let mut device = plant.client(Role::Device, "a");
    device.certificate_pem.push_str(&plant.issuing.certificate_pem.repeat(50));
    assert_eq!(failure(&plant, Some(&device)), "certificate.too_many");
}

#[test]
fn a_client_is_told_why_in_the_alert() {
    let plant = Plant::new("a");
    let expired = plant.odd(|p| p.not_after = date(days_from_now(-1)));
    let server = listener(&plant);
    let name = ServerName::try_from("localhost").unwrap();
    let config = Arc::new(client(&plant, Some(&expired)));
    let mut client = ClientConnection::new(config, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let error = loop {
        let refused = carry(&mut client, &mut server);
        if let Err(error) = carry(&mut server, &mut client) {
            assert!(refused.is_err());
            break error;
        }
    };
    let expected = rustls::AlertDescription::CertificateExpired;
    assert_eq!(error, rustls::Error::AlertReceived(expected));
}

#[test]
fn a_client_refuses_a_server_of_another_ca() {
    let (plant, stranger) = (Plant::new("a"), Plant::new("b"));
    let device = plant.client(Role::Device, "a");
    let config = Arc::new(client(&stranger, Some(&device)));
    let error = handshake(&config, &listener(&plant)).unwrap_err();
    let unknown = rustls::CertificateError::UnknownIssuer;
    assert_eq!(error, rustls::Error::InvalidCertificate(unknown));
}

#[test]
fn a_certificate_is_mandatory() {
    let verifier = AvowClientVerifier::new(Arc::new(Plant::new("a").issuers()));
    assert!(verifier.offer_client_auth() && verifier.client_auth_mandatory());
}

#[test]
fn every_suite_has_forward_secrecy_and_an_aead() {
    let names: Vec<_> = CIPHER_SUITES.iter().map(|suite| format!("{:?}", suite.suite())).collect();
    for name in names {
        let aead = name.contains("GCM") || name.contains("CHACHA20_POLY1305");
        let forward = name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_");
        assert!(aead && forward, "{name}");
    }
}

#[test]
fn an_error_names_the_file() {
    let plant = Plant::new("a");
    let (one, other) = (plant.server(), plant.server());
    let fault = |chain: Pem<'_>, key: Pem<'_>| {
        server_config(chain, key, Arc::new(plant.issuers())).unwrap_err().to_string()
    };
    let empty = |file| Pem { file, text: "" };
    insta::assert_snapshot!(
        fault(empty("server.pem"), key(&one)),
        @"server.pem: holds no certificate (`-----BEGIN CERTIFICATE-----`)"
    );
    insta::assert_snapshot!(
        fault(cert(&one), empty("server.key")),
        @"server.key: holds no private key (`-----BEGIN PRIVATE KEY-----`)"
    );
    let torn = Pem { file: "torn.pem", text: "-----BEGIN CERTIFICATE-----\nAAAA\n" };
    assert!(fault(torn, key(&one)).starts_with("torn.pem: not PEM: "));
    let mixed = fault(cert(&one), key(&other));
    assert!(mixed.starts_with("cert.pem and key.pem do not belong together"), "{mixed}");
}
