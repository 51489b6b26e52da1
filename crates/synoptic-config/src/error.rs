//! Errors with their place.

use std::fmt;

use thiserror::Error;

/// One thing that is wrong with a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct ConfigError {
    /// The file as the user named it.
    pub file: String,
    /// The line, from 1; absent when the file as a whole is meant.
    pub line: Option<usize>,
    /// What is wrong and what to do, without secrets.
    pub message: String,
}

impl fmt::Display for ConfigError {
    /// `FILE:LINE: message`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// Everything that is wrong with a configuration file, by line. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    /// One error a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

/// Collects errors of one text while it is checked.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<(Option<usize>, String)>);

impl Problems {
    pub(crate) fn add(&mut self, line: impl Into<Option<usize>>, message: impl Into<String>) {
        self.0.push((line.into(), message.into()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `None` when nothing is wrong.
    pub(crate) fn into_errors(mut self, file: &str) -> Option<ConfigErrors> {
        self.0.sort();
        self.0.dedup();
        let errors = self.0.into_iter().map(|(line, message)| ConfigError {
            file: file.to_owned(),
            line,
            message,
        });
        let errors: Vec<_> = errors.collect();
        (!errors.is_empty()).then_some(ConfigErrors(errors))
    }
}
