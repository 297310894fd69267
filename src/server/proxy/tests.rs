//! Headers as bytes, whole and in pieces.

#![expect(clippy::disallowed_methods, reason = "sockets of the test")]

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::*;

fn from(text: &str) -> Option<Source> {
    Some(Source::Client(text.parse().unwrap()))
}

/// A header of version 2 around `body`.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[command, family], &length, body].concat()
}

/// 192.0.2.7:4660 to 127.0.0.1:8884.
const TCP4: [u8; 12] = [192, 0, 2, 7, 127, 0, 0, 1, 0x12, 0x34, 0x22, 0xb4];

fn parse_v2(header: &[u8]) -> Option<Source> {
    let (head, body) = header.split_first_chunk()?;
    let head = V2Head::parse(head)?;
    (usize::from(head.length) == body.len()).then(|| head.source(body))?
}

/// What [`read_header`] makes of `pieces`, and what it leaves.
fn read(version: ProxyVersion, pieces: Vec<Vec<u8>>) -> (Result<Source, ProxyRefusal>, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reading = async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = async {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.set_nodelay(true).unwrap();
            for piece in pieces {
                if client.write_all(&piece).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            let _ = client.shutdown().await;
            client
        };
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let source = read_header(&mut socket, version).await;
            let mut rest = Vec::new();
            if source.is_ok() {
                socket.read_to_end(&mut rest).await.unwrap();
            }
            (source, rest)
        };
        tokio::join!(client, server).1
    };
    let within = Duration::from_secs(10);
    runtime.block_on(async { tokio::time::timeout(within, reading).await.unwrap() })
}

#[test]
fn version_1_is_read_to_the_letter() {
    let good = [
        ("PROXY TCP4 192.0.2.7 127.0.0.1 4660 8884\r\n", from("192.0.2.7:4660")),
        ("PROXY TCP6 2001:db8::7 ::1 4660 8884\r\n", from("[2001:db8::7]:4660")),
        ("PROXY UNKNOWN\r\n", Some(Source::Socket)),
        ("PROXY UNKNOWN ffff::1 what ever\r\n", Some(Source::Socket)),
    ];
    for (line, source) in good {
        assert_eq!(parse_v1(line.as_bytes()), source, "{line:?}");
    }
    for line in [
        "",
        "\r\n",
        "PROXY\r\n",
        "PROXY TCP4 192.0.2.7 127.0.0.1 4660 8884\n",
        "PROXY TCP4 192.0.2.7 127.0.0.1 4660\r\n",
        "PROXY TCP4 192.0.2.7 127.0.0.1 4660 8884 1\r\n",
        "PROXY TCP4  192.0.2.7 127.0.0.1 4660 8884\r\n",
        "PROXY TCP4 192.0.2.07 127.0.0.1 4660 8884\r\n",
        "PROXY TCP4 192.0.2.7 127.0.0.1 +4660 8884\r\n",
        "PROXY TCP4 192.0.2.7 127.0.0.1 04660 8884\r\n",
        "PROXY TCP4 192.0.2.7 127.0.0.1 65536 8884\r\n",
        "PROXY TCP4 ::1 ::1 4660 8884\r\n",
        "PROXY TCP6 192.0.2.7 127.0.0.1 4660 8884\r\n",
        "PROXY UDP4 192.0.2.7 127.0.0.1 4660 8884\r\n",
        "proxy TCP4 192.0.2.7 127.0.0.1 4660 8884\r\n",
    ] {
        assert_eq!(parse_v1(line.as_bytes()), None, "{line:?}");
    }
}

#[test]
fn version_2_is_read_to_the_byte() {
    assert_eq!(parse_v2(&v2(0x21, 0x11, &TCP4)), from("192.0.2.7:4660"));
    let tcp6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0x12, 0x34, 0, 1]].concat();
    assert_eq!(parse_v2(&v2(0x21, 0x21, &tcp6)), from("[::1]:4660"));
    // A TLV of type 0x04 (padding), three bytes long.
    let padded = [&TCP4[..], &[4, 0, 3, 1, 2, 3]].concat();
    assert_eq!(parse_v2(&v2(0x21, 0x11, &padded)), from("192.0.2.7:4660"));
    assert_eq!(parse_v2(&v2(0x20, 0x00, &[])), Some(Source::Socket));
    assert_eq!(parse_v2(&v2(0x20, 0x11, &[9])), Some(Source::Socket), "LOCAL ignores the rest");
    assert_eq!(parse_v2(&v2(0x21, 0x00, &[])), Some(Source::Socket));
    let bad = [
        ("version 1", v2(0x11, 0x11, &TCP4)),
        ("an unknown command", v2(0x22, 0x11, &TCP4)),
        ("UDP", v2(0x21, 0x12, &TCP4)),
        ("a Unix socket", v2(0x21, 0x31, &[0; 216])),
        ("addresses cut short", v2(0x21, 0x11, &TCP4[..11])),
        ("IPv6 addresses cut short", v2(0x21, 0x21, &tcp6[..35])),
        ("another signature", v2(0x21, 0x11, &TCP4).split_off(1)),
    ];
    for (what, header) in bad {
        assert_eq!(parse_v2(&header), None, "{what}");
    }
}

