//! LIKE patterns, read as DataFusion reads them.

use synoptic_types::Reason;

/// One step of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Exactly this character.
    Char(char),
    /// `_`: any one character.
    One,
    /// `%`: any number of characters.
    Many,
}

/// A pattern without its escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(pub Vec<Step>);

/// What a pattern asks for, where that is simple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    Equals(String),
    StartsWith(String),
    Contains(String),
    Other,
}

impl Pattern {
    /// Reads a pattern whose escape is the backslash. As in Arrow, a backslash makes any character
    /// stand for itself, and at the very end it stands for itself.
    pub(crate) fn read(text: &str) -> Self {
        let mut steps = Vec::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            steps.push(match c {
                '%' => Step::Many,
                '_' => Step::One,
                '\\' => Step::Char(chars.next().unwrap_or('\\')),
                c => Step::Char(c),
            });
        }
        Self(steps)
    }

    /// The pattern that `text` starts any match of.
    pub(crate) fn prefix(text: &str) -> Self {
        Self(text.chars().map(Step::Char).chain([Step::Many]).collect())
    }

    /// The pattern as text again, with backslashes only where they are needed.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        for step in &self.0 {
            match step {
                Step::Many => text.push('%'),
                Step::One => text.push('_'),
                Step::Char(c) => {
                    if matches!(c, '%' | '_' | '\\') {
                        text.push('\\');
                    }
                    text.push(*c);
                }
            }
        }
        text
    }

    /// What the pattern asks for.
    pub(crate) fn shape(&self) -> Shape {
        let literal = |steps: &[Step]| {
            let chars = steps.iter().map(|step| match step {
                Step::Char(c) => Some(*c),
                Step::One | Step::Many => None,
            });
            chars.collect::<Option<String>>()
        };
        let shape = match self.0.as_slice() {
            [Step::Many, middle @ .., Step::Many] => literal(middle).map(Shape::Contains),
            [start @ .., Step::Many] => literal(start).map(Shape::StartsWith),
            all => literal(all).map(Shape::Equals),
        };
        shape.unwrap_or(Shape::Other)
    }
}

/// The least text that is greater than every text with the prefix, by bytes; `None` when there
/// is none.
pub(crate) fn after_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            c => char::from_u32(u32::from(c) + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// Why a case-insensitive pattern stays here.
pub(crate) fn ignores_case() -> Reason {
    Reason::DifferentMeaning("the source folds case differently".to_owned())
}
