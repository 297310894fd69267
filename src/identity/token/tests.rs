use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::json;

use super::testing::Mint;
use super::*;
use crate::identity::Role;

const NOW: UnixNanos = UnixNanos::from_seconds(1_795_000_000);
const T: u64 = 1_795_000_000;

fn header() -> Header {
    header_of(Algorithm::ES256)
}

fn header_of(algorithm: Algorithm) -> Header {
    let mut header = Header::new(algorithm);
    header.kid = Some("k1".to_owned());
    header
}

fn claims() -> Value {
    json!({
        "iss": "idp", "sub": "wall", "aud": "plant-1", "exp": T + 600, "nbf": T, "iat": T,
        "jti": "1", "roles": ["viewer"], "vars": {"plant": "3"},
    })
}

fn with(mint: &Mint, change: impl FnOnce(&mut Value)) -> Result<TokenFacts, TokenRefusal> {
    let mut claims = claims();
    change(&mut claims);
    mint.keys().verify(mint.forge(&header(), &claims).as_bytes(), NOW)
}

#[test]
fn a_right_token_names_somebody_for_a_while() {
    let mint = Mint::new();
    let facts = with(&mint, |_| {}).unwrap();
    assert_eq!(facts.identity().uri(), "spiffe://plant.example/dashboard/wall");
    assert_eq!(facts.identity().issuer(), "token:idp");
    assert_eq!((facts.kid(), facts.jti()), ("k1", Some("1")));
    assert_eq!(facts.expires().as_seconds(), T + 600);
    assert!(facts.grants().has_role("viewer"));
    assert_eq!(facts.grants().variable("plant"), Some("3"));
    // A certificate's issuer cannot be called so.
    assert!(crate::identity::name::check_name(facts.identity().issuer()).is_err());
    let several = with(&mint, |claims| claims["aud"] = json!(["other", "plant-1"]));
    assert!(several.is_ok());
    let bare = with(&mint, |claims| {
        for claim in ["jti", "roles", "vars"] {
            claims.as_object_mut().unwrap().remove(claim);
        }
    });
    assert_eq!(**bare.unwrap().grants(), *Grants::NONE);
}

#[test]
fn every_algorithm_verifies_what_it_signed() {
    for algorithm in [TokenAlgorithm::Es256, TokenAlgorithm::Es384, TokenAlgorithm::EdDsa] {
        let mint = Mint::of(algorithm);
        let token = mint.token("wall", NOW, 60);
        assert!(mint.keys().verify(token.as_bytes(), NOW).is_ok(), "{algorithm:?}");
        let other = Mint::of(algorithm).keys().verify(token.as_bytes(), NOW);
        assert_eq!(other, Err(TokenRefusal::Signature), "{algorithm:?}");
    }
}

/// Keys of RSA sign elsewhere: here only what they signed is verified.
#[test]
fn tokens_of_rsa_keys_are_verified_by_their_own_key_and_scheme_alone() {
    let (rs256, ps256) = (Mint::of(TokenAlgorithm::Rs256), Mint::of(TokenAlgorithm::Ps256));
    for (mint, other) in [(&rs256, &ps256), (&ps256, &rs256)] {
        let (keys, own) = (mint.keys(), mint.algorithm.library());
        let refused = |token: &str| keys.verify(token.as_bytes(), NOW).unwrap_err();
        let token = mint.forge(&header_of(own), &claims());
        let facts = keys.verify(token.as_bytes(), NOW).unwrap();
        assert_eq!(facts.identity().uri(), "spiffe://plant.example/dashboard/wall");
        // Another key, which says that it is this one.
        let foreign = other.forge(&header_of(own), &claims());
        assert_eq!(refused(&foreign), TokenRefusal::Signature);
        // This key, by the other padding: under its own name, and under that of the scheme it has.
        let padded = mint.forge(&header_of(other.algorithm.library()), &claims());
        assert_eq!(refused(&padded), TokenRefusal::Algorithm);
        let (_, signature) = padded.rsplit_once('.').unwrap();
        let (signed, _) = token.rsplit_once('.').unwrap();
        assert_eq!(refused(&format!("{signed}.{signature}")), TokenRefusal::Signature);
        // One bit of the signature.
        let (_, signature) = token.rsplit_once('.').unwrap();
        let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        signature[100] ^= 1;
        let signature = URL_SAFE_NO_PAD.encode(signature);
        assert_eq!(refused(&format!("{signed}.{signature}")), TokenRefusal::Signature);
    }
}

