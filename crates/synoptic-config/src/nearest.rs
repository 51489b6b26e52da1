//! "Did you mean …?"

/// The candidate most like `word`, when one is like it at all.
///
/// ```
/// assert_eq!(synoptic_config::nearest("listn", ["http", "listen"]), Some("listen"));
/// assert_eq!(synoptic_config::nearest("xyz", ["http", "listen"]), None);
/// ```
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = word.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| (similarity(&folded, &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Between 0 and 1. A word that begins another (`timeout`, `timeout_ms`) is like it.
fn similarity(word: &str, candidate: &str) -> f64 {
    let by_edits = strsim::normalized_damerau_levenshtein(word, candidate);
    let long_enough = word.chars().count() >= 4 && candidate.chars().count() >= 4;
    if long_enough && (candidate.starts_with(word) || word.starts_with(candidate)) {
        return by_edits.max(0.7);
    }
    by_edits
}

/// `; did you mean 'x'?` or the list of what there is.
pub(crate) fn hint(word: &str, what: &str, candidates: &[&str]) -> String {
    match nearest(word, candidates.iter().copied()) {
        Some(candidate) => format!("; did you mean '{candidate}'?"),
        None if candidates.is_empty() => String::new(),
        None => format!("; the {what} are {}", candidates.join(", ")),
    }
}
