//! The listeners.
use std::sync::Arc;

use crate::{Server, StartError, options::Options};

/// Binds the monitoring listeners.
pub async fn listen(_: &Arc<Server>, _: &Options) -> Result<(), StartError> {
    Ok(())
}
