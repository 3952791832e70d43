//! Where a stream goes.
//!
//! Owns the choice of nodes and the words for why there is none, which are nats-server's. Pure: what is known of nodes comes as data.

use replica::NodeId;

/// A node that could take a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// It.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// It can be reached, and is not about to go.
    pub up: bool,
    /// It is being emptied, and gets nothing.
    pub emptied: bool,
    /// Streams that it has.
    pub assets: usize,
    /// Those of them that have several replicas.
    pub shared: usize,
    /// Streams that it is to lead first.
    pub leads: usize,
    /// Bytes that nobody has set aside there, in the storage that is asked for.
    pub room: u64,
}

/// What a stream wants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wish {
    /// As many nodes.
    pub replicas: usize,
    /// In this cluster; empty for any.
    pub cluster: String,
    /// With all of these tags, and with none of those that begin with `!`.
    pub tags: Vec<String>,
    /// Of tags that begin so no two nodes may have the same.
    pub unique_tag: String,
    /// As many streams with several replicas may a node have that gets one more, less one; `None` without limit.
    pub shared_max: Option<usize>,
    /// Bytes that it sets aside.
    pub bytes: u64,
    /// Nodes that it is on already and would like to keep, in their order.
    pub keep: Vec<NodeId>,
    /// What cannot be reached is taken too where a majority can: it makes its replica when it comes.
    pub absent_too: bool,
}

/// Why nodes were passed over.
#[derive(Default)]
struct Passed {
    offline: bool,
    excluded: bool,
    no_room: bool,
    not_unique: bool,
    too_many: bool,
    missing: Vec<String>,
}

impl Passed {
    fn text(&self) -> String {
        let mut out = String::from("no suitable peers for placement");
        let reasons = [
            (self.offline, "peer offline"),
            (self.excluded, "exclude tag set"),
            (self.no_room, "insufficient storage"),
            (self.not_unique, "server tag not unique"),
            (self.too_many, "miscellaneous issue"),
        ];
        for (_, why) in reasons.iter().filter(|r| r.0) {
            out.push_str(", ");
            out.push_str(why);
        }
        if !self.missing.is_empty() {
            let list: Vec<String> = self.missing.iter().map(|t| format!("'{t}'")).collect();
            out.push_str(&format!(", tags not matched [{}]", list.join(", ")));
        }
        out
    }
}

fn has(tags: &[String], tag: &str) -> bool {
    tags.iter().any(|t| t.eq_ignore_ascii_case(tag))
}

/// The tag of a node that must be unique.
fn unique_of<'a>(c: &'a Candidate, prefix: &str) -> Option<&'a str> {
    let is_it = |t: &&String| {
        t.len() >= prefix.len() && t.as_bytes()[..prefix.len()].eq_ignore_ascii_case(prefix.as_bytes())
    };
    c.tags.iter().find(is_it).map(String::as_str)
}