#[test]
fn c15_every_claim_is_required() {
    let mint = Mint::new();
    let required = [Claim::Iss, Claim::Sub, Claim::Aud, Claim::Exp, Claim::Nbf, Claim::Iat];
    for claim in required {
        for absent in [None, Some(Value::Null)] {
            let refused = with(&mint, |claims| match absent {
                None => drop(claims.as_object_mut().unwrap().remove(claim.as_str())),
                Some(null) => claims[claim.as_str()] = null,
            });
            assert_eq!(refused, Err(TokenRefusal::ClaimMissing(claim)));
        }
    }
}

#[test]
fn c16_a_claim_of_another_type_is_refused_not_absent() {
    let mint = Mint::new();
    let times = [Claim::Exp, Claim::Nbf, Claim::Iat];
    for claim in times {
        for wrong in
            [json!("1795000600"), json!(1_795_000_000.5), json!(-1), json!([1]), json!(true)]
        {
            let refused = with(&mint, |claims| claims[claim.as_str()] = wrong.clone());
            assert!(is_invalid(&refused, claim), "{wrong}: {refused:?}");
        }
    }
    let others = [
        (Claim::Iss, json!(["idp"])),
        (Claim::Sub, json!(7)),
        (Claim::Aud, json!({"plant-1": true})),
        (Claim::Aud, json!(["plant-1", 1])),
        (Claim::Jti, json!(1)),
        (Claim::Jti, json!("j".repeat(129))),
        (Claim::Roles, json!("viewer")),
        (Claim::Roles, json!([1])),
        (Claim::Roles, json!(["Not A Role"])),
        (Claim::Vars, json!(["plant"])),
        (Claim::Vars, json!({"plant": 3})),
        (Claim::Vars, json!({"plant": "x".repeat(129)})),
    ];
    for (claim, wrong) in others {
        let refused = with(&mint, |claims| claims[claim.as_str()] = wrong.clone());
        assert!(is_invalid(&refused, claim), "{wrong}: {refused:?}");
    }
}

/// Refused for the claim, or by the library, which stumbles over some types before we see them.
fn is_invalid(refused: &Result<TokenFacts, TokenRefusal>, claim: Claim) -> bool {
    [Err(TokenRefusal::ClaimInvalid(claim)), Err(TokenRefusal::Malformed)].contains(refused)
}

