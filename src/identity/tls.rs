//! What a client certificate says, and how it names a user.
//!
//! Parses no certificate: the TLS shell hands over facts. The order in which they are tried was observed on
//! nats-server 2.15.1, and so was the printed form of a subject.

use std::collections::BTreeSet;

/// One attribute of a distinguished name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Dotted object identifier, `2.5.4.3` for a common name.
    pub oid: String,
    /// The value as text.
    pub value: String,
}

/// The facts of a verified peer certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCert {
    /// E-mail subject alternative names, in the certificate's order.
    pub emails: Vec<String>,
    /// DNS subject alternative names.
    pub dns_names: Vec<String>,
    /// URI subject alternative names.
    pub uris: Vec<String>,
    /// The subject: relative distinguished names in the order of their encoding, each with its attributes.
    pub subject: Vec<Vec<Attribute>>,
    /// SHA-256 of the DER of the subject public key info.
    pub spki_sha256: [u8; 32],
}

const DC: &str = "0.9.2342.19200300.100.1.25";

/// The attribute types that take part in names. A subject with any other type matches only by its printed form.
const TYPES: [(&str, &str); 10] = [
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.3", "CN"),
    ("2.5.4.11", "OU"),
    ("2.5.4.10", "O"),
    ("2.5.4.17", "POSTALCODE"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.6", "C"),
    (DC, "DC"),
];

/// A relative distinguished name: its attributes as (upper-case type, value), sorted.
type Rdn = Vec<(String, String)>;

/// A distinguished name for comparison, first RDN first as RFC 2253 prints it, the reverse of the encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DistinguishedName(Vec<Rdn>);

impl DistinguishedName {
    /// Reads RFC 2253 text. Type names are matched without case, values with it.
    pub(crate) fn parse(text: &str) -> Option<DistinguishedName> {
        let mut rdns = Vec::new();
        let mut rest = text;
        loop {
            let mut rdn = Rdn::new();
            let end = loop {
                let (kind, after) = rest.split_once('=')?;
                let kind = kind.trim();
                if kind.is_empty()
                    || !kind.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
                {
                    return None;
                }
                let (value, delimiter, after) = value(after)?;
                rdn.push((kind.to_ascii_uppercase(), value));
                rest = after;
                if delimiter != Some('+') {
                    break delimiter;
                }
            };
            rdn.sort();
            rdns.push(rdn);
            if end.is_none() {
                return Some(DistinguishedName(rdns));
            }
        }
    }

    /// The subject of a certificate, unless it has none or an attribute of an unknown type.
    fn of(cert: &PeerCert) -> Option<DistinguishedName> {
        let mut rdns = Vec::with_capacity(cert.subject.len());
        for attributes in cert.subject.iter().rev() {
            let mut rdn = Rdn::with_capacity(attributes.len());
            for a in attributes {
                rdn.push((type_name(&a.oid)?.to_owned(), a.value.clone()));
            }
            rdn.sort();
            rdns.push(rdn);
        }
        (!rdns.is_empty()).then_some(DistinguishedName(rdns))
    }

    /// The same RDNs, in whatever order.
    fn unordered(&self) -> Vec<Rdn> {
        let mut rdns = self.0.clone();
        rdns.sort();
        rdns
    }
}

/// Reads an attribute value up to an unescaped `,` or `+`: the value, the delimiter, what follows it.
fn value(text: &str) -> Option<(String, Option<char>, &str)> {
    let text = text.trim_start_matches(' ');
    // `#` begins a hexadecimal encoding of the value, which no user name needs.
    if text.starts_with('#') {
        return None;
    }
    let (mut bytes, mut keep) = (Vec::new(), 0);
    let mut chars = text.char_indices();
    let (mut delimiter, mut after) = (None, "");
    while let Some((at, c)) = chars.next() {
        match c {
            ',' | '+' => {
                (delimiter, after) = (Some(c), &text[at + 1..]);
                break;
            }
            '\\' => {
                let (_, first) = chars.next()?;
                if let Some(high) = first.to_digit(16) {
                    let low = chars.next()?.1.to_digit(16)?;
                    bytes.push((high * 16 + low) as u8);
                } else if " ,+\"\\<>;=#".contains(first) {
                    bytes.push(first as u8);
                } else {
                    return None;
                }
                // An escaped space at the end belongs to the value.
                keep = bytes.len();
            }
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    while bytes.len() > keep && bytes.last() == Some(&b' ') {
        bytes.pop();
    }
    Some((String::from_utf8(bytes).ok()?, delimiter, after))
}

fn type_name(oid: &str) -> Option<&'static str> {
    TYPES.iter().find(|(o, _)| *o == oid).map(|(_, name)| *name)
}

/// The printed subject: known types only, in a fixed order, several values of one type joined by `+`. A common name
/// or serial number that occurs twice is printed once, the last one.
fn printed(cert: &PeerCert) -> String {
    let mut parts = Vec::new();
    for (oid, name) in TYPES.iter().filter(|(oid, _)| *oid != DC) {
        let mut values: Vec<String> = values(cert, oid).map(|v| format!("{name}={}", escaped(v))).collect();
        if matches!(*name, "CN" | "SERIALNUMBER") && values.len() > 1 {
            values.drain(..values.len() - 1);
        }
        if !values.is_empty() {
            parts.push(values.join("+"));
        }
    }
    parts.join(",")
}

/// The printed subject followed by its domain components, where it has any.
fn printed_with_domain(cert: &PeerCert) -> Option<String> {
    let mut text = printed(cert);
    let mut any = false;
    for value in values(cert, DC) {
        any = true;
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str("DC=");
        text.push_str(&escaped(value));
    }
    any.then_some(text)
}

fn values<'a>(cert: &'a PeerCert, oid: &'a str) -> impl Iterator<Item = &'a str> {
    cert.subject.iter().flatten().filter(move |a| a.oid == oid).map(|a| a.value.as_str())
}

/// A value of a distinguished name as it is printed (RFC 4514).
pub fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (i, c) in value.chars().enumerate() {
        let special = match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => true,
            '#' => i == 0,
            ' ' => i == 0 || i == last,
            _ => false,
        };
        if special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Finds the user that a certificate names: by e-mail, DNS name and URI, then by the distinguished name in its order,
/// in any order, and last by its printed form with and without domain components.
///
/// `by_name` finds a user by its exact name; `by_dn` are all users whose names are distinguished names, in a fixed
/// order. Both hold only users that may use the connection.
pub(crate) fn map_user<'a, T>(
    cert: &PeerCert,
    by_name: impl Fn(&str) -> Option<T>,
    by_dn: impl Fn() -> Vec<(&'a DistinguishedName, T)>,
) -> Option<T> {
    for name in cert.emails.iter().chain(&cert.dns_names).chain(&cert.uris).filter(|n| !n.is_empty()) {
        if let Some(user) = by_name(name) {
            return Some(user);
        }
    }
    if let Some(dn) = DistinguishedName::of(cert) {
        let mut users = by_dn();
        if let Some(i) = users.iter().position(|(name, _)| **name == dn) {
            return Some(users.swap_remove(i).1);
        }
        let any_order = dn.unordered();
        if let Some(i) = users.iter().position(|(name, _)| name.unordered() == any_order) {
            return Some(users.swap_remove(i).1);
        }
    }
    let subject = printed(cert);
    printed_with_domain(cert)
        .and_then(|name| by_name(&name))
        .or_else(|| if subject.is_empty() { None } else { by_name(&subject) })
}

/// `pinned_certs`: the public keys that a TLS block accepts. An empty list accepts all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinnedCerts(BTreeSet<[u8; 32]>);

impl PinnedCerts {
    /// Reads hexadecimal SHA-256 digests.
    ///
    /// # Errors
    /// The first text that is not 64 hexadecimal digits.
    pub fn parse<S: AsRef<str>>(list: &[S]) -> Result<PinnedCerts, String> {
        let mut set = BTreeSet::new();
        for text in list {
            set.insert(digest(text.as_ref()).ok_or_else(|| text.as_ref().to_owned())?);
        }
        Ok(PinnedCerts(set))
    }

    /// Whether a peer with this key may connect; a peer without a certificate passes only where nothing is pinned.
    pub fn accepts(&self, cert: Option<&PeerCert>) -> bool {
        self.0.is_empty() || cert.is_some_and(|c| self.0.contains(&c.spki_sha256))
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let nibble = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `C=US/O=x` with `+` between attributes of one RDN, in the order of the encoding.
    fn subject(text: &str) -> PeerCert {
        let oid = |name: &str| match TYPES.iter().find(|(_, n)| *n == name) {
            Some((oid, _)) => (*oid).to_owned(),
            None => "1.2.3.4".to_owned(),
        };
        let rdn = |r: &str| {
            let pairs = r.split('+').map(|a| a.split_once('=').unwrap());
            pairs.map(|(n, v)| Attribute { oid: oid(n), value: v.to_owned() }).collect()
        };
        PeerCert { subject: text.split('/').map(rdn).collect(), ..PeerCert::default() }
    }

    fn mapped(cert: &PeerCert, users: &[&str]) -> Option<String> {
        let names: Vec<_> = users.iter().filter_map(|u| Some((DistinguishedName::parse(u)?, *u))).collect();
        map_user(
            cert,
            |name| users.iter().find(|u| **u == name).map(|u| (*u).to_owned()),
            || names.iter().map(|(dn, u)| (dn, (*u).to_owned())).collect(),
        )
    }

    #[test]
    fn alternative_names_come_first_in_their_order() {
        let cert = PeerCert {
            emails: vec!["a@x.io".into(), "b@x.io".into()],
            dns_names: vec!["d.io".into()],
            uris: vec!["spiffe://x/y".into()],
            ..subject("CN=e")
        };
        for name in ["a@x.io", "b@x.io", "d.io", "spiffe://x/y", "CN=e"] {
            assert_eq!(mapped(&cert, &[name]).as_deref(), Some(name));
        }
        assert_eq!(mapped(&cert, &["d.io", "b@x.io"]).as_deref(), Some("b@x.io"));
        assert_eq!(mapped(&cert, &["CN=e", "spiffe://x/y"]).as_deref(), Some("spiffe://x/y"));
        for name in ["e", "A@x.io", "x", ""] {
            assert_eq!(mapped(&cert, &[name]), None, "{name}");
        }
    }

    #[test]
    fn distinguished_names_as_observed() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (
                "C=US/O=Acme, Inc/OU=Dev/CN=joe",
                &[
                    "CN=joe,OU=Dev,O=Acme\\, Inc,C=US",
                    "C=US,O=Acme\\, Inc,OU=Dev,CN=joe",
                    "O=Acme\\, Inc,C=US,CN=joe,OU=Dev",
                    "CN=joe, OU=Dev, O=Acme\\, Inc, C=US",
                    "cn=joe,ou=Dev,o=Acme\\, Inc,c=US",
                    "CN=joe,OU=Dev,O=Acme\\2c Inc,C=US",
                ],
                &[
                    "CN=JOE,OU=Dev,O=Acme\\, Inc,C=US",
                    "CN=joe,OU=Dev,C=US",
                    "2.5.4.3=joe,OU=Dev,O=Acme\\, Inc,C=US",
                ],
            ),
            (
                "DC=com/DC=example/O=users/CN=Jane \"J\" #1",
                &[
                    "CN=Jane \\\"J\\\" #1,O=users,DC=example,DC=com",
                    "CN=Jane \\\"J\\\" #1,O=users",
                    "DC=com,DC=example,O=users,CN=Jane \\\"J\\\" #1",
                    "O=users,DC=com,CN=Jane \\\"J\\\" #1,DC=example",
                ],
                &["O=users,CN=Jane \\\"J\\\" #1"],
            ),
            (
                "CN=m+UID=77/O=x",
                &["CN=m,O=x"],
                &["CN=m+UID=77,O=x", "O=x,UID=77+CN=m", "CN=m,O=x,UID=77", "O=x,CN=m"],
            ),
            (
                "O=a/OU=1/OU=2/CN=two",
                &[
                    "CN=two,OU=2,OU=1,O=a",
                    "CN=two,OU=1,OU=2,O=a",
                    "CN=two,OU=1+OU=2,O=a",
                    "O=a,CN=two,OU=1,OU=2",
                ],
                &["CN=two,OU=2+OU=1,O=a", "CN=two,OU=1,OU=1,O=a"],
            ),
            (
                "DC=com/DC=example/OU=a/OU=b/O=users/CN=k",
                &[
                    "CN=k,O=users,OU=b,OU=a,DC=example,DC=com",
                    "CN=k,OU=a+OU=b,O=users,DC=com,DC=example",
                    "CN=k,OU=a+OU=b,O=users",
                ],
                &["CN=k,O=users,OU=a+OU=b,DC=example,DC=com", "CN=k,O=users,DC=example,DC=com"],
            ),
            ("title=Mr/CN=tt", &["CN=tt"], &["CN=tt,title=Mr", "CN=tt,TITLE=Mr"]),
        ];
        for (cert, good, bad) in cases {
            let cert = subject(cert);
            for name in *good {
                assert_eq!(mapped(&cert, &["z", name]).as_deref(), Some(*name), "{name}");
            }
            for name in *bad {
                assert_eq!(mapped(&cert, &[name]), None, "{name}");
            }
        }
        let cert = subject("O=a/CN=b");
        assert_eq!(
            mapped(&cert, &["O=a,CN=b", "CN=b,O=a"]).as_deref(),
            Some("CN=b,O=a"),
            "the exact order is first"
        );
    }

    #[test]
    fn printed_form_as_observed() {
        let text = |s: &str| printed(&subject(s));
        assert_eq!(
            text(
                "C=US/ST=S/L=L1/O=O1/OU=U1/CN=c1/OU=U2/O=O2/L=L2/STREET=T/POSTALCODE=P/SERIALNUMBER=N/CN=c2/SERIALNUMBER=N2/C=CA"
            ),
            "SERIALNUMBER=N2,CN=c2,OU=U1+OU=U2,O=O1+O=O2,POSTALCODE=P,STREET=T,L=L1+L=L2,ST=S,C=US+C=CA"
        );
        assert_eq!(text("CN=#a<b>;c=d\\e/O= sp ace /OU=q"), "CN=\\#a\\<b\\>\\;c=d\\\\e,OU=q,O=\\ sp ace\\ ");
        assert_eq!(text("UID=77"), "");
        assert_eq!(mapped(&subject("UID=77"), &["", "UID=77"]), None);
        assert_eq!(
            printed_with_domain(&subject("CN=k/DC=example/DC=com")).as_deref(),
            Some("CN=k,DC=example,DC=com")
        );
    }

    #[test]
    fn text_that_is_no_name() {
        for bad in
            ["", "joe", "=x", "CN=a,", "CN=a,b", "CN=a\\", "CN=a\\g", "CN=a\\4", "CN=#04", "C N=a", "CN=\\ff"]
        {
            assert_eq!(DistinguishedName::parse(bad), None, "{bad}");
        }
        let spaces = DistinguishedName::parse("CN=  a\\  , O = b ").unwrap();
        assert_eq!(
            spaces.0,
            [vec![("CN".to_owned(), "a ".to_owned())], vec![("O".to_owned(), "b".to_owned())]]
        );
    }

    #[test]
    fn pinned_keys() {
        let hex = "00ff".repeat(16);
        let pins = PinnedCerts::parse(&[hex.to_uppercase()]).unwrap();
        let key: [u8; 32] = std::array::from_fn(|i| if i % 2 == 0 { 0 } else { 0xff });
        let cert = PeerCert { spki_sha256: key, ..PeerCert::default() };
        assert!(pins.accepts(Some(&cert)));
        assert!(!pins.accepts(Some(&PeerCert::default())) && !pins.accepts(None));
        assert!(PinnedCerts::default().accepts(None));
        for bad in ["", "00", &"0g".repeat(32), &"é".repeat(32), &hex[1..]] {
            assert_eq!(PinnedCerts::parse(&[bad]), Err(bad.to_owned()));
        }
    }

    proptest! {
        /// What is printed reads back as the same name, whatever the value holds.
        #[test]
        fn printing_and_parsing_are_inverse(cn in "\\PC{1,12}", o in "[ ,+#\\\\<>;\"a=]{1,8}") {
            let cert = PeerCert {
                subject: vec![
                    vec![Attribute { oid: "2.5.4.10".into(), value: o }],
                    vec![Attribute { oid: "2.5.4.3".into(), value: cn }],
                ],
                ..PeerCert::default()
            };
            prop_assert_eq!(DistinguishedName::parse(&printed(&cert)), DistinguishedName::of(&cert));
        }

        #[test]
        fn no_text_panics(text in "[CNO=,+\\\\ #0-9aé]{0,24}", any in "\\PC{0,30}") {
            let _ = (DistinguishedName::parse(&text), DistinguishedName::parse(&any));
            prop_assert!(PinnedCerts::parse(&[any]).is_err());
        }
    }
}
