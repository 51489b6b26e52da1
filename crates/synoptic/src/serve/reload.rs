//! SIGHUP: the configuration file read again.

use std::path::PathBuf;
use std::sync::Arc;

use synoptic_config::{Config, ConfigErrors};

use crate::compose::Composition;

/// The file, what it said last, and what was made of it.
pub(super) struct Reloader {
    path: PathBuf,
    config: Config,
    composition: Arc<Composition>,
}

impl Reloader {
    pub(super) fn new(path: PathBuf, config: Config, composition: Arc<Composition>) -> Self {
        Self { path, config, composition }
    }

    /// Reads the file again. An invalid file is refused as a whole and the old one stays; the log
    /// says why.
    pub(super) fn reload(&mut self) {
        if let Err(errors) = self.try_reload() {
            for error in &errors.0 {
                tracing::error!("reload refused, the old configuration stays: {error}");
            }
        }
    }

    fn try_reload(&mut self) -> Result<(), ConfigErrors> {
        let mut new = Config::load(&self.path, &synoptic_connectors::names())?;
        let replaced = self.composition.replace_sources(&new)?;
        let (added, changed, removed) = (replaced.added, replaced.changed, replaced.removed);
        tracing::info!(?added, ?changed, ?removed, "reloaded");
        let settings = self.config.changed_settings(&new);
        if !settings.is_empty() {
            tracing::warn!("these changes take effect at the next start: {}", settings.join(", "));
        }
        // What is in force stays what we compare with, so that the next reload names it again.
        new.server = self.config.server.clone();
        new.query = self.config.query.clone();
        new.clock = self.config.clock.clone();
        self.config = new;
        Ok(())
    }
}
