//! Tasks of one worker take turns.

use std::task::Poll;

/// Lets the other tasks of the worker run that are ready, and goes on then. It neither sleeps nor looks for input: what is ready is all that runs.
pub async fn give_way() {
    let mut first = true;
    std::future::poll_fn(|cx| {
        if std::mem::take(&mut first) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}
