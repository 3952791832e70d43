//! What a probe finds.

use env::simdisk::Fault;

use super::*;

#[test]
fn a_probe_writes_and_says_what_the_disk_says() {
    env::run(async {
        let disk = new_disk();
        let server = Server::start(&disk).await;
        let syncs = || server.node.replicas.store().syncs();
        let before = syncs();
        assert_eq!(server.node.probe().await, Ok(()));
        let after = syncs();
        assert!(after > before, "something was made durable");
        assert_eq!(server.node.probe().await, Ok(()));
        assert_eq!(syncs(), after, "whoever asks all the time is told what was found a moment ago");
        disk.with(|d| d.options().rates.insert(Fault::SyncError, 1.0));
        // What was found holds for a second.
        let deadline = env::now() + PATIENCE;
        let found = loop {
            let found = server.node.probe().await;
            if found.is_err() || env::now() > deadline {
                break found;
            }
            tokio::task::yield_now().await;
        };
        assert!(found.as_ref().is_err_and(|e| e.starts_with("JetStream storage takes nothing")), "{found:?}");
    })
    .expect("a runtime starts");
}
