//! stub
#![allow(missing_docs)]
use std::sync::Arc;
#[derive(Debug)]
pub struct Permissions;
impl Permissions {
    pub fn can_publish(&self, _: &[u8]) -> bool { true }
    pub fn can_subscribe(&self, _: &[u8], _: &[u8]) -> Verdict { Verdict::Allow }
    pub fn deny_on_delivery(&self, _: &[u8]) -> bool { false }
    pub fn reply_grants(&self) -> Option<ReplyGrants> { None }
}
#[derive(Debug)]
pub struct ReplyGrants;
impl ReplyGrants {
    pub fn grant(&mut self, _: &[u8], _: i64) {}
    pub fn use_one(&mut self, _: &[u8], _: i64) -> bool { false }
}
#[derive(PartialEq, Eq, Debug)]
pub enum Verdict { Allow, Deny, AllowFiltered }
#[derive(Default)]
pub struct Attempt<'a> { pub user: &'a str, pub pass: &'a str, pub token: &'a str, pub nkey: &'a str, pub sig: &'a str, pub jwt: &'a str, pub nonce: &'a str, pub proxy_sig: &'a str }
pub struct Identity { pub name: String, pub account: Option<String>, pub permissions: Option<Arc<Permissions>> }
pub enum Decision { Accept(Identity), Reject(String), Pending(Job) }
pub struct Job;
impl Job { pub fn run(self) -> Result<Identity, String> { Err("x".into()) } }
#[derive(Default)]
pub struct Authenticator;
impl Authenticator {
    pub fn required(&self) -> bool { false }
    pub fn wants_nonce(&self) -> bool { false }
    pub fn check(&self, _: &Attempt<'_>) -> Decision { Decision::Accept(Identity { name: String::new(), account: None, permissions: None }) }
}
pub const NONCE_BYTES: usize = 11;
pub fn encode_nonce(_: &[u8]) -> String { String::new() }
pub fn is_reserved_reply(_: &[u8]) -> bool { false }
