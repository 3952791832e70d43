//! The PROXY protocol, versions 1 and 2: what a load balancer says of the client behind it, before the client's first byte.
//!
//! Owns the reading of a header from bytes. Does no I/O and knows no deadline: `handshake` brings the bytes. As
//! nats-server does, a connection that does not begin with a header is taken as a direct one.
//!
//! Invariant L-5: no more than [`HEADER_BYTES_MAX`] bytes are ever waited for.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

/// How long a proxy may take to say whom it speaks for, as with nats-server.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest header in bytes: version 2's fixed part and the largest length that it can state.
pub const HEADER_BYTES_MAX: usize = V2_FIXED_BYTES + u16::MAX as usize;
/// Longest line of version 1 in bytes, CRLF included.
const V1_BYTES_MAX: usize = 107;
const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\x00\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;

/// What the front of a connection's bytes is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// More bytes are needed to tell.
    Partial,
    /// There is no header; the bytes are the client's own.
    Absent,
    /// A header of `used` bytes.
    Header {
        /// Its length.
        used: usize,
        /// The client's address; none where the proxy speaks for itself or does not know.
        client: Option<SocketAddr>,
    },
}

/// Reads the front of a connection's bytes.
///
/// # Errors
/// What is wrong with the header, in the words of nats-server's log.
pub fn parse(buf: &[u8]) -> Result<Parsed, String> {
    if buf.starts_with(V2_START) {
        return v2(buf);
    }
    if buf.starts_with(V1_START) {
        return v1(buf);
    }
    if V1_START.starts_with(buf) || V2_START.starts_with(buf) {
        return Ok(Parsed::Partial);
    }
    Ok(Parsed::Absent)
}

fn invalid(text: &str) -> String {
    format!("invalid PROXY protocol header: {text}")
}

fn v1(buf: &[u8]) -> Result<Parsed, String> {
    let window = &buf[..buf.len().min(V1_BYTES_MAX)];
    let Some(end) = window.iter().position(|&b| b == b'\n') else {
        return if buf.len() >= V1_BYTES_MAX {
            Err(invalid("v1 line too long"))
        } else {
            Ok(Parsed::Partial)
        };
    };
    let bad = || invalid("invalid v1 format");
    let line = window[V1_START.len()..end].strip_suffix(b"\r").ok_or_else(bad)?;
    let line = std::str::from_utf8(line).map_err(|_| bad())?;
    let used = end + 1;
    let mut words = line.split(' ').filter(|w| !w.is_empty());
    let protocol = words.next().ok_or_else(bad)?;
    if protocol == "UNKNOWN" {
        return Ok(Parsed::Header { used, client: None });
    }
    let [source, destination, source_port, destination_port] = std::array::from_fn(|_| words.next());
    let (Some(source), Some(destination)) = (source, destination) else { return Err(bad()) };
    let (Some(source_port), Some(destination_port)) = (source_port, destination_port) else {
        return Err(bad());
    };
    if words.next().is_some() {
        return Err(bad());
    }
    let address = |text: &str| text.parse::<IpAddr>().map_err(|_| invalid("invalid address"));
    let port = |what, text: &str| text.parse::<u16>().map_err(|_| format!("invalid {what} port: {text:?}"));
    let (source, destination) = (address(source)?, address(destination)?);
    let client = SocketAddr::new(source.to_canonical(), port("source", source_port)?);
    port("destination", destination_port)?;
    match protocol {
        "TCP4" if source.is_ipv4() && destination.is_ipv4() => {}
        "TCP4" => return Err(invalid("TCP4 with IPv6 address")),
        "TCP6" if source.is_ipv6() && destination.is_ipv6() => {}
        "TCP6" => return Err(invalid("TCP6 with IPv4 address")),
        other => return Err(invalid(&format!("invalid protocol {other}"))),
    }
    Ok(Parsed::Header { used, client: Some(client) })
}

