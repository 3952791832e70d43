//! The JSON body of a request: typed fields with the error texts that clients of nats-server know.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A body. Keys are taken without regard to case, as nats-server takes them; `null` is an absent field.
pub(super) struct Fields {
    /// What the errors call the whole.
    name: String,
    map: Map<String, Value>,
}

impl Fields {
    /// Reads a body; an empty one has no fields. `name` is what errors call it.
    pub fn parse(name: &str, body: &[u8]) -> Result<Fields, String> {
        let lower =
            |map: Map<String, Value>| map.into_iter().map(|(k, v)| (k.to_ascii_lowercase(), v)).collect();
        let fields = |map| Ok(Fields { name: name.to_string(), map: lower(map) });
        if body.is_empty() {
            return fields(Map::new());
        }
        match serde_json::from_slice::<Value>(body) {
            Ok(Value::Object(map)) => fields(map),
            Ok(Value::Null) => fields(Map::new()),
            Ok(v) => Err(format!("json: cannot unmarshal {} into Go value of type server.{name}", kind(&v))),
            Err(e) => Err(syntax(body, &e)),
        }
    }
    fn find(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }
    fn wrong<T>(&self, key: &str, v: &Value, wanted: &str) -> Result<T, String> {
        let name = &self.name;
        Err(format!("json: cannot unmarshal {} into Go struct field {name}.{key} of type {wanted}", kind(v)))
    }
    /// A text; empty if absent.
    pub fn text(&self, key: &str) -> Result<String, String> {
        match self.find(key) {
            None => Ok(String::new()),
            Some(Value::String(s)) => Ok(s.clone()),
            Some(v) => self.wrong(key, v, "string"),
        }
    }
    /// A switch; off if absent.
    pub fn flag(&self, key: &str) -> Result<bool, String> {
        match self.find(key) {
            None => Ok(false),
            Some(Value::Bool(b)) => Ok(*b),
            Some(v) => self.wrong(key, v, "bool"),
        }
    }
    /// A whole number that is not negative; 0 if absent.
    pub fn unsigned(&self, key: &str) -> Result<u64, String> {
        match self.find(key) {
            None => Ok(0),
            Some(v) => v.as_u64().map_or_else(|| self.wrong(key, v, "uint64"), Ok),
        }
    }
    /// A list of texts; empty if absent.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, String> {
        let Some(v) = self.find(key) else { return Ok(Vec::new()) };
        let Value::Array(list) = v else { return self.wrong(key, v, "[]string") };
        let one = |v: &Value| v.as_str().map_or_else(|| self.wrong(key, v, "string"), |s| Ok(s.to_string()));
        list.iter().map(one).collect()
    }
    /// All of it as the options of an endpoint, with what `set` overrides.
    pub fn options<O: DeserializeOwned>(&self, set: &[(&str, Value)]) -> Result<O, String> {
        let mut map = self.map.clone();
        for (key, v) in set {
            map.insert(key.to_string(), v.clone());
        }
        let e = match serde_json::from_value(Value::Object(map)) {
            Ok(o) => return Ok(o),
            Err(e) => e,
        };
        // Which field it was shows when each is read by itself.
        for (key, v) in &self.map {
            let alone = Map::from_iter([(key.clone(), v.clone())]);
            if let Err(e) = serde_json::from_value::<O>(Value::Object(alone)) {
                let text = e.to_string();
                let wanted = match text.rsplit("expected ").next().unwrap_or_default() {
                    "a boolean" => "bool",
                    "a string" => "string",
                    "a sequence" => "[]string",
                    "u64" => "uint64",
                    _ => "int",
                };
                return self.wrong(key, v, wanted);
            }
        }
        Err(format!("json: {e}"))
    }
}

