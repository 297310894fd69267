use avow_signer::{Algorithm, CoverClaims, Head, UnsignedCover};
use proptest::prelude::*;

use super::super::Verified;
use super::super::tests::{ed25519, hex, x5t};
use super::*;

const WIRE: &str = include_str!("../../../../devices/signer/BATCH.md");
const IDENTITY: &str = "spiffe://plant.example/device/press-7";
const AUDIENCE: &str = "plant.example/plant-1";

fn example() -> Bytes {
    let (_, rest) = WIRE.split_once("\n```hex cover\n").unwrap();
    hex(&rest.split_once("\n```").unwrap().0.replace('\n', "")).into()
}

fn claims<'a>(x5t: &'a [u8; 32], cti: &'a [u8]) -> CoverClaims<'a> {
    CoverClaims {
        identity: IDENTITY,
        certificate_sha256: x5t,
        audience: AUDIENCE,
        issued_at: 1,
        cti,
        epoch: u64::MAX,
        first: 0,
        last: 300,
    }
}

fn unsigned(algorithm: Algorithm, claims: &CoverClaims<'_>) -> Bytes {
    let head = Head::begin(IDENTITY, AUDIENCE, 1, 1);
    UnsignedCover::new(algorithm, claims, head).signed(&[5; 64]).into()
}

#[test]
fn the_example_of_the_wire_is_read_bound_and_verified() {
    let cover = Cover::parse(&example()).unwrap();
    let (x5t, key) = (x5t(), ed25519());
    assert_eq!(cover.bind(IDENTITY, Some((&x5t, &key)), AUDIENCE), Ok(()));
    assert_eq!(cover.verify_job(7, &key).run(), Verified { ticket: 7, is_good: true });
    assert_eq!(cover.batch(), Batch { epoch: 41, first: 1, last: 2 });
    assert_eq!(cover.issued_at(), 1_800_000_060);
    assert_eq!(cover.cti(), hex("404142434445464748494a4b4c4d4e4f"));
    let mut bent = cover.clone();
    bent.head[0] ^= 1;
    assert_eq!(bent.verify_job(7, &key).run(), Verified { ticket: 7, is_good: false });
}

#[test]
fn what_it_says_must_be_what_its_connection_is() {
    let cover = Cover::parse(&example()).unwrap();
    let (x5t, key) = (x5t(), ed25519());
    let certificate = Some((&x5t, &key));
    let p256 = DeviceKey::new(KeyKind::P256, &[4; 65]);
    for (why, bound) in [
        (R::Certificate, cover.bind(IDENTITY, None, AUDIENCE)),
        (R::Certificate, cover.bind(IDENTITY, Some((&[0; 32], &key)), AUDIENCE)),
        (R::Algorithm, cover.bind(IDENTITY, Some((&x5t, &p256)), AUDIENCE)),
        (R::Issuer, cover.bind("spiffe://plant.example/device/press-8", certificate, AUDIENCE)),
        (R::Audience, cover.bind(IDENTITY, certificate, "plant.example/plant-2")),
    ] {
        assert_eq!(bound, Err(why));
    }
}

#[test]
fn only_its_one_form_is_read() {
    let good = claims(&[1; 32], &[2; 16]);
    assert!(Cover::parse(&unsigned(Algorithm::Es256, &good)).is_ok());
    for (cti, expected) in
        [(7, Err(R::Malformed)), (8, Ok(())), (32, Ok(())), (33, Err(R::Malformed))]
    {
        let cti = vec![0; cti];
        let object = unsigned(Algorithm::Es256, &claims(&[1; 32], &cti));
        assert_eq!(Cover::parse(&object).map(drop), expected, "{}", cti.len());
    }
    let object = example();
    for cut in 0..object.len() {
        assert!(Cover::parse(&object.slice(..cut)).is_err(), "{cut}");
    }
    assert_eq!(Cover::parse(&[&object[..], &[0]].concat().into()), Err(R::Malformed));
    assert_eq!(Cover::parse(&vec![0; STATEMENT_BYTES_MAX + 1].into()), Err(R::TooLong));
    assert!(super::super::Statement::parse(&object).is_err(), "a cover is no statement");
}

proptest! {
    /// Any one bit of a cover: it is no cover, or it is another one and its signature is bad.
    #[test]
    fn a_bent_cover_is_refused(at in 0_usize..340, bit in 0_u32..8) {
        let object = example();
        let mut bent = object.to_vec();
        let at = at % bent.len();
        bent[at] ^= 1 << bit;
        let (x5t, key) = (x5t(), ed25519());
        if let Ok(cover) = Cover::parse(&bent.into())
            && cover.bind(IDENTITY, Some((&x5t, &key)), AUDIENCE).is_ok()
        {
            let verdict = cover.verify_job(1, &key).run();
            prop_assert_eq!(verdict, Verified { ticket: 1, is_good: false });
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Cover::parse(&bytes.into());
    }
}
