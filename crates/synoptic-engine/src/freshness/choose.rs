//! Asks the rules until they have an answer, and does what they need in between.

use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use synoptic_freshness::{Action, Choice, CopyFacts, Decision, Demand, Facts, Token, choose};
use synoptic_types::{
    Consistency, CopyKind, CopyName, ErrorCode, Moment, QueryOptions, SourceName, TableName,
};

use crate::engine::Engine;
use crate::error::{Error, Result};

use super::wanted::WantedSource;
use super::{Choices, Chosen, ChosenSource, MAX_ATTEMPTS, Wanted};

/// Decides which copies a statement reads that arrived at `arrival`. The caller bounds the time.
///
/// # Errors
/// When no copy proves what is asked, with the reason for each; when the token is none of ours.
pub(crate) async fn choose_copies(
    engine: &Engine,
    wanted: &Wanted,
    options: &QueryOptions,
    arrival: Moment,
    attempts: u32,
) -> Result<Chosen> {
    let began = engine.now();
    let mut demand = Demand::new(arrival, options, engine.config().freshness);
    if demand.consistency == Consistency::AsOf {
        // No copy travels in time: the tables keep their earlier states themselves, and what is
        // read of each source is one snapshot that is late enough.
        demand.consistency = Consistency::Source;
    }
    if let Some(text) = &options.token {
        let token = Token::decode(text, engine.token_key())
            .map_err(|e| Error::new(e.code(), format!("synoptic.token: {e}")))?;
        demand.token = Some(token);
    }
    for source in wanted.sources.values() {
        source.copies.watch().touch();
        for scan in &source.demands {
            demand
                .add_scan(scan.clone())
                .map_err(|e| Error::new(ErrorCode::InvalidOption, e.to_string()))?;
        }
    }
    if attempts >= MAX_ATTEMPTS {
        rely_on_authoritative(wanted, &mut demand);
    }
    loop {
        let facts: Facts = wanted.sources.values().map(|s| s.copies.watch().facts()).collect();
        match choose(&facts, &demand, engine.now()) {
            Decision::Need(actions) => {
                try_join_all(actions.iter().map(|action| carry_out(wanted, action))).await?;
            }
            Decision::Refuse(refusal) => {
                engine.counters().refused(&refusal, engine.now().since(began));
                return Err(Error::new(refusal.code, refusal.to_string()));
            }
            Decision::Read(plan) => {
                let lacking = lacking(wanted, &plan.choices).await;
                if lacking.is_empty() {
                    let waited = engine.now().since(began);
                    let sources = plan.choices.iter().filter_map(|choice| {
                        let copies = Arc::clone(&wanted.sources.get(&choice.source)?.copies);
                        let entry = Arc::clone(copies.entry(&choice.copy)?);
                        engine.counters().chosen(choice, waited);
                        Some((choice.source.clone(), ChosenSource { copies, entry }))
                    });
                    let sources = sources.collect();
                    let by_source = plan.choices.into_iter().map(|c| (c.source.clone(), c));
                    let choices = Choices { by_source: by_source.collect(), waited, attempts };
                    return Ok(Chosen { began, demand, sources, choices: Arc::new(choices) });
                }
                for (source, copy, why) in lacking {
                    let scans = demand.sources.iter_mut();
                    for scan in scans.filter(|scan| scan.source == source) {
                        scan.lacking.push((copy.clone(), why.clone()));
                    }
                }
            }
        }
    }
}

/// Copies that were fresh enough when they were chosen, and not any more when their reads began,
/// may go on like that for ever: a read of the authoritative copy is its own proof.
fn rely_on_authoritative(wanted: &Wanted, demand: &mut Demand) {
    for source in &mut demand.sources {
        let Some(known) = wanted.sources.get(&source.source) else { continue };
        let authoritative = known.copies.authoritative().copy();
        let answers = |copy: &CopyFacts| !copy.is_down();
        let (facts, lacking) = (known.copies.watch().facts(), &mut source.lacking);
        if source.pinned.is_none() && facts.copy(authoritative).is_some_and(answers) {
            let replicas = facts.copies.iter().filter(|copy| !copy.is_authoritative());
            let why = "was not fresh enough any more, or did not answer, when its read began";
            lacking.extend(replicas.map(|copy| (copy.name.clone(), why.to_owned())));
        }
    }
}

