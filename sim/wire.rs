//! What a server sends, cut into operations. Written apart from the server's own codec.

/// One operation of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// INFO with its JSON.
    Info(String),
    /// MSG or HMSG.
    Msg {
        /// Subject.
        subject: String,
        /// sid.
        sid: String,
        /// Reply, or empty.
        reply: String,
        /// Header block.
        header: Vec<u8>,
        /// Payload.
        payload: Vec<u8>,
    },
    /// PING.
    Ping,
    /// PONG.
    Pong,
    /// +OK.
    Ok,
    /// -ERR with its text.
    Err(String),
}

/// The operation at the front and its length; `None` if it has not come whole.
pub fn cut(buf: &[u8]) -> Result<Option<(Op, usize)>, String> {
    let Some(end) = buf.windows(2).position(|w| w == b"\r\n") else {
        return if buf.len() > 70_000 { Err("a line without end".into()) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&buf[..end]).map_err(|e| format!("a line that is not UTF-8: {e}"))?;
    let used = end + 2;
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let simple = |op| Ok(Some((op, used)));
    match word {
        "INFO" => return simple(Op::Info(rest.to_owned())),
        "PING" if rest.is_empty() => return simple(Op::Ping),
        "PONG" if rest.is_empty() => return simple(Op::Pong),
        "+OK" if rest.is_empty() => return simple(Op::Ok),
        "-ERR" => return simple(Op::Err(rest.trim_matches('\'').to_owned())),
        "MSG" | "HMSG" => {}
        _ => return Err(format!("not an operation: {line:?}")),
    }
    let headers = word == "HMSG";
    let words: Vec<&str> = rest.split(' ').collect();
    let sizes = 1 + usize::from(headers);
    let (names, numbers) = match words.len().checked_sub(sizes) {
        Some(n) if n == 2 || n == 3 => words.split_at(n),
        _ => return Err(format!("wrong number of words: {line:?}")),
    };
    let number = |w: &str| w.parse::<usize>().map_err(|_| format!("not a size: {line:?}"));
    let size = number(numbers[sizes - 1])?;
    let header_len = if headers { number(numbers[0])? } else { 0 };
    if header_len > size {
        return Err(format!("headers longer than the message: {line:?}"));
    }
    if buf.len() < used + size + 2 {
        return Ok(None);
    }
    let body = &buf[used..used + size];
    if &buf[used + size..used + size + 2] != b"\r\n" {
        return Err(format!("no CRLF after the payload of {line:?}"));
    }
    let op = Op::Msg {
        subject: names[0].to_owned(),
        sid: names[1].to_owned(),
        reply: names.get(2).unwrap_or(&"").to_string(),
        header: body[..header_len].to_vec(),
        payload: body[header_len..].to_vec(),
    };
    Ok(Some((op, used + size + 2)))
}

/// A payload of `size` bytes at least, which names its publish and can be checked.
pub fn payload(publish: usize, size: usize) -> Vec<u8> {
    let mut out = format!("{publish};").into_bytes();
    let mut x = publish as u64 + 1;
    while out.len() < size {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        out.push(b'!' + (x >> 33) as u8 % 90);
    }
    out
}

/// The publish that a payload names, if it is exactly what was sent.
pub fn publish_of(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|b| *b == b';')?;
    let n: usize = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    (payload(n, bytes.len()) == bytes).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations() {
        let text = b"HMSG a.b 7 _I.1 12 15\r\nNATS/1.0\r\n\r\nxyz\r\nPONG\r\nMSG s 1 0\r\n\r\n-ERR 'No'\r\n";
        let mut at = 0;
        let mut ops = Vec::new();
        while let Some((op, n)) = cut(&text[at..]).unwrap() {
            at += n;
            ops.push(op);
        }
        assert_eq!(at, text.len());
        assert!(matches!(&ops[0], Op::Msg { header, payload, reply, .. }
            if header == b"NATS/1.0\r\n\r\n" && payload == b"xyz" && reply == "_I.1"));
        assert_eq!(&ops[1], &Op::Pong);
        assert!(matches!(&ops[2], Op::Msg { payload, reply, .. } if payload.is_empty() && reply.is_empty()));
        assert_eq!(&ops[3], &Op::Err("No".into()));
        assert!(cut(b"MSG a 1 3\r\nabcd\r\n").is_err());
    }

    #[test]
    fn payloads_name_their_publish() {
        for size in [0, 2, 100] {
            assert_eq!(publish_of(&payload(17, size)), Some(17));
        }
        let mut bad = payload(17, 100);
        bad[50] ^= 1;
        assert_eq!(publish_of(&bad), None);
    }
}
