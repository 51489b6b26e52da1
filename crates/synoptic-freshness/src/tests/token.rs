//! Merging tokens is a join: whatever the order and however often, the same bound comes out.

use proptest::prelude::*;
use synoptic_types::{ErrorCode, Position, SourceName};

use super::{generate, source};
use crate::{Lineage, LowerBound, Relation, Token, TokenError};

fn merged(a: &Token, b: &Token) -> Token {
    let mut both = a.clone();
    both.merge(b).expect("few epochs");
    both
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn merging_is_idempotent(a in generate::token()) {
        prop_assert_eq!(merged(&a, &a), a.clone());
        prop_assert_eq!(merged(&a, &Token::default()), a.clone());
        prop_assert_eq!(merged(&Token::default(), &a), a);
    }

    #[test]
    fn merging_is_commutative(a in generate::token(), b in generate::token()) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
    }

    #[test]
    fn merging_is_associative(
        a in generate::token(), b in generate::token(), c in generate::token()
    ) {
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
    }

    #[test]
    fn a_merged_token_is_above_both(a in generate::token(), b in generate::token()) {
        let both = merged(&a, &b);
        prop_assert_eq!(merged(&a, &both), both.clone());
        prop_assert_eq!(merged(&b, &both), both);
    }

    /// In which order a session saw its positions does not matter.
    #[test]
    fn a_token_forgets_the_order(
        mut points in prop::collection::vec(generate::position(), 0..6), turn in 0..6_usize
    ) {
        let of = |points: &[Position]| {
            let mut token = Token::default();
            points.iter().for_each(|point| token.include(&source(), point).expect("few epochs"));
            token
        };
        let before = of(&points);
        points.reverse();
        let turn = turn.min(points.len());
        points.rotate_left(turn);
        prop_assert_eq!(of(&points), before);
    }
}

#[test]
fn a_source_without_positions_takes_no_place() {
    let mut token = Token::default();
    for n in 0..=Token::MAX_SOURCES {
        let name = SourceName::new(format!("file{n}"));
        token.include(&name, &Position::Unknown).expect("nothing to keep");
        token.advance(&name, &Position::Unknown, &Lineage::unknown()).expect("nothing to keep");
    }
    assert_eq!(token, Token::default());
    assert!(token.is_empty() && token.of(&source()).is_none());
}

#[test]
fn a_token_names_a_bounded_number_of_sources() {
    let mut token = Token::default();
    for n in 0..Token::MAX_SOURCES {
        token.include(&SourceName::new(format!("s{n}")), &Position::version("v")).expect("fits");
    }
    let full = token.clone();
    let more = token.include(&source(), &Position::version("v"));
    assert_eq!(more, Err(TokenError::TooLarge));
    assert_eq!(token, full, "refused, so unchanged");
    token.include(&SourceName::new("s0"), &Position::version("w")).expect("a source it names");
}

#[test]
fn a_bound_names_a_bounded_number_of_epochs_and_a_known_history_shortens_it() {
    let mut bound = LowerBound::default();
    let epochs = LowerBound::MAX_EPOCHS as u32;
    for timeline in 1..=epochs {
        bound.include(&Position::log(1, timeline, u64::from(timeline) * 10)).expect("fits");
    }
    let full = bound.clone();
    let head = Position::log(1, epochs + 1, 500);
    assert_eq!(bound.include(&head), Err(TokenError::TooManyEpochs));
    assert_eq!(bound.advance(&head, &Lineage::unknown()), Err(TokenError::TooManyEpochs));
    assert_eq!(bound, full, "refused, so unchanged");
    assert_eq!(TokenError::TooManyEpochs.code(), ErrorCode::TokenLost);

    let ancestors = (1..=epochs).map(|n| (n, synoptic_types::Lsn(u64::from(n) * 10))).collect();
    bound.advance(&head, &Lineage::new(1, ancestors, epochs + 1)).expect("one epoch is left");
    let mut alone = LowerBound::default();
    alone.include(&head).expect("fits");
    assert_eq!(bound, alone);
}

#[test]
fn several_versions_are_covered_by_none_of_them() {
    let mut bound = LowerBound::default();
    let of = |bound: &LowerBound, version| {
        bound.relation(&Position::version(version), &Lineage::unknown())
    };
    bound.include(&Position::version("a")).expect("fits");
    assert_eq!(of(&bound, "a"), Relation::Covers);
    assert_eq!(of(&bound, "b"), Relation::Unknown);
    bound.include(&Position::version("b")).expect("fits");
    assert_eq!(of(&bound, "a"), Relation::Unknown);
    assert_eq!(of(&bound, "b"), Relation::Unknown);
    // A read under this bound proved that its version includes both.
    bound.advance(&Position::version("c"), &Lineage::unknown()).expect("fits");
    assert_eq!(of(&bound, "c"), Relation::Covers);
}
