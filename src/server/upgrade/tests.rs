//! Request heads as texts, whole and in pieces.

use proptest::prelude::*;

use super::*;

fn rules() -> UpgradeRules {
    UpgradeRules {
        path: "/mqtt".to_owned(),
        origins: vec!["https://plant.example".to_owned(), "https://wall.example:8443".to_owned()],
        allow_no_origin: false,
    }
}

/// A request with one line changed: the line that begins with `name` becomes `line`.
fn request(name: &str, line: &str) -> String {
    let lines = [
        "GET /mqtt HTTP/1.1",
        "Host: plant.example:8884",
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Origin: https://plant.example",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: mqttv3.1, mqtt",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    ];
    let mut head = String::new();
    for kept in lines {
        let kept = if !name.is_empty() && kept.starts_with(name) { line } else { kept };
        head += kept;
        head += if kept.is_empty() { "" } else { "\r\n" };
    }
    head + "\r\n"
}

fn judged(text: &str, rules: &UpgradeRules) -> Result<String, UpgradeRefusal> {
    let head = Head { bytes: text.as_bytes().to_vec(), behind: Vec::new() };
    judge(&head, rules).map(|answer| String::from_utf8(answer).unwrap())
}

#[test]
fn a_request_is_accepted_with_the_subprotocol_and_no_extension() {
    insta::assert_snapshot!(judged(&request("", ""), &rules()).unwrap().replace('\r', ""), @r"
    HTTP/1.1 101 Switching Protocols
    connection: Upgrade
    upgrade: websocket
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
    sec-websocket-protocol: mqtt
    ");
    let other = request("Origin", "origin: https://wall.example:8443");
    assert!(judged(&other, &rules()).is_ok());
}

#[test]
fn what_is_wrong_with_a_request_has_a_name() {
    use UpgradeRefusal as R;
    let rows = [
        ("GET", "POST /mqtt HTTP/1.1", R::Malformed),
        ("GET", "GET /mqtt HTTP/1.0", R::Malformed),
        ("GET", "GET / HTTP/1.1", R::Path),
        ("GET", "GET /mqtt/ HTTP/1.1", R::Path),
        ("GET", "GET /mqtt?token=secret HTTP/1.1", R::Path),
        ("GET", "GET https://plant.example/mqtt HTTP/1.1", R::Path),
        ("Host", "Content-Length: 5", R::Malformed),
        ("Host", "Transfer-Encoding: chunked", R::Malformed),
        ("Connection", "Connection: close", R::NotWebSocket),
        ("Upgrade", "Upgrade: h2c", R::NotWebSocket),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8", R::NotWebSocket),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: short", R::NotWebSocket),
        ("Sec-WebSocket-Key", "", R::NotWebSocket),
        // [MQTT-6.0.0-3]
        ("Sec-WebSocket-Protocol", "", R::Subprotocol),
        ("Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol: mqttv3.1", R::Subprotocol),
        ("Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol: MQTT", R::Subprotocol),
    ];
    for (name, line, refusal) in rows {
        assert_eq!(judged(&request(name, line), &rules()), Err(refusal), "{line:?}");
    }
    assert_eq!(judged("\r\n\r\n", &rules()), Err(R::Malformed));
    let bare = request("", "").replace("Host: plant.example:8884\r\n", "Host: x\n\nGET / HTTP/1.1");
    assert_eq!(judged(&bare, &rules()), Err(R::Malformed));
}

#[test]
fn f03_cross_site_websocket() {
    use UpgradeRefusal as R;
    for origin in [
        "Origin: null",
        "Origin: ",
        "Origin: *",
        "Origin: http://plant.example",
        "Origin: https://plant.example:8443",
        "Origin: https://plant.example.evil.example",
        "Origin: https://evil.example/https://plant.example",
        "Origin: https://PLANT.example",
        "Origin: https://plant.example\r\nOrigin: https://evil.example",
        "Origin: https://plant.example, https://evil.example",
    ] {
        for allow_no_origin in [false, true] {
            let rules = UpgradeRules { allow_no_origin, ..rules() };
            assert_eq!(judged(&request("Origin", origin), &rules), Err(R::Origin), "{origin}");
        }
    }
    assert_eq!(judged(&request("Origin", ""), &rules()), Err(R::NoOrigin));
    let open = UpgradeRules { allow_no_origin: true, ..rules() };
    assert!(judged(&request("Origin", ""), &open).is_ok());
}

fn read(bytes: &[u8], piece_bytes: usize) -> Result<Head, HeadFault> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut ours, mut theirs) = tokio::io::duplex(piece_bytes.max(1));
    runtime.block_on(async {
        let sending = async {
            let _ = theirs.write_all(bytes).await;
            drop(theirs);
        };
        let reading = async {
            let head = read_head(&mut ours).await;
            drop(ours);
            head
        };
        tokio::join!(sending, reading).1
    })
}

