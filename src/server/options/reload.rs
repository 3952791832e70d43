//! stub
/// x
pub struct Change; 
/// x
pub fn diff(){ }
