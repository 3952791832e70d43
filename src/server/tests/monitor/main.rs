//! Monitoring of whole servers, over loopback.

mod bad_input;
mod fields;
mod https;
mod support;
mod values;
