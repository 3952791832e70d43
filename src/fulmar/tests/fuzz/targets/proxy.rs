//! The PROXY header: any front is undecided or decided as the whole is, what follows the header changes nothing, and a
//! header written for the client that was read is read as that client.

use std::net::{IpAddr, SocketAddr};

use links::proxy::{HEADER_BYTES_MAX, Parsed, parse};

use crate::engine::{about, seen};

/// Runs one input.
pub fn target(data: &[u8]) {
    let all = parse(data);
    for end in 0..data.len() {
        let front = parse(&data[..end]);
        assert!(
            front == Ok(Parsed::Partial) || front == all,
            "L-6: {front:?} after {end} bytes, then {all:?}"
        );
    }
    match all {
        Ok(Parsed::Partial) => {
            assert!(data.len() < HEADER_BYTES_MAX, "L-5: nothing longer is waited for");
            seen("partial", about(data.len()));
        }
        Ok(Parsed::Absent) => seen("absent", u64::from(data.first().copied().unwrap_or_default() == b'P')),
        Err(e) => {
            assert!(!e.is_empty());
            let words = e.split(' ').filter(|w| w.bytes().all(|b| b.is_ascii_alphabetic())).take(6);
            seen("refused", words.flat_map(str::bytes).fold(7, |h, b| (h * 31 + u64::from(b)) % 257));
        }
        Ok(Parsed::Header { used, client }) => {
            assert!(used <= data.len() && used <= HEADER_BYTES_MAX);
            if used > 107 {
                seen("long", 0);
            }
            for after in [&b""[..], b"\0", b"CONNECT {}\r\n", b"PROXY TCP4 9.9.9.9 9.9.9.9 9 9\r\n"] {
                let other = [&data[..used], after].concat();
                assert_eq!(
                    parse(&other),
                    Ok(Parsed::Header { used, client }),
                    "what follows changes nothing"
                );
            }
            let Some(client) = client else { return seen("no client", used.min(20) as u64) };
            seen(if client.is_ipv4() { "client v4" } else { "client v6" }, u64::from(data[0] == b'P'));
            for header in [text(client), binary(client)] {
                let expected = Parsed::Header { used: header.len(), client: Some(client) };
                assert_eq!(parse(&header), Ok(expected), "{}", header.escape_ascii());
                seen("again", u64::from(client.is_ipv4()));
            }
        }
    }
}

fn text(client: SocketAddr) -> Vec<u8> {
    let (ip, port) = (client.ip(), client.port());
    let family = if ip.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {ip} {ip} {port} 4222\r\n").into_bytes()
}

fn binary(client: SocketAddr) -> Vec<u8> {
    let mut all = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let (family, ip) = match client.ip() {
        IpAddr::V4(ip) => (0x11, ip.octets().to_vec()),
        IpAddr::V6(ip) => (0x21, ip.octets().to_vec()),
    };
    all.extend([0x21, family, 0, 2 * ip.len() as u8 + 4]);
    all.extend([&ip[..], &ip, &client.port().to_be_bytes(), &4222u16.to_be_bytes()].concat());
    all
}
