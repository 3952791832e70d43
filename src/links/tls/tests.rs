use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair as Key,
    SanType,
};

use super::{config::matches, *};

/// An authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, Key>,
    pub pem: String,
}

/// A certificate that it has signed.
pub(crate) struct Signed {
    pub cert: String,
    pub key: String,
    pub der: Vec<u8>,
    pub spki: Vec<u8>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let key = Key::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }
    pub(crate) fn sign(&self, params: CertificateParams) -> Signed {
        let key = Key::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        Signed { cert: cert.pem(), key: key.serialize_pem(), der: cert.der().to_vec(), spki }
    }
    pub(crate) fn server(&self, names: &[&str]) -> Signed {
        let names: Vec<_> = names.iter().map(|n| n.to_string()).collect();
        self.sign(CertificateParams::new(names).unwrap())
    }
    pub(crate) fn client(&self) -> Signed {
        let mut p = CertificateParams::new(Vec::<String>::new()).unwrap();
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let mut dn = rcgen::DistinguishedName::new();
        let dc = DnType::CustomDnType(vec![0, 9, 2342, 19200300, 100, 1, 25]);
        dn.push(DnType::CountryName, "DE");
        dn.push(DnType::OrganizationName, "Acme");
        dn.push(dc, "example");
        dn.push(DnType::CommonName, "a,l \"x\"");
        p.distinguished_name = dn;
        p.subject_alt_names = vec![
            SanType::Rfc822Name("a@b.c".try_into().unwrap()),
            SanType::DnsName("cli".try_into().unwrap()),
            SanType::URI("spiffe://x/y".try_into().unwrap()),
        ];
        self.sign(p)
    }
}

impl Signed {
    pub(crate) fn pair(&self) -> KeyPair {
        KeyPair {
            cert_file: "c.pem".into(),
            cert: self.cert.clone().into(),
            key_file: "k.pem".into(),
            key: self.key.clone().into(),
        }
    }
}

#[test]
fn what_a_certificate_says() {
    use sha2::{Digest, Sha256};
    let s = Authority::new("ca").client();
    let c = PeerCert::parse(&s.der).unwrap();
    assert_eq!(c.emails, ["a@b.c"]);
    assert_eq!(c.dns_names, ["cli"]);
    assert_eq!(c.uris, ["spiffe://x/y"]);
    // As nats-server 2.15.1 prints it in connz.
    assert_eq!(c.subject_text(), "CN=a\\,l \\\"x\\\",O=Acme,C=DE,0.9.2342.19200300.100.1.25=example");
    assert_eq!(c.subject.iter().flatten().count(), 4);
    assert_eq!(c.cert_sha256[..], Sha256::digest(&s.der)[..]);
    assert_eq!(c.spki_sha256[..], Sha256::digest(&s.spki)[..]);
    for n in 0..s.der.len() {
        assert!(PeerCert::parse(&s.der[..n]).is_err());
    }
}

#[test]
fn configurations() {
    let ca = Authority::new("ca");
    let (a, b) = (ca.server(&["localhost"]), ca.server(&["*.example.com"]));
    let good = TlsConfig { certs: vec![a.pair(), b.pair()], ..TlsConfig::default() };
    let names = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    assert!(server_config(&good).unwrap().warnings.is_empty());
    let built = server_config(&TlsConfig {
        cipher_suites: names(&[
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
            "TLS_RSA_WITH_AES_128_CBC_SHA",
        ]),
        curve_preferences: names(&["CurveP521", "CurveP256"]),
        ..good.clone()
    })
    .unwrap();
    assert_eq!(built.warnings.len(), 2, "{:?}", built.warnings);
    let offered: Vec<_> =
        built.config.crypto_provider().cipher_suites.iter().map(|s| cipher_name(s.suite())).collect();
    assert!(offered.contains(&"TLS_AES_128_GCM_SHA256".into()), "{offered:?}");
    assert!(offered.contains(&"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256".into()));
    assert!(!offered.contains(&"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384".into()));
    let refused = |change: &dyn Fn(&mut TlsConfig), text: &str| {
        let mut c = good.clone();
        change(&mut c);
        let e = server_config(&c).unwrap_err().to_string();
        assert!(e.contains(text), "{e}");
    };
    refused(&|c| c.certs.clear(), "set cert_file and key_file");
    refused(&|c| c.verify = true, "set ca_file");
    refused(&|c| (c.verify, c.ca) = (true, b"nothing".to_vec()), "failed to parse root ca certificate");
    refused(&|c| c.certs[0].key = b.key.clone().into(), "is not that of the certificate");
    refused(&|c| c.certs[0].key.clear(), "\"k.pem\" holds no key");
    refused(&|c| c.certs[0].cert.clear(), "\"c.pem\" holds no certificate");
    refused(&|c| c.cipher_suites = names(&["NOPE"]), "unrecognized cipher NOPE");
    refused(&|c| c.curve_preferences = names(&["P1"]), "unrecognized curve preference P1");
    refused(&|c| c.curve_preferences = names(&["CurveP521"]), "none of curve_preferences");
}

#[test]
fn names_of_servers() {
    assert!(matches("a.b", "A.b") && matches("*.b.c", "x.b.c"));
    assert!(!matches("*.b.c", "b.c") && !matches("*.b.c", "x.y.b.c") && !matches("*.b.c", ".b.c"));
}

#[test]
fn a_rate() {
    let r = RateLimit::new(Some(2));
    let at = |ms: u64| Instant(1_000_000_000 + ms * 1_000_000);
    let all: Vec<_> = [0, 1, 2, 999, 1000, 1001, 1002].map(|ms| r.allow(at(ms))).into();
    assert_eq!(all, [true, true, false, false, true, true, false]);
    assert!(RateLimit::new(None).allow(at(0)));
}