/// The nodes for a stream, the first to lead it. Those that it is on stay if they can.
///
/// # Errors
/// Why there are not enough, in nats-server's words.
pub fn place(wish: &Wish, all: &[Candidate]) -> Result<Vec<NodeId>, String> {
    let mut passed = Passed::default();
    let mut fit: Vec<&Candidate> = Vec::new();
    for c in all {
        if !wish.cluster.is_empty() && c.cluster != wish.cluster {
            continue;
        }
        let kept = wish.keep.contains(&c.id);
        let absent = !c.up || c.emptied;
        if absent && !kept {
            passed.offline = true;
            if c.emptied || !wish.absent_too {
                continue;
            }
        }
        let (not, must): (Vec<&String>, Vec<&String>) = wish.tags.iter().partition(|t| t.starts_with('!'));
        if not.iter().any(|t| has(&c.tags, &t[1..])) {
            passed.excluded = true;
            continue;
        }
        // The first that it lacks is named.
        if let Some(lacks) = must.iter().find(|t| !has(&c.tags, t)) {
            if !passed.missing.contains(lacks) {
                passed.missing.push((**lacks).clone());
            }
            continue;
        }
        if !kept && wish.bytes > c.room {
            passed.no_room = true;
            continue;
        }
        if !kept && wish.replicas > 1 && wish.shared_max.is_some_and(|max| c.shared >= max) {
            passed.too_many = true;
            continue;
        }
        fit.push(c);
    }
    let order = |c: &&Candidate| {
        let at = wish.keep.iter().position(|k| *k == c.id);
        (at.is_none(), at, !c.up, c.assets, c.leads, c.id)
    };
    fit.sort_by_key(order);
    let mut chosen: Vec<&Candidate> = Vec::new();
    for c in fit {
        if chosen.len() == wish.replicas {
            break;
        }
        // What comes is not waited for by a group that cannot elect a leader until then.
        let reached = chosen.iter().filter(|o| o.up).count();
        if !c.up && !wish.keep.contains(&c.id) && reached <= wish.replicas / 2 {
            break;
        }
        if !wish.unique_tag.is_empty() {
            let mine = unique_of(c, &wish.unique_tag);
            let taken = |o: &&Candidate| {
                let theirs = unique_of(o, &wish.unique_tag);
                mine.zip(theirs).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
            };
            if mine.is_none() || chosen.iter().any(taken) {
                passed.not_unique = true;
                continue;
            }
        }
        chosen.push(c);
    }
    if chosen.len() < wish.replicas {
        return Err(passed.text());
    }
    if wish.keep.is_empty() {
        // Who leads the fewest leads this one.
        let able = chosen.iter().enumerate().filter(|(_, c)| c.up);
        let first = able.min_by_key(|(i, c)| (c.leads, *i)).map_or(0, |(i, _)| i);
        chosen[..=first].rotate_right(1);
    }
    Ok(chosen.into_iter().map(|c| c.id).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn n(id: u64) -> NodeId {
        NodeId::new(id, 0)
    }
    fn node(id: u64, tags: &[&str]) -> Candidate {
        Candidate {
            id: n(id),
            cluster: "C".into(),
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            up: true,
            emptied: false,
            assets: 0,
            shared: 0,
            leads: 0,
            room: 100,
        }
    }
    fn wish(replicas: usize) -> Wish {
        Wish { replicas, ..Wish::default() }
    }

    #[test]
    fn the_least_loaded_first_and_who_leads_least_leads() {
        let mut all = [node(1, &[]), node(2, &[]), node(3, &[])];
        (all[0].assets, all[1].leads) = (5, 2);
        assert_eq!(place(&wish(1), &all), Ok(vec![n(3)]));
        assert_eq!(place(&wish(2), &all), Ok(vec![n(3), n(2)]));
        assert_eq!(place(&wish(3), &all), Ok(vec![n(3), n(2), n(1)]));
    }

    #[test]
    fn what_cannot_be_placed_says_why() {
        let mut all = vec![node(1, &["az:a"]), node(2, &["az:b"]), node(3, &["az:b", "slow"])];
        let e = |w: &Wish, all: &[Candidate]| place(w, all).expect_err("it does not fit");
        assert_eq!(e(&wish(4), &all), "no suitable peers for placement");
        let tagged = Wish { tags: vec!["ssd".into(), "eu".into()], ..wish(1) };
        assert_eq!(e(&tagged, &all), "no suitable peers for placement, tags not matched ['ssd']");
        let unique = Wish { unique_tag: "az:".into(), ..wish(3) };
        assert_eq!(e(&unique, &all), "no suitable peers for placement, server tag not unique");
        assert_eq!(place(&Wish { replicas: 2, ..unique }, &all), Ok(vec![n(1), n(2)]));
        assert_eq!(
            e(&Wish { bytes: 101, ..wish(1) }, &all),
            "no suitable peers for placement, insufficient storage"
        );
        assert_eq!(
            place(&Wish { tags: vec!["!slow".into(), "AZ:B".into()], ..wish(1) }, &all),
            Ok(vec![n(2)])
        );
        all[0].up = false;
        assert_eq!(e(&wish(3), &all), "no suitable peers for placement, peer offline");
        assert_eq!(e(&Wish { cluster: "D".into(), ..wish(1) }, &all), "no suitable peers for placement");
    }

    #[test]
    fn a_node_has_no_more_replicated_streams_than_it_may() {
        let mut all = [node(1, &[]), node(2, &[]), node(3, &[])];
        all[0].shared = 5;
        let w = Wish { shared_max: Some(5), ..wish(2) };
        assert_eq!(place(&w, &all), Ok(vec![n(2), n(3)]));
        let three = Wish { replicas: 3, ..w.clone() };
        let why = place(&three, &all).expect_err("one has enough");
        assert_eq!(why, "no suitable peers for placement, miscellaneous issue");
        assert!(place(&Wish { keep: vec![n(1)], ..three }, &all).is_ok(), "what it has it keeps");
        assert_eq!(
            place(&Wish { replicas: 1, ..w }, &all[..1]),
            Ok(vec![n(1)]),
            "one replica is not counted"
        );
    }

    #[test]
    fn who_has_it_keeps_it() {
        let mut all = [node(1, &[]), node(2, &[]), node(3, &[]), node(4, &[])];
        (all[3].assets, all[3].up) = (9, false);
        let w = Wish { keep: vec![n(4), n(2)], ..wish(3) };
        assert_eq!(place(&w, &all), Ok(vec![n(4), n(2), n(1)]));
        assert_eq!(place(&Wish { replicas: 1, ..w }, &all), Ok(vec![n(4)]));
    }

    #[test]
    fn who_is_away_is_taken_where_a_majority_is_there() {
        let mut all: Vec<Candidate> = (1..=5).map(|id| node(id, &[])).collect();
        (all[0].up, all[1].up) = (false, false);
        // Who is there leads, though it leads more.
        all[2].leads = 3;
        all[3].leads = 3;
        all[4].leads = 3;
        let away = |replicas| Wish { absent_too: true, ..wish(replicas) };
        assert_eq!(place(&away(3), &all), Ok(vec![n(3), n(4), n(5)]), "nobody else is needed");
        assert_eq!(place(&away(4), &all), Ok(vec![n(3), n(4), n(5), n(1)]));
        assert_eq!(place(&away(5), &all), Ok(vec![n(3), n(4), n(5), n(1), n(2)]));
        let e = |w: &Wish, all: &[Candidate]| place(w, all).expect_err("it does not fit");
        let offline = "no suitable peers for placement, peer offline";
        assert_eq!(e(&wish(4), &all), offline, "a move goes to who is there");
        all[2].up = false;
        assert_eq!(e(&away(4), &all), offline, "two of four elect nobody");
        assert_eq!(e(&away(1), &all[..3]), offline);
        // What it is on already counts as it is.
        let kept = Wish { keep: vec![n(4)], ..away(3) };
        assert_eq!(place(&kept, &all), Ok(vec![n(4), n(5), n(1)]));
        let gone = Wish { keep: vec![n(1)], ..away(3) };
        assert_eq!(place(&gone, &all), Ok(vec![n(1), n(4), n(5)]));
        assert_eq!(e(&gone, &all[..4]), offline);
        all[4].emptied = true;
        assert_eq!(e(&away(2), &all), offline, "what is being emptied gets nothing");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn what_is_chosen_fits(
            nodes in proptest::collection::vec((0u8..4, any::<bool>(), 0usize..4, 0u64..3), 0..7),
            replicas in 1usize..6, unique: bool, bytes in 0u64..3, absent_too: bool,
        ) {
            let all: Vec<Candidate> = nodes.iter().enumerate().map(|(i, (tag, up, assets, room))| {
                let tag = format!("az:{tag}");
                Candidate { up: *up, emptied: *up && *assets == 3, assets: *assets, room: *room, ..node(i as u64 + 1, &[&tag]) }
            }).collect();
            let w = Wish { unique_tag: if unique { "az:".into() } else { String::new() }, bytes, absent_too, ..wish(replicas) };
            if let Ok(chosen) = place(&w, &all) {
                prop_assert_eq!(chosen.len(), replicas);
                let found: Vec<&Candidate> =
                    chosen.iter().map(|id| all.iter().find(|c| c.id == *id).expect("it is one of them")).collect();
                prop_assert!(found.iter().all(|c| (c.up || absent_too) && !c.emptied && c.room >= bytes));
                prop_assert!(found[0].up && found.iter().filter(|c| c.up).count() > replicas / 2);
                for (i, a) in found.iter().enumerate() {
                    prop_assert!(found[..i].iter().all(|b| b.id != a.id && (!unique || b.tags != a.tags)));
                }
            }
        }
    }
}
