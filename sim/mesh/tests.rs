use super::{
    check,
    client::{Delivery, Publish, Record, Sub},
    plan::Plan,
};

fn sub(client: u64, filter: &str, queue: &str) -> Sub {
    Sub { client, conn: client, filter: filter.into(), queue: queue.into(), sure_from: Some(1), until: None }
}
fn publish(conn: u64, subject: &str, last: bool) -> Publish {
    Publish { conn, client: conn, subject: subject.into(), last }
}
fn delivery(sub: usize, publish: usize, subject: &str) -> Delivery {
    Delivery { sub, publish: Some(publish), subject: subject.into() }
}

/// Two plain subscriptions, a group of two, two publishes, all of it delivered.
fn good() -> Record {
    Record {
        subs: vec![sub(1, "a", ""), sub(2, "a", ""), sub(1, "a", "g"), sub(2, "a", "g")],
        publishes: vec![publish(7, "a", false), publish(7, "a", true)],
        deliveries: vec![
            delivery(0, 0, "a"),
            delivery(1, 0, "a"),
            delivery(2, 0, "a"),
            delivery(0, 1, "a"),
            delivery(1, 1, "a"),
            delivery(3, 1, "a"),
        ],
        ..Record::default()
    }
}

fn ids(change: impl FnOnce(&mut Record)) -> Vec<String> {
    let mut r = good();
    change(&mut r);
    check::all(&r).into_iter().map(|v| v.id).collect()
}

#[test]
fn each_check_finds_its_own() {
    assert_eq!(ids(|_| ()), [""; 0]);
    assert_eq!(ids(|r| r.deliveries.push(delivery(0, 1, "a"))), ["MS-2"]);
    assert_eq!(ids(|r| r.deliveries.push(delivery(2, 1, "a"))), ["MS-3"]);
    assert_eq!(ids(|r| r.deliveries.swap(0, 3)), ["MS-4"]);
    assert_eq!(ids(|r| r.deliveries[0].publish = None), ["MS-5"]);
    assert_eq!(ids(|r| r.deliveries[0].publish = Some(9)), ["MS-5"]);
    assert_eq!(ids(|r| r.deliveries[0].subject = "b".into()), ["MS-5"]);
    assert_eq!(ids(|r| drop(r.deliveries.remove(4))), ["MS-6"]);
    assert_eq!(ids(|r| drop(r.deliveries.remove(5))), ["MS-6"]);
    // What was lost in the storm is no wrong, nor what comes to nobody who is surely there.
    assert_eq!(ids(|r| drop(r.deliveries.remove(1))), [""; 0]);
    assert_eq!(ids(|r| (r.subs[1].until, r.deliveries[4].sub) = (Some(5), 1)), [""; 0]);
}

#[test]
fn plans_are_data() {
    let plan = Plan::draw(5);
    let text = serde_json::to_string(&plan).expect("it is plain data");
    assert_eq!(serde_json::from_str::<Plan>(&text).expect("it was written so"), plan);
    assert!((1..40).map(Plan::draw).any(|p| p.options.servers == 2 && !p.events.is_empty()));
}