#[test]
fn a23_proxy_v2_tlv_overrun() {
    for tlv in [&[4, 0, 1][..], &[4, 0xff, 0xff, 1], &[4, 0], &[4], &[4, 0, 1, 7, 4]] {
        let header = v2(0x21, 0x11, &[&TCP4[..], tlv].concat());
        assert_eq!(parse_v2(&header), None, "{tlv:?}");
        let (source, _) = read(ProxyVersion::V2, vec![header]);
        assert_eq!(source, Err(ProxyRefusal::Malformed), "{tlv:?}");
    }
}

#[test]
fn the_bounds_hold_and_one_byte_more_does_not() {
    let padding = |total: usize| {
        let value = total - V2_HEAD_BYTES - TCP4.len() - 3;
        let length = u16::try_from(value).unwrap().to_be_bytes();
        v2(0x21, 0x11, &[&TCP4[..], &[4], &length, &vec![0; value]].concat())
    };
    assert!(read(ProxyVersion::V2, vec![padding(V2_BYTES_MAX)]).0.is_ok());
    let (source, _) = read(ProxyVersion::V2, vec![padding(V2_BYTES_MAX + 1)]);
    assert_eq!(source, Err(ProxyRefusal::TooLong));
    let unknown = |total: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(total - 16));
    let longest = unknown(V1_BYTES_MAX).into_bytes();
    assert_eq!(longest.len(), V1_BYTES_MAX);
    assert_eq!(read(ProxyVersion::V1, vec![longest]).0, Ok(Source::Socket));
    let longer = unknown(V1_BYTES_MAX + 1).into_bytes();
    assert_eq!(read(ProxyVersion::V1, vec![longer]).0, Err(ProxyRefusal::TooLong));
}

#[test]
fn what_is_no_header_of_the_version_is_refused_at_once() {
    let (v1, v2) = (b"PROXY UNKNOWN\r\n".to_vec(), v2(0x20, 0, &[]));
    let hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0, 0, 0];
    for (version, bytes, refusal) in [
        (ProxyVersion::V1, v2, ProxyRefusal::Malformed),
        (ProxyVersion::V2, v1, ProxyRefusal::Closed),
        (ProxyVersion::V1, hello.clone(), ProxyRefusal::Malformed),
        (ProxyVersion::V2, hello, ProxyRefusal::Malformed),
        (ProxyVersion::V1, b"PROXY TC".to_vec(), ProxyRefusal::Closed),
        (ProxyVersion::V1, Vec::new(), ProxyRefusal::Closed),
    ] {
        assert_eq!(read(version, vec![bytes.clone()]).0, Err(refusal), "{bytes:02x?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn however_it_is_cut_exactly_the_header_is_taken(
        cuts in proptest::collection::vec(1_usize..40, 0..8),
        tls in proptest::collection::vec(any::<u8>(), 0..64),
        is_v1 in any::<bool>(),
    ) {
        let (version, header) = if is_v1 {
            (ProxyVersion::V1, b"PROXY TCP4 192.0.2.7 127.0.0.1 4660 8884\r\n".to_vec())
        } else {
            (ProxyVersion::V2, v2(0x21, 0x11, &TCP4))
        };
        let mut rest = [header, tls.clone()].concat();
        let mut pieces = Vec::new();
        for cut in cuts {
            let behind = rest.split_off(cut.min(rest.len()));
            pieces.push(std::mem::replace(&mut rest, behind));
        }
        pieces.push(rest);
        let (source, left) = read(version, pieces);
        prop_assert_eq!(source.ok(), from("192.0.2.7:4660"));
        prop_assert_eq!(left, tls);
    }
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse_v1(&bytes);
        let _ = parse_v1(&[b"PROXY ", &bytes[..], b"\r\n"].concat());
        let _ = parse_v2(&bytes);
        for family in [0x00, 0x11, 0x21] {
            let _ = parse_v2(&v2(0x21, family, &bytes));
        }
        let _ = tlvs_fit(&bytes);
    }
}
