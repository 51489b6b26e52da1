//! Expressions: trees of SQL text that can be made smaller.

use super::world::Kind;

/// SQL text with expressions between its pieces: `pieces` are one more than `kids`.
#[derive(Debug, Clone)]
pub struct Expr {
    pub kind: Kind,
    pieces: Vec<String>,
    kids: Vec<Expr>,
}

impl Expr {
    /// Text without parts.
    pub fn leaf(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, pieces: vec![text.into()], kids: Vec::new() }
    }

    /// `pattern` with a `$` for every one of `kids`.
    pub fn node(kind: Kind, pattern: &str, kids: Vec<Expr>) -> Self {
        let pieces: Vec<_> = pattern.split('$').map(str::to_owned).collect();
        assert_eq!(pieces.len(), kids.len() + 1, "{pattern}");
        Self { kind, pieces, kids }
    }

    /// As SQL.
    pub fn sql(&self) -> String {
        let mut text = self.pieces[0].clone();
        for (kid, piece) in self.kids.iter().zip(&self.pieces[1..]) {
            text += &kid.sql();
            text += piece;
        }
        text
    }

    /// Every expression that has one part less: a part instead of the whole, or a smaller part.
    pub fn smaller(&self) -> Vec<Expr> {
        let mut all: Vec<_> = self.kids.iter().filter(|k| k.kind == self.kind).cloned().collect();
        if !self.kids.is_empty() && self.kind == Kind::Bool {
            all.push(Self::leaf(Kind::Bool, "true"));
        }
        for (at, kid) in self.kids.iter().enumerate() {
            for smaller in kid.smaller() {
                let mut copy = self.clone();
                copy.kids[at] = smaller;
                all.push(copy);
            }
        }
        all
    }
}
