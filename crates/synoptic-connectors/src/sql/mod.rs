//! Rendering expressions as a source's SQL, behind an allow-list per dialect.
