//! JetStream over `stream`, `store` and `replica`: assets of accounts, the JSON API, the publish path, deliveries.
pub mod api;
