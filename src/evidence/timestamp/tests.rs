//! The vectors were made with `openssl ts` 3.0: a root, a TSA certificate of P-256, one stamp.

use der::Any;
use rustls_pki_types::pem::PemObject as _;

use super::*;

const NOTE: &[u8] = include_bytes!("vectors/checkpoint");
const QUERY: &[u8] = include_bytes!("vectors/note.tsq");
const REPLY: &[u8] = include_bytes!("vectors/note.tsr");
const CA: &[u8] = include_bytes!("vectors/ca.pem");

fn anchors() -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(CA).collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_stamp_of_openssl_holds() {
    let stamp = TimeStamp::parse(REPLY).unwrap();
    let stamped = stamp.verify(NOTE, &anchors()).unwrap();
    assert_eq!(stamped.authority, "CN=Test TSA");
    assert_eq!((stamped.policy.as_str(), stamped.serial.as_str()), ("1.2.3.4.1", "02"));
    assert_eq!(stamped.accuracy, Some(Duration::from_millis(1_500)));
    // 2026-11-30T11:13:14.43Z
    assert_eq!(stamped.time.as_nanos(), 1_796_037_194_430_000_000);
    assert!(stamp.is_over(NOTE) && !stamp.is_over(b"another"));
    assert_eq!(stamp.answers(QUERY), Ok(()));
    // The token alone, as some authorities send it.
    let token = TimeStampResp::from_der(REPLY).unwrap().token.unwrap().to_der().unwrap();
    assert_eq!(TimeStamp::parse(&token).unwrap().verify(NOTE, &anchors()), Ok(stamped));
}

#[test]
fn no_changed_byte_is_believed_unless_it_says_the_same() {
    let good = TimeStamp::parse(REPLY).unwrap().verify(NOTE, &anchors()).unwrap();
    let mut harmless = 0;
    for place in 0..REPLY.len() {
        let mut reply = REPLY.to_vec();
        reply[place] ^= 1;
        let read = TimeStamp::parse(&reply);
        if let Ok(stamped) = read.and_then(|stamp| stamp.verify(NOTE, &anchors())) {
            // The status around the token, and the versions and parameters within CMS, are under
            // no signature; what is proven must be the same.
            assert_eq!(stamped, good, "byte {place}");
            harmless += 1;
        }
    }
    assert!(harmless < 20, "{harmless} of {} bytes", REPLY.len());
}

#[test]
fn a_stamp_over_something_else_or_of_somebody_else_is_refused() {
    let stamp = TimeStamp::parse(REPLY).unwrap();
    let mut other = NOTE.to_vec();
    other[0] ^= 1;
    assert_eq!(stamp.verify(&other, &anchors()), Err(TimestampError::Imprint));
    assert!(matches!(stamp.verify(NOTE, &[]), Err(TimestampError::Path(_))));
    let query = request(NOTE, [7; 8]).unwrap();
    assert_eq!(stamp.answers(&query), Err(TimestampError::Nonce));
    let query = request(&other, [7; 8]).unwrap();
    assert_eq!(stamp.answers(&query), Err(TimestampError::Imprint));
}

#[test]
fn a_request_is_der_with_a_positive_nonce() {
    for nonce in [[0; 8], [0xff; 8], [0x80; 8]] {
        let der = request(NOTE, nonce).unwrap();
        let read = TimeStampReq::from_der(&der).unwrap();
        assert_eq!(read.to_der().unwrap(), der);
        let bytes = read.nonce.unwrap();
        assert_eq!((bytes.as_bytes().len(), bytes.as_bytes()[0] & 0xc0), (8, 0x40));
        assert!(read.cert_req);
    }
}

#[test]
fn what_is_no_reply_is_refused() {
    for bad in [&b""[..], b"0", NOTE, QUERY, CA] {
        assert!(TimeStamp::parse(bad).is_err());
    }
    let long = vec![0x30; TIMESTAMP_BYTES_MAX + 1];
    assert_eq!(TimeStamp::parse(&long).unwrap_err(), TimestampError::TooLong);
    // PKIStatus 2, "no" as its text, no token.
    let refusal = [0x30, 0x0b, 0x30, 0x09, 2, 1, 2, 0x30, 4, 0x0c, 2, b'n', b'o'];
    let refused = TimeStamp::parse(&refusal).unwrap_err();
    assert_eq!(refused, TimestampError::Refused { status: 2, text: ": no".to_owned() });
}

#[test]
fn times_have_one_form() {
    let read = |text: &str| {
        let value = Any::new(Tag::GeneralizedTime, text.as_bytes()).unwrap();
        generalized_time(&value).map(UnixNanos::as_nanos)
    };
    assert_eq!(read("19700101000001Z"), Some(1_000_000_000));
    assert_eq!(read("19700101000001.5Z"), Some(1_500_000_000));
    assert_eq!(read("20000229000000.123456789Z"), Some(951_782_400_123_456_789));
    for bad in [
        "19700101000001",
        "19700101000001+0100",
        "197001010000Z",
        "19700101000001.Z",
        "19700101000001.1234567890Z",
        "19700230000000Z",
        "19701301000000Z",
        "19700101240000Z",
        "19691231235959Z",
        "1970010100000 Z",
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
}
