//! Whether answers are the same.

use synoptic_types::ErrorCode;

use super::bank::Answer;

/// What came of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All agree, and there are rows.
    Rows,
    /// All agree that there are none.
    Empty,
    /// All fail, or those that evaluate more do, as they may.
    Error(String),
    /// Those that do not fail agree; others computed a value that does not fit, of rows that their plan
    /// joins later.
    EvaluatedMore,
    /// Our ways agree; plain DataFusion orders floating-point numbers in another way.
    OtherFloats,
    Different(Difference),
}

/// How the answer named differs from that without pushdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    Rows(&'static str),
    /// Only this one fails.
    Fails(&'static str),
    /// Only this one does not fail, and the error is not one of evaluation.
    Succeeds(&'static str),
    /// They fail for other reasons.
    Code(&'static str),
}

/// Compares what was answered with `off` (the first) with all others.
pub fn judge(answers: &[(&'static str, Answer)], ordered: bool) -> Verdict {
    let rows = |rows: &[String]| {
        let mut rows = rows.to_vec();
        if !ordered {
            rows.sort();
        }
        rows
    };
    let same = |off: &[String], other: &[String]| {
        rows(off) == rows(other) || (ordered && of_one_zero(off) == of_one_zero(other))
    };
    let (_, off) = &answers[0];
    let mut evaluated_more = false;
    for (name, answer) in &answers[1..] {
        let name = *name;
        let plain = name == "plain";
        let difference = match (off, answer) {
            (Ok(off), Ok(other)) if !same(off, other) => Difference::Rows(name),
            (Ok(_), Ok(_)) => continue,
            // Its tables filter nothing: plain DataFusion evaluates on rows that no source delivers.
            (Ok(_), Err((_, text))) if plain && is_evaluation(text) => continue,
            // Its own rules refuse what its own optimizer made.
            (Ok(_), Err((_, text))) if plain && is_refused(text) => continue,
            (Ok(_), Err((Some(ErrorCode::Data), text))) if is_evaluation(text) => {
                evaluated_more = true;
                continue;
            }
            (Ok(_), Err(_)) => Difference::Fails(name),
            // What overflows is an error here and wraps around in plain DataFusion; a source that
            // filters first does not evaluate what it leaves out.
            (Err((Some(ErrorCode::Data), _)), Ok(_)) => continue,
            (Err(_), Ok(_)) => Difference::Succeeds(name),
            (Err((code, _)), Err((other, _))) if !plain && code != other => Difference::Code(name),
            (Err(_), Err(_)) => continue,
        };
        return Verdict::Different(difference);
    }
    match off {
        Ok(_) if evaluated_more => Verdict::EvaluatedMore,
        Ok(rows) if rows.is_empty() => Verdict::Empty,
        Ok(_) => Verdict::Rows,
        Err((_, text)) => Verdict::Error(text.clone()),
    }
}

/// The rows with zeros of one sign: they are equal in an order, so that either may come first.
fn of_one_zero(rows: &[String]) -> Vec<String> {
    let zero = |cell| if cell == "-0.0" { "0.0" } else { cell };
    rows.iter().map(|row| row.split(" | ").map(zero).collect::<Vec<_>>().join(" | ")).collect()
}

/// Whether the error is that of a value and not of the plan. Plain DataFusion has no codes.
fn is_evaluation(text: &str) -> bool {
    ["Cannot cast value", "Cannot cast Timestamp", "Cannot cast Date32", "verflow", "out of range"]
        .iter()
        .any(|part| text.contains(part))
}

/// Whether plain DataFusion found its own plan to be wrong, or its own types to differ.
fn is_refused(text: &str) -> bool {
    [
        "SanityCheckPlan",
        "Physical input schema should be the same",
        "does not match with the projection expression",
        "Can't compare arrays of different types",
        "Invalid comparison operation: Decimal128",
    ]
    .iter()
    .any(|part| text.contains(part))
}

/// Whether an answer has a zero or a NaN that plain DataFusion puts into another place of an order, or takes
/// for another value, than its comparisons do, or the finite number that its `min` and `max` begin with.
pub fn has_other_floats(answers: &[(&'static str, Answer)]) -> bool {
    const OTHER: [&str; 4] = ["-0.0", "NaN", "1.7976931348623157e308", "3.4028235e38"];
    let mut rows = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).flatten();
    rows.any(|row| OTHER.iter().any(|number| row.contains(number)))
}
