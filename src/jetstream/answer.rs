//! Which text is the answer to a publish. The texts are `api::ack`'s.

use stream::publish::Answer;

use crate::api::ack::{AckPrefix, Extra, push_batch_ack, push_batch_error, push_batch_gap};

/// Appends an answer.
#[inline]
pub fn write(out: &mut Vec<u8>, prefix: &AckPrefix, a: &Answer) {
    match a {
        Answer::Ack(a) if !a.duplicate && a.extra.is_none() => prefix.push(out, a.seq),
        Answer::Ack(a) => {
            let of = a.extra.as_deref();
            let value = of.and_then(|e| e.value.as_deref());
            let batch = of.and_then(|e| e.batch.as_ref().map(|(id, n)| (id.as_str(), *n)));
            prefix.push_extra(out, a.seq, Extra { duplicate: a.duplicate, value, batch });
        }
        Answer::Error(e) => prefix.push_error(out, e),
        Answer::Empty => {}
        Answer::Flow { seq, msgs } => push_batch_ack(out, *seq, (*msgs).into()),
        Answer::Gap { last_seq, seq } => push_batch_gap(out, *last_seq, *seq),
        Answer::Failed { seq, error } => push_batch_error(out, *seq, error),
    }
}

#[cfg(test)]
mod tests {
    use stream::{
        errors,
        publish::{Ack, Extra},
    };

    use super::*;

    fn text(a: &Answer, domain: Option<&str>) -> String {
        let mut out = Vec::new();
        write(&mut out, &AckPrefix::new("S", domain.unwrap_or_default()), a);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn answers_read_as_the_peers_do() {
        let extra = |value: Option<&str>, batch: Option<(&str, u64)>| {
            Some(Box::new(Extra {
                value: value.map(Into::into),
                batch: batch.map(|(id, n)| (id.to_string(), n)),
            }))
        };
        let ack = |seq, duplicate, extra| Answer::Ack(Ack { seq, duplicate, extra });
        assert_eq!(text(&ack(1, false, None), None), r#"{"stream":"S","seq":1}"#);
        assert_eq!(text(&ack(u64::MAX, false, None), None), r#"{"stream":"S","seq":18446744073709551615}"#);
        assert_eq!(
            text(&ack(2, true, None), Some("hub")),
            r#"{"stream":"S","domain":"hub","seq":2,"duplicate": true}"#
        );
        assert_eq!(text(&ack(1, false, extra(Some("3"), None)), None), r#"{"stream":"S","seq":1,"val":"3"}"#);
        assert_eq!(
            text(&ack(4, false, extra(None, Some(("x", 2)))), None),
            r#"{"stream":"S","seq":4,"batch":"x","count":2}"#
        );
        assert_eq!(
            text(&Answer::Error(errors::STREAM_STORE_FAILED.with("full")), None),
            r#"{"error":{"code":503,"err_code":10077,"description":"full"},"stream":"S","seq":0}"#
        );
        assert_eq!(text(&Answer::Flow { seq: 0, msgs: 10 }, None), r#"{"type":"ack","seq":0,"msgs":10}"#);
        assert_eq!(text(&Answer::Empty, None), "");
    }
}