#[test]
fn c16_a_claim_that_is_there_twice_is_refused() {
    let mint = Mint::new();
    // By hand, because no JSON library writes a key twice.
    let text = claims().to_string().replace("\"exp\":", "\"exp\":9999999999,\"exp\":");
    let raw: Box<serde_json::value::RawValue> = serde_json::from_str(&text).unwrap();
    let key = EncodingKey::from_ec_der(
        rustls_pki_types::pem::PemObject::from_pem_slice(mint.private_key_pem().as_bytes())
            .map(|der: rustls_pki_types::PrivatePkcs8KeyDer<'_>| der.secret_pkcs8_der().to_vec())
            .unwrap()
            .as_slice(),
    );
    let token = jsonwebtoken::encode(&header(), &raw, &key).unwrap();
    let refused = mint.keys().verify(token.as_bytes(), NOW);
    assert_eq!(refused, Err(TokenRefusal::Malformed));
}

#[test]
fn times_are_judged_by_the_time_that_is_given() {
    let mint = Mint::new();
    let at = |exp: u64, nbf: u64, iat: u64| {
        with(&mint, |claims| {
            claims["exp"] = json!(exp);
            claims["nbf"] = json!(nbf);
            claims["iat"] = json!(iat);
        })
        .map(|_| ())
    };
    assert_eq!(at(T + 1, T - 10, T - 10), Ok(()));
    assert_eq!(at(T, T - 10, T - 10), Err(TokenRefusal::Expired));
    assert_eq!(at(T - 1, T - 10, T - 10), Err(TokenRefusal::Expired));
    // The leeway is 5 s, for clocks that are ahead of ours.
    assert_eq!(at(T + 60, T + 5, T + 5), Ok(()));
    assert_eq!(at(T + 60, T + 6, T), Err(TokenRefusal::NotYetValid));
    assert_eq!(at(T + 60, T, T + 6), Err(TokenRefusal::NotYetValid));
    assert_eq!(at(T + 900, T, T), Ok(()));
    assert_eq!(at(T + 901, T, T), Err(TokenRefusal::Lifetime));
    assert_eq!(at(u64::MAX, T, T), Err(TokenRefusal::Lifetime));
    assert_eq!(at(T + 600, T, 0), Err(TokenRefusal::Lifetime));
    assert_eq!(at(T + 1, T, T + 2), Err(TokenRefusal::Lifetime));
}

#[test]
fn a_token_of_somebody_else_for_somebody_else_is_refused() {
    let mint = Mint::new();
    let iss = with(&mint, |claims| claims["iss"] = json!("other"));
    assert_eq!(iss, Err(TokenRefusal::Issuer));
    for aud in [json!("other"), json!([]), json!(["a", "b"]), json!("plant-10")] {
        let refused = with(&mint, |claims| claims["aud"] = aud.clone());
        assert_eq!(refused, Err(TokenRefusal::Audience), "{aud}");
    }
    for sub in ["", "a/b", "#", "+", "wall\n", "..", "spiffe://plant.example/device/a"] {
        let refused = with(&mint, |claims| claims["sub"] = json!(sub));
        assert_eq!(refused, Err(TokenRefusal::Subject), "{sub:?}");
    }
    let spec = TokenKeySpec { name_prefix: "wall-", ..mint.spec() };
    let keys = TokenKeys::new(vec![TokenKey::new(&spec).unwrap()], 4096, 5).unwrap();
    let named = |name: &str| keys.verify(mint.token(name, NOW, 60).as_bytes(), NOW).map(|_| ());
    assert_eq!((named("wall-1"), named("desk")), (Ok(()), Err(TokenRefusal::Subject)));
}

/// A token of `header` and `claims` with `signature` behind it, none of it judged.
fn raw(header: &str, claims: &Value, signature: &[u8]) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!(
        "{}.{}.{}",
        part(header.as_bytes()),
        part(claims.to_string().as_bytes()),
        part(signature)
    )
}

