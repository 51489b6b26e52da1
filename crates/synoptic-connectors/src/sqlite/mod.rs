//! The `sqlite` connector.

use std::sync::Arc;

use synoptic_source::Source;

use crate::options::{Declared, OptionsError};

/// Checks the options and makes the source.
pub fn open(_declared: Declared) -> Result<Arc<dyn Source>, OptionsError> {
    unimplemented!()
}