fn kind(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What is wrong with a body that is no JSON.
fn syntax(body: &[u8], e: &serde_json::Error) -> String {
    if e.is_eof() {
        return "unexpected end of JSON input".to_string();
    }
    // The parser names a line and a column, both from 1.
    let line_start: usize =
        body.split(|&b| b == b'\n').take(e.line().saturating_sub(1)).map(|l| l.len() + 1).sum();
    let at = body.get(line_start + e.column().saturating_sub(1));
    let shown = match at {
        None => return "unexpected end of JSON input".to_string(),
        Some(b'\'') => "'\\''".to_string(),
        Some(&b) => format!("'{}'", char::from(b)),
    };
    let text = e.to_string();
    let place = if text.starts_with("trailing characters") {
        "after top-level value"
    } else if text.starts_with("key must be a string") {
        "looking for beginning of object key string"
    } else if text.starts_with("expected `:`") {
        "after object key"
    } else if text.starts_with("expected `,` or `}`") {
        "after object key:value pair"
    } else if text.starts_with("expected `,` or `]`") {
        "after array element"
    } else {
        "looking for beginning of value"
    };
    format!("invalid character {shown} {place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(body: &str) -> Option<String> {
        Fields::parse("XOptions", body.as_bytes()).err()
    }

    #[test]
    fn bodies_that_are_no_objects() {
        for fine in ["", "{}", "null", " {} ", "{\"unknown\":[1]}"] {
            assert_eq!(error(fine), None, "{fine:?}");
        }
        for (body, says) in [
            ("{bad", "invalid character 'b' looking for beginning of object key string"),
            ("{} x", "invalid character 'x' after top-level value"),
            (" ", "unexpected end of JSON input"),
            ("{\"a\"", "unexpected end of JSON input"),
            ("[]", "json: cannot unmarshal array into Go value of type server.XOptions"),
            ("3", "json: cannot unmarshal number into Go value of type server.XOptions"),
            ("\"x\"", "json: cannot unmarshal string into Go value of type server.XOptions"),
        ] {
            assert_eq!(error(body).as_deref(), Some(says), "{body:?}");
        }
    }

    #[test]
    fn fields_are_typed() {
        let f =
            Fields::parse("X", br#"{"Name":"n","on":true,"n":-3,"tags":["a","b"],"null":null,"bad":[1]}"#)
                .unwrap();
        assert_eq!(f.text("name"), Ok("n".to_string()));
        assert_eq!(f.flag("on"), Ok(true));
        assert_eq!(f.texts("tags"), Ok(vec!["a".to_string(), "b".to_string()]));
        assert_eq!((f.text("null"), f.flag("none")), (Ok(String::new()), Ok(false)));
        let wrong = |got: &str, key: &str, of: &str| {
            format!("json: cannot unmarshal {got} into Go struct field X.{key} of type {of}")
        };
        assert_eq!(f.texts("n"), Err(wrong("number", "n", "[]string")));
        assert_eq!(f.text("on"), Err(wrong("bool", "on", "string")));
        assert_eq!(f.unsigned("n"), Err(wrong("number", "n", "uint64")));
        assert_eq!(f.texts("bad"), Err(wrong("number", "bad", "string")));
    }

    #[test]
    fn options_of_endpoints() {
        use crate::monitor::{AccountStatzOptions, ConnzOptions};
        let read =
            |body: &str| Fields::parse("C", body.as_bytes()).and_then(|f| f.options::<ConnzOptions>(&[]));
        let o = read(r#"{"CID":7,"subscriptions":true,"server_name":"ignored","tags":["x"]}"#).unwrap();
        assert!(o.cid == 7 && o.subscriptions);
        let wrong = |body: &str| read(body).unwrap_err();
        let text = |got: &str, key: &str, of: &str| {
            format!("json: cannot unmarshal {got} into Go struct field C.{key} of type {of}")
        };
        assert_eq!(wrong(r#"{"limit":"a"}"#), text("string", "limit", "int"));
        assert_eq!(wrong(r#"{"auth":1,"limit":3}"#), text("number", "auth", "bool"));
        assert_eq!(wrong(r#"{"cid":-1}"#), text("number", "cid", "uint64"));
        assert_eq!(wrong(r#"{"user":[]}"#), text("array", "user", "string"));
        let f = Fields::parse("C", br#"{"acc":"B"}"#).unwrap();
        let o: ConnzOptions = f.options(&[("acc", Value::from("A"))]).unwrap();
        assert_eq!(o.account, "A");
        let f = Fields::parse("C", br#"{"accounts":"B"}"#).unwrap();
        assert_eq!(
            f.options::<AccountStatzOptions>(&[]).unwrap_err(),
            text("string", "accounts", "[]string")
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            if let Err(e) = Fields::parse("X", &body) {
                proptest::prop_assert!(!e.is_empty());
            }
        }
    }
}
