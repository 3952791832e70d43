//! The parameters of a request's URL, with nats-server's complaints about bad ones.

/// Decoded parameters in their order. A key may come more than once: the first counts.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// Parameters of one request, at most; those behind are ignored.
const PARAMETERS_MAX: usize = 64;

impl Query {
    /// Takes a query string (what follows `?`) apart. Pairs that are not encoded properly are left out.
    pub fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|p| !p.is_empty() && !p.contains(';')).take(PARAMETERS_MAX);
        Query(
            pairs
                .filter_map(|p| {
                    let (k, v) = p.split_once('=').unwrap_or((p, ""));
                    Some((decode(k)?, decode(v)?))
                })
                .collect(),
        )
    }
    /// A text; empty if it is absent.
    pub fn text(&self, key: &str) -> String {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone()).unwrap_or_default()
    }
    /// A switch; off if it is absent or empty.
    pub fn switch(&self, key: &str) -> Result<bool, String> {
        let v = self.text(key);
        match &*v {
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            _ => Err(wrong("boolean", key, "ParseBool", &v, "invalid syntax")),
        }
    }
    /// A number; zero if it is absent or empty.
    pub fn int(&self, key: &str) -> Result<i64, String> {
        let v = self.text(key);
        number(&v, "Atoi", "int", key, v.strip_prefix(['+', '-']).unwrap_or(&v))
    }
    /// A number without sign; zero if it is absent or empty.
    pub fn unsigned(&self, key: &str) -> Result<u64, String> {
        let v = self.text(key);
        number(&v, "ParseUint", "uint64", key, &v)
    }
    /// `subs`: 0, 1 or `detail`, as whether to list subscriptions and whether in detail.
    pub fn subscriptions(&self) -> Result<(bool, bool), String> {
        if self.text("subs").eq_ignore_ascii_case("detail") {
            return Ok((true, true));
        }
        Ok((self.switch("subs")?, false))
    }
}

fn number<T: std::str::FromStr + Default>(
    v: &str,
    call: &str,
    kind: &str,
    key: &str,
    digits: &str,
) -> Result<T, String> {
    if v.is_empty() {
        return Ok(T::default());
    }
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong(kind, key, call, v, "invalid syntax"));
    }
    v.parse().map_err(|_| wrong(kind, key, call, v, "value out of range"))
}

fn wrong(kind: &str, key: &str, call: &str, v: &str, why: &str) -> String {
    format!("Error decoding {kind} for '{key}': strconv.{call}: parsing {v:?}: {why}")
}

/// Undoes `%41` and `+`.
fn decode(s: &str) -> Option<String> {
    let mut out = Vec::with_capacity(s.len());
    let mut bytes = s.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            b => b,
        });
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let q = Query::parse("a=1&b=x%2Ey+z&&c&a=2&d=%zz&e=%4&subs=DETAIL");
        assert_eq!(
            (q.text("a"), q.text("b"), q.text("c"), q.text("d")),
            ("1".into(), "x.y z".into(), String::new(), String::new())
        );
        assert_eq!(q.subscriptions(), Ok((true, true)));
        assert_eq!(Query::parse("subs=t").subscriptions(), Ok((true, false)));
    }

    #[test]
    fn complaints_are_nats_server_s() {
        let q = Query::parse("n=x&m=-5&b=yes&big=99999999999999999999&p=%2B7&neg=-1");
        assert_eq!(
            q.int("n").unwrap_err(),
            r#"Error decoding int for 'n': strconv.Atoi: parsing "x": invalid syntax"#
        );
        assert_eq!(
            q.switch("b").unwrap_err(),
            r#"Error decoding boolean for 'b': strconv.ParseBool: parsing "yes": invalid syntax"#
        );
        assert_eq!(
            q.int("big").unwrap_err(),
            r#"Error decoding int for 'big': strconv.Atoi: parsing "99999999999999999999": value out of range"#
        );
        assert_eq!(
            q.unsigned("neg").unwrap_err(),
            r#"Error decoding uint64 for 'neg': strconv.ParseUint: parsing "-1": invalid syntax"#
        );
        assert_eq!((q.int("m"), q.int("p"), q.int("none")), (Ok(-5), Ok(7), Ok(0)));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken(s in ".*") {
            let q = Query::parse(&s);
            let (_, _) = (q.int("a"), q.switch("b"));
            proptest::prop_assert!(q.0.len() <= PARAMETERS_MAX);
        }
    }
}
