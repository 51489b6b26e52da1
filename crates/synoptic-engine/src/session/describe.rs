//! What a statement would answer, for those who prepare it.

use std::sync::Arc;

use arrow::datatypes::Schema;
use futures::FutureExt;
use synoptic_source::Statement;
use synoptic_types::ErrorCode;

use crate::error::{Error, Result};
use crate::query::{Description, Request};
use crate::scope::Scope;
use crate::sql::{Command, Parsed, Query, Shown, parse};
use crate::write::count_schema;

use super::Session;
use super::logical::{Asking, Logical, Stage, answer_schema};
use super::plan::{deadline, new_id, within};
use super::plan_cache::Key;
use super::show::settings_schema;

impl Session {
    /// What a statement would answer, without running it: its schema and its parameters.
    ///
    /// # Errors
    /// As [`Session::plan`]; parameters need no values.
    pub async fn describe(&self, request: &Request) -> Result<Description> {
        let arrival = self.engine().now();
        let options = self.options_with(&request.overrides)?;
        let deadline = deadline(request, &options);
        let scope = Scope::new(Arc::new(Statement { query_id: new_id(), deadline }), &options);
        let session = self.state.lock().clone();
        let sources = self.engine().host().snapshot();
        let asking = Asking {
            session: &session,
            sources: &sources,
            options: &options,
            scope: &scope,
            attempt: (arrival, 1),
        };
        within(deadline, options.statement_timeout, self.describe_in(&request.sql, asking)).await
    }

    async fn describe_in(&self, sql: &str, asking: Asking<'_>) -> Result<Description> {
        let Asking { session, sources, options, scope, .. } = asking;
        let key = Key::new(sql, session, options, sources);
        let described =
            |logical: Logical, _, _| async move { self.described(&logical).map(Some) }.boxed();
        let kept = key.as_ref().and_then(|key| self.engine().plans().find(key));
        if let Some(kept) = &kept
            && let Some(description) = self.of_kept(asking, kept, false, &described).await?
        {
            return Ok(description);
        }
        let query = match parse(sql)? {
            Parsed::Query(query) => query,
            Parsed::Change(change) => return self.describe_change(&change, options, scope).await,
            Parsed::Command(Command::Show(Shown::Options | Shown::Option(_))) => {
                return Ok(Description {
                    schema: settings_schema(),
                    parameters: vec![],
                    is_update: false,
                });
            }
            Parsed::Command(Command::Show(shown)) => match parse(&self.show_sql(&shown)?)? {
                Parsed::Query(query) => query,
                _ => return Err(Error::new(ErrorCode::Internal, "SHOW of SHOW")),
            },
            Parsed::Command(_) => {
                let schema = Arc::new(Schema::empty());
                return Ok(Description { schema, parameters: vec![], is_update: false });
            }
        };
        let Query { write, .. } = &query;
        if let Some(write) = write {
            self.target(write, session, sources, options).await?;
        }
        // Only queries are kept.
        let key = key.as_ref().filter(|_| write.is_none());
        let description = self.of_text(asking, &query, key, &described).await?;
        Ok(match write {
            Some(_) => Description { schema: count_schema(), is_update: true, ..description },
            None => description,
        })
    }

    fn described(&self, logical: &Logical) -> Result<Description> {
        let parameters = logical.parameters.clone();
        let stated = match &logical.plan {
            Stage::Stated(plan) if !parameters.is_empty() => Some(plan.schema().clone()),
            _ => None,
        };
        let schema = match (self.optimized(logical, None), stated) {
            (Ok(plan), _) => answer_schema(plan.schema(), &logical.names),
            // Types that depend on parameters are known only with values.
            (Err(_), Some(stated)) => answer_schema(&stated, &logical.names),
            (Err(error), None) => return Err(error),
        };
        Ok(Description { schema, parameters, is_update: false })
    }
}