#[test]
fn a21_endless_websocket_upgrade_header() {
    // What goes before, a value, and the end of the head.
    let head = |bytes: usize| {
        let filler = "x".repeat(bytes - "GET / HTTP/1.1\r\nA: \r\n\r\n".len());
        format!("GET / HTTP/1.1\r\nA: {filler}\r\n\r\n")
    };
    let longest = head(HEAD_BYTES_MAX);
    assert_eq!(longest.len(), HEAD_BYTES_MAX);
    assert!(read(longest.as_bytes(), 100).is_ok());
    let longer = head(HEAD_BYTES_MAX + 1);
    assert!(matches!(read(longer.as_bytes(), 100), Err(HeadFault::TooLong)));
    let endless = vec![b'x'; 1 << 20];
    assert!(matches!(read(&endless, 4096), Err(HeadFault::TooLong)));
    assert!(matches!(read(b"GET / HTTP/1.1\r\n", 7), Err(HeadFault::Io(_))));
}

#[test]
fn every_refusal_has_a_row_of_its_own() {
    use UpgradeRefusal as R;
    let all = [
        R::TooSlow,
        R::HeadTooLong,
        R::Malformed,
        R::NotWebSocket,
        R::Path,
        R::NoOrigin,
        R::Origin,
        R::Subprotocol,
        R::NoCertificate,
    ];
    let rows: String = all
        .map(|refusal| {
            let answer = refusal.answer();
            assert!(answer.ends_with('\n') && answer.contains("Connection: close\r\n"));
            let status = answer.lines().next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
            format!("{} {status}\n", refusal.name())
        })
        .concat();
    insta::assert_snapshot!(rows, @r"
    websocket.timed_out 408 Request Timeout
    websocket.header_bytes 431 Request Header Fields Too Large
    websocket.malformed 400 Bad Request
    websocket.not_websocket 426 Upgrade Required
    websocket.path 404 Not Found
    websocket.no_origin 403 Forbidden
    websocket.origin 403 Forbidden
    websocket.subprotocol 400 Bad Request
    websocket.no_certificate 403 Forbidden
    ");
}

proptest! {
    #[test]
    fn however_it_is_cut_the_head_is_found(piece in 1_usize..200, behind in any::<[u8; 9]>()) {
        let text = request("", "");
        let head = read(&[text.as_bytes(), &behind].concat(), piece).unwrap();
        prop_assert_eq!(&head.bytes, text.as_bytes());
        prop_assert!(behind.starts_with(&head.behind));
    }

    #[test]
    fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let head = Head { bytes: [&bytes[..], HEAD_END].concat(), behind: Vec::new() };
        prop_assert!(judge(&head, &rules()).is_err());
        let origin = [b"Origin: ", &bytes[..]].concat();
        let lines = request("Origin", "Origin: X").into_bytes();
        let at = lines.windows(9).position(|w| w == b"Origin: X").unwrap();
        let bytes = [&lines[..at], &origin, &lines[at + 9..]].concat();
        let head = Head { bytes, behind: Vec::new() };
        prop_assert!(judge(&head, &rules()).is_err());
    }
}