async fn carry_out(wanted: &Wanted, action: &Action) -> Result<()> {
    let Some(source) = wanted.sources.get(action.source()) else { return Ok(()) };
    let done = source.copies.watch().carry_out(action).await;
    done.map_err(|_| too_many_wait(action.source()))
}

fn too_many_wait(source: &SourceName) -> Error {
    Error::new(
        ErrorCode::QueueFull,
        format!(
            "source '{source}': too many statements wait to learn how far it has got; try again \
             later or raise freshness.max_waiting"
        ),
    )
}

/// Chosen replicas that do not have what the statement reads, each with the reason.
async fn lacking(wanted: &Wanted, choices: &[Choice]) -> Vec<(SourceName, CopyName, String)> {
    let checks = choices.iter().map(|choice| lacks(wanted, choice));
    let answers = join_all(checks).await.into_iter().zip(choices);
    answers
        .filter_map(|(why, choice)| Some((choice.source.clone(), choice.copy.clone(), why?)))
        .collect()
}

async fn lacks(wanted: &Wanted, choice: &Choice) -> Option<String> {
    let source = wanted.sources.get(&choice.source)?;
    let entry = source.copies.entry(&choice.copy)?;
    let authoritative = source.copies.authoritative();
    if Arc::ptr_eq(authoritative, entry) {
        return None;
    }
    for name in &source.tables {
        let theirs = match entry.table(name).await {
            Ok(Some(table)) => table,
            // Planning says what is wrong with a table that nobody has.
            Ok(None) if authoritative.last_known(name).is_none() && absent(source, name).await => {
                continue;
            }
            Ok(None) => return Some(format!("lacks the table {name}")),
            Err(error) => return Some(format!("does not describe {name}: {error}")),
        };
        let ours = match authoritative.last_known(name) {
            Some(table) => table,
            // Servers that replicate each other have the same catalog.
            None if authoritative.source().connector() == entry.source().connector() => continue,
            None => match authoritative.table(name).await {
                Ok(Some(table)) => table,
                _ => continue,
            },
        };
        for field in ours.schema.fields() {
            let Some((_, same)) = theirs.schema.column_with_name(field.name()) else {
                return Some(format!("lacks the column '{}' of {name}", field.name()));
            };
            if same.data_type() != field.data_type() {
                return Some(format!(
                    "has the column '{}' of {name} as {}, not as {} (the files connector takes \
                     types in its tables' schema)",
                    field.name(),
                    same.data_type(),
                    field.data_type()
                ));
            }
        }
    }
    None
}

async fn absent(source: &WantedSource, name: &TableName) -> bool {
    matches!(source.copies.authoritative().table(name).await, Ok(None))
}

/// After a failure: asks every chosen copy of a source that has others. Whether one of them is
/// found not to answer, so that choosing again makes sense.
pub(crate) async fn ask_again(engine: &Engine, chosen: &Chosen) -> bool {
    let others = chosen.sources.values().filter(|source| source.copies.has_replicas());
    join_all(others.map(|source| is_down(engine, source))).await.into_iter().any(|down| down)
}

async fn is_down(engine: &Engine, source: &ChosenSource) -> bool {
    let (watch, now) = (source.copies.watch(), engine.now());
    match source.entry.kind() {
        // Shared with whoever asks at the same time; when too many do, theirs will do.
        CopyKind::Authoritative => {
            let _ = watch.fence(now).await;
        }
        _ => watch.look(source.entry.copy(), now).await,
    }
    let facts = watch.facts();
    facts.copy(source.entry.copy()).is_some_and(|copy| copy.is_down())
}
