//! `${NAME}` and `${file:PATH}` in strings; `$${` stands for `${`.

use std::path::Path;

/// A secret in a file is short; a bound keeps a wrong path from being read into memory.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Where expansions come from.
pub(crate) struct Environment<'a> {
    /// The value of an environment variable.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    /// The folder that `${file:PATH}` is relative to.
    pub(crate) base_dir: &'a Path,
}

/// A string with its expansions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub(crate) text: String,
    /// What came from outside the file: never to be shown.
    pub(crate) secrets: Vec<String>,
}

/// Expands `raw`. The error is a sentence that quotes only what stands in the file.
pub(crate) fn expand(raw: &str, environment: &Environment<'_>) -> Result<Expanded, String> {
    let mut expanded = Expanded { text: String::with_capacity(raw.len()), secrets: Vec::new() };
    let mut rest = raw;
    while let Some(at) = rest.find('$') {
        expanded.text.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            expanded.text.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let end = after.find('}').ok_or_else(|| {
                format!("'{rest}' has no closing brace; write '$${{' for a literal '${{'")
            })?;
            let value = lookup(&after[..end], environment)?;
            expanded.text.push_str(&value);
            if !value.is_empty() {
                expanded.secrets.push(value);
            }
            rest = &after[end + 1..];
        } else {
            expanded.text.push('$');
            rest = &rest[1..];
        }
    }
    expanded.text.push_str(rest);
    Ok(expanded)
}

fn lookup(name: &str, environment: &Environment<'_>) -> Result<String, String> {
    if let Some(path) = name.strip_prefix("file:") {
        return read_secret(&environment.base_dir.join(path))
            .map_err(|why| format!("'${{file:{path}}}' cannot be read: {why}"));
    }
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        return Err(format!(
            "'${{{name}}}' is neither '${{NAME}}' of an environment variable nor '${{file:PATH}}'; \
             write '$${{' for a literal '${{'"
        ));
    }
    (environment.variable)(name)
        .ok_or_else(|| format!("the environment variable '{name}' is not set"))
}

fn read_secret(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if length > MAX_SECRET_BYTES {
        return Err(format!("it has {length} bytes, more than {MAX_SECRET_BYTES}"));
    }
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
    Ok(text.to_owned())
}