fn v2(buf: &[u8]) -> Result<Parsed, String> {
    let Some((fixed, rest)) = buf.split_at_checked(V2_FIXED_BYTES) else { return Ok(Parsed::Partial) };
    let (version, command, family, transport) =
        (fixed[12] & 0xf0, fixed[12] & 0x0f, fixed[13] & 0xf0, fixed[13] & 0x0f);
    if version != 0x20 {
        return Err(invalid(&format!("invalid version 0x{version:02x}")));
    }
    let len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let used = V2_FIXED_BYTES + len;
    match command {
        // The proxy speaks for itself (a health check).
        0 => {
            return Ok(if rest.len() < len {
                Parsed::Partial
            } else {
                Parsed::Header { used, client: None }
            });
        }
        1 => {}
        _ => return Err(format!("unknown PROXY protocol command: 0x{command:02x}")),
    }
    let unsupported = |what: String| Err(format!("unsupported PROXY protocol feature: {what}"));
    if transport != 1 {
        return unsupported("only STREAM protocol supported".into());
    }
    let (name, needed) = match family {
        0x10 => ("IPv4", 12),
        0x20 => ("IPv6", 36),
        _ => return unsupported(format!("unsupported address family 0x{family:02x}")),
    };
    if len < needed {
        return Err(format!("{name} address data too short: {len} bytes"));
    }
    let Some(body) = rest.get(..len) else { return Ok(Parsed::Partial) };
    let (ip, port): (IpAddr, &[u8]) = if family == 0x10 {
        let raw: [u8; 4] = body[..4].try_into().expect("the length was checked above");
        (Ipv4Addr::from(raw).into(), &body[8..10])
    } else {
        let raw: [u8; 16] = body[..16].try_into().expect("the length was checked above");
        (Ipv6Addr::from(raw).into(), &body[32..34])
    };
    let port = u16::from_be_bytes([port[0], port[1]]);
    Ok(Parsed::Header { used, client: Some(SocketAddr::new(ip.to_canonical(), port)) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(text: &str) -> Result<Option<String>, String> {
        match parse(text.as_bytes())? {
            Parsed::Header { used, client } => {
                assert_eq!(used, text.len());
                Ok(client.map(|a| a.to_string()))
            }
            other => panic!("{other:?}"),
        }
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut all = V2_START.to_vec();
        all.extend([0x20 | command, family]);
        all.extend((body.len() as u16).to_be_bytes());
        all.extend(body);
        all
    }

    #[test]
    fn version_1() {
        let ok = |text, client: &str| assert_eq!(header(text), Ok(Some(client.into())));
        ok("PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\n", "1.2.3.4:111");
        ok("PROXY TCP4 1.2.3.4 5.6.7.8 0111 222\r\n", "1.2.3.4:111");
        ok("PROXY TCP6 ::1 ::2 111 222\r\n", "[::1]:111");
        ok("PROXY TCP6 ::ffff:1.2.3.4 ::2 111 222\r\n", "1.2.3.4:111");
        assert_eq!(header("PROXY UNKNOWN\r\n"), Ok(None));
        assert_eq!(header("PROXY UNKNOWN a b c\r\n"), Ok(None));
        for bad in [
            "PROXY TCP4 x y z\r\n",
            "PROXY TCP4 ::1 ::2 1 2\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 111 222\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 70000 222\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 -1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 222 4\r\n",
            "PROXY \r\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let long = format!("PROXY TCP4 {}", "x".repeat(V1_BYTES_MAX));
        assert_eq!(parse(long.as_bytes()), Err("invalid PROXY protocol header: v1 line too long".into()));
    }

    #[test]
    fn version_2() {
        let four = [9, 8, 7, 6, 1, 1, 1, 1, 0, 77, 0, 88];
        let with = |b: Vec<u8>| match parse(&b).unwrap() {
            Parsed::Header { used, client } if used == b.len() => client.map(|a| a.to_string()),
            other => panic!("{other:?}"),
        };
        assert_eq!(with(binary(1, 0x11, &four)).as_deref(), Some("9.8.7.6:77"));
        assert_eq!(
            with(binary(1, 0x11, &[&four[..], b"\x04\x00\x02ab"].concat())).as_deref(),
            Some("9.8.7.6:77")
        );
        let mut six = [0; 36];
        (six[15], six[33]) = (9, 77);
        assert_eq!(with(binary(1, 0x21, &six)).as_deref(), Some("[::9]:77"));
        assert_eq!(with(binary(0, 0, b"")), None);
        assert_eq!(with(binary(0, 0x11, b"abc")), None);
        assert_eq!(with(binary(1, 0x11, &[&four[..], &[0; 65000]].concat())).as_deref(), Some("9.8.7.6:77"));
        for (b, text) in [
            (binary(1, 0x12, &four), "only STREAM"),
            (binary(1, 0, b""), "only STREAM"),
            (binary(1, 0x31, &[0; 216]), "family 0x30"),
            (binary(1, 0x11, &[0; 4]), "IPv4 address data too short: 4 bytes"),
            (binary(2, 0x11, &four), "command: 0x02"),
            (binary(0x31, 0x11, &four), "invalid version 0x30"),
        ] {
            let e = parse(&b).unwrap_err();
            assert!(e.contains(text), "{e}");
        }
    }

    #[test]
    fn a_direct_client() {
        for b in [&b"CONNECT {}\r\n"[..], b"PING\r\n", b"\x16\x03\x01", b"PUB", b"\r\nx"] {
            assert_eq!(parse(b), Ok(Parsed::Absent));
        }
        assert_eq!(parse(b""), Ok(Parsed::Partial));
        assert_eq!(parse(b"P"), Ok(Parsed::Partial));
        assert_eq!(parse(b"\r\n"), Ok(Parsed::Partial));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Whatever comes, the answer is one that stays: a front is either undecided or decided as the whole is.
        #[test]
        fn l5_any_front_is_partial_or_final(
            which in 0..4, noise in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()
        ) {
            let whole = match which {
                0 => noise,
                1 => [V1_START, &noise].concat(),
                2 => [V2_START, &noise].concat(),
                _ => [b"PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\n", &noise[..]].concat(),
            };
            prop_assume!(!whole.is_empty());
            let all = parse(&whole);
            let front = parse(&whole[..at.index(whole.len())]);
            prop_assert!(front == Ok(Parsed::Partial) || front == all, "{front:?} then {all:?}");
            if let Ok(Parsed::Header { used, .. }) = all {
                prop_assert!(used <= whole.len() && used <= HEADER_BYTES_MAX);
            }
        }
    }
}
