//! Drives raft groups over the store: propose, make durable, commit, apply, checkpoint. Decides nothing.