#[test]
fn c15_the_algorithm_is_the_keys_and_never_the_headers() {
    let mint = Mint::new();
    let keys = mint.keys();
    let refused = |token: &str| keys.verify(token.as_bytes(), NOW).unwrap_err();
    // No signature at all, in several spellings.
    for alg in ["none", "None", "NONE", ""] {
        let header = format!(r#"{{"typ":"JWT","alg":"{alg}","kid":"k1"}}"#);
        for signature in [&b""[..], &[0; 64]] {
            assert_eq!(refused(&raw(&header, &claims(), signature)), TokenRefusal::Malformed);
        }
    }
    // HMAC, whose secret would be our public key: as PEM, and in both binary forms.
    let mut hmac = header();
    hmac.alg = Algorithm::HS256;
    let der = SubjectPublicKey::der(&mint);
    for secret in [mint.public_key_pem.as_bytes(), mint.public_key(), &der] {
        let secret = EncodingKey::from_secret(secret);
        let token = jsonwebtoken::encode(&hmac, &claims(), &secret).unwrap();
        assert_eq!(refused(&token), TokenRefusal::Algorithm);
    }
    // Another asymmetric algorithm than the key's.
    for alg in ["ES384", "EdDSA", "RS256", "PS256", "HS512"] {
        let header = format!(r#"{{"alg":"{alg}","kid":"k1"}}"#);
        assert_eq!(refused(&raw(&header, &claims(), &[0; 64])), TokenRefusal::Algorithm);
    }
    // The all-zero signature of ECDSA.
    let header = r#"{"alg":"ES256","kid":"k1"}"#;
    assert_eq!(refused(&raw(header, &claims(), &[0; 64])), TokenRefusal::Signature);
    assert_eq!(refused(&raw(header, &claims(), b"")), TokenRefusal::Signature);
    // A key that the token brings along is not looked at.
    let mut own = self::header();
    own.jku = Some("https://evil.example/keys".to_owned());
    let other = Mint::new().forge(&own, &claims());
    assert_eq!(refused(&other), TokenRefusal::Signature);
}

struct SubjectPublicKey;

impl SubjectPublicKey {
    fn der(mint: &Mint) -> Vec<u8> {
        use rustls_pki_types::SubjectPublicKeyInfoDer;
        use rustls_pki_types::pem::PemObject as _;
        SubjectPublicKeyInfoDer::from_pem_slice(mint.public_key_pem.as_bytes()).unwrap().to_vec()
    }
}

#[test]
fn c15_no_key_no_kid_no_token() {
    let mint = Mint::new();
    let keys = mint.keys();
    let refused = |token: &[u8]| keys.verify(token, NOW).unwrap_err();
    let mut unknown = header();
    unknown.kid = Some("k2".to_owned());
    assert_eq!(refused(mint.forge(&unknown, &claims()).as_bytes()), TokenRefusal::UnknownKey);
    unknown.kid = None;
    assert_eq!(refused(mint.forge(&unknown, &claims()).as_bytes()), TokenRefusal::UnknownKey);
    let mut critical = header();
    critical.crit = Some(vec!["b64".to_owned()]);
    assert_eq!(refused(mint.forge(&critical, &claims()).as_bytes()), TokenRefusal::Critical);
    assert_eq!(refused(b""), TokenRefusal::Missing);
    for bad in [&b"."[..], b"..", b"a.b.c", b"a.b.c.d", b"hunter2", b"\xff\xfe.\0.\0"] {
        assert_eq!(refused(bad), TokenRefusal::Malformed);
    }
    // Bound first: not even the header of a long one is read.
    assert_eq!(refused(&[b'a'; 4097]), TokenRefusal::TooLong);
    assert_eq!(refused(&[b'a'; 4096]), TokenRefusal::Malformed);
    let token = mint.forge(&header(), &claims());
    assert_eq!(TokenKeys::none().verify(token.as_bytes(), NOW), Err(TokenRefusal::UnknownKey));
}

#[test]
fn what_is_no_key_is_refused_when_it_is_read() {
    let mint = Mint::new();
    let fault = |spec: &TokenKeySpec<'_>| TokenKey::new(spec).unwrap_err();
    let spec = mint.spec();
    let other = |algorithm| fault(&TokenKeySpec { algorithm, ..spec });
    for algorithm in [TokenAlgorithm::Es384, TokenAlgorithm::EdDsa, TokenAlgorithm::Rs256] {
        assert_eq!(other(algorithm), TokenKeyFault::OtherAlgorithm(algorithm.as_str()));
    }
    let private = mint.private_key_pem();
    for pem in ["", "hunter2", &private] {
        assert_eq!(fault(&TokenKeySpec { public_key_pem: pem, ..spec }), TokenKeyFault::NotPem);
    }
    assert_eq!(fault(&TokenKeySpec { role: Role::Device, ..spec }), TokenKeyFault::Device);
    for lifetime_seconds_max in [0, TOKEN_LIFETIME_SECONDS_MAX + 1] {
        let spec = TokenKeySpec { lifetime_seconds_max, ..spec };
        assert_eq!(fault(&spec), TokenKeyFault::Lifetime);
    }
    assert_eq!(fault(&TokenKeySpec { issuer: "", ..spec }), TokenKeyFault::Form("issuer"));
    assert_eq!(fault(&TokenKeySpec { kid: "a b", ..spec }), TokenKeyFault::Form("kid"));
    let twice = vec![TokenKey::new(&spec).unwrap(), TokenKey::new(&spec).unwrap()];
    let twice = TokenKeys::new(twice, 4096, 5).map(|_| ());
    assert_eq!(twice, Err(TokenKeyFault::KidTwice("k1".to_owned())));
    let other_name = TokenKey::new(&TokenKeySpec { kid: "k2", issuer: "b", ..spec }).unwrap();
    let shared = vec![TokenKey::new(&spec).unwrap(), other_name];
    let (first, second) = ("k1".to_owned(), "k2".to_owned());
    let refused = TokenKeys::new(shared, 4096, 5).map(|_| ());
    assert_eq!(refused, Err(TokenKeyFault::Shared { first, second }));
    let rsa = TokenKeySpec { algorithm: TokenAlgorithm::Ps256, ..spec };
    let sign = TokenSigner::new(&rsa, &private).map(|_| ());
    assert_eq!(sign, Err(SignFault::Algorithm("PS256")));
}

proptest! {
    #[test]
    fn no_bit_of_a_token_can_change(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mint = Mint::new();
        let token = mint.forge(&header(), &claims());
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(mint.keys().verify(&bytes, NOW).is_err());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Mint::new().keys().verify(&bytes, NOW).is_err());
    }
}
