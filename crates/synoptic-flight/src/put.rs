//! DoPut: parameters of prepared statements, and statements that answer no rows.
//!
//! The answer goes out as soon as it is known, not when the client has ended its stream:
//! flightsql-dbapi reads the answer first and would wait for ever.

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{
    Command, CommandPreparedStatementQuery, CommandPreparedStatementUpdate,
    DoPutPreparedStatementResult, DoPutUpdateResult,
};
use arrow_flight::{FlightData, PutResult};
use datafusion::common::ScalarValue;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use tonic::{Response, Status, Streaming};

use crate::actions::no_transaction;
use crate::context::Call;
use crate::descriptor::{Asked, read_descriptor};
use crate::parameters;
use crate::prepared::Prepared;
use crate::service::{Service, guarded};
use crate::statement::Statement;
use crate::status::{Fault, Result, from_transport};

/// What DoPut answers with.
pub(crate) type PutResults = BoxStream<'static, Result<PutResult, Status>>;

/// Reads the first message of a DoPut, which says what it is about, and answers.
pub(crate) async fn put(
    service: &Service,
    call: &Call,
    mut stream: Streaming<FlightData>,
) -> Result<Response<PutResults>> {
    let first = call.bounded(async { received(stream.message().await) }).await?;
    let first = first.ok_or_else(|| Fault::malformed("DoPut sent nothing; send a descriptor"))?;
    let descriptor = first
        .flight_descriptor
        .clone()
        .ok_or_else(|| Fault::malformed("the first message of DoPut has no descriptor"))?;
    if descriptor.r#type == DescriptorType::Path as i32 {
        return Err(uploads());
    }
    let Asked::Command(command) = read_descriptor(&descriptor)? else { return Err(uploads()) };
    match *command {
        Command::CommandPreparedStatementQuery(command) => {
            bind(service, call, &command, first, stream).await
        }
        Command::CommandPreparedStatementUpdate(command) => {
            update_prepared(service, call, &command, first, stream).await
        }
        Command::CommandStatementUpdate(command) => {
            no_transaction(command.transaction_id.as_ref())?;
            let statement = Statement::of_call(call, command.query);
            let count = service.statements.update(call, statement).await?;
            Ok(answered(count_of(count), stream))
        }
        Command::CommandStatementIngest(_) => Err(Fault::unsupported(
            "this server takes no bulk ingestion; write with INSERT, or to the source itself",
        )),
        Command::CommandStatementSubstraitPlan(_) => {
            Err(Fault::unsupported("this server runs SQL, not Substrait plans"))
        }
        other => Err(Fault::unsupported(format!(
            "DoPut does not take {}",
            other.type_url().rsplit('.').next().unwrap_or_default()
        ))),
    }
}

/// Binds one row. The handle stays the same.
async fn bind(
    service: &Service,
    call: &Call,
    command: &CommandPreparedStatementQuery,
    first: FlightData,
    stream: Streaming<FlightData>,
) -> Result<Response<PutResults>> {
    let handle = command.prepared_statement_handle.clone();
    let prepared = service.prepared.get(&handle)?;
    let mut rows = rows_of(first, stream);
    let values = call.bounded(first_row(&prepared, &mut rows)).await?;
    if values.is_none() {
        parameters::check_count(0, prepared.placeholders())?;
    }
    prepared.bind(values);
    let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) };
    let result = PutResult { app_metadata: result.encode_to_vec().into() };
    // What comes after the first row is seen only once the client ends its stream.
    let rest = futures::stream::once(async move {
        let ended = guarded(no_more_rows(&mut rows)).await;
        ended.err().map(|status| {
            prepared.bind(None);
            Err(status)
        })
    });
    let results = futures::stream::iter([Ok(result)]).chain(rest.filter_map(std::future::ready));
    Ok(Response::new(results.boxed()))
}

/// Runs a prepared statement that answers no rows.
async fn update_prepared(
    service: &Service,
    call: &Call,
    command: &CommandPreparedStatementUpdate,
    first: FlightData,
    stream: Streaming<FlightData>,
) -> Result<Response<PutResults>> {
    let prepared = service.prepared.get(&command.prepared_statement_handle)?;
    let mut rows = rows_of(first, stream);
    // A statement without parameters needs no row, and some clients send none.
    if !prepared.placeholders().is_empty() {
        let values = call.bounded(first_row(&prepared, &mut rows)).await?;
        if values.is_some() {
            prepared.bind(values);
        }
    }
    let statement = Statement {
        session: prepared.session.clone(),
        sql: prepared.sql.clone(),
        parameters: prepared.values()?,
        types: prepared.types,
    };
    let count = service.statements.update(call, statement).await?;
    Ok(answered(count_of(count), rows))
}

type Rows = BoxStream<'static, Result<arrow::array::RecordBatch, FlightError>>;

/// The batches of a DoPut, whose first message may carry a schema besides the descriptor.
fn rows_of(first: FlightData, rest: Streaming<FlightData>) -> Rows {
    let messages = futures::stream::iter([Ok(first)])
        .chain(rest)
        .map_err(FlightError::from)
        // A message with a descriptor and nothing else.
        .try_filter(|data| std::future::ready(!data.data_header.is_empty()));
    FlightRecordBatchStream::new_from_flight_data(messages).boxed()
}

/// The values of the first row; none when the stream ends without one.
async fn first_row(prepared: &Prepared, rows: &mut Rows) -> Result<Option<Vec<ScalarValue>>> {
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(unreadable)?;
        match batch.num_rows() {
            0 => {}
            1 => return parameters::of_row(&batch, 0, prepared.placeholders()).map(Some),
            n => return Err(too_many_rows(n)),
        }
    }
    Ok(None)
}

/// Refuses further rows: which of them a query is meant to use, nobody said.
async fn no_more_rows(rows: &mut Rows) -> Result<()> {
    while let Some(batch) = rows.next().await {
        let more = batch.map_err(unreadable)?.num_rows();
        if more > 0 {
            return Err(too_many_rows(more + 1));
        }
    }
    Ok(())
}

fn too_many_rows(rows: usize) -> Fault {
    Fault::malformed(format!(
        "{rows} rows of parameters were bound; a query takes one: bind and run it for each row"
    ))
}

fn unreadable(error: FlightError) -> Fault {
    match error {
        FlightError::Tonic(status) => from_transport(&status),
        other => Fault::malformed(format!("the parameters cannot be read: {other}")),
    }
}

fn received<T>(message: Result<T, Status>) -> Result<T> {
    message.map_err(|status| from_transport(&status))
}

fn count_of(record_count: i64) -> PutResult {
    PutResult { app_metadata: DoPutUpdateResult { record_count }.encode_to_vec().into() }
}

/// One result now; the call ends when the client has ended its own stream, whatever is in it.
fn answered<S>(result: PutResult, rest: S) -> Response<PutResults>
where
    S: Stream + Send + Unpin + 'static,
{
    let ignored = rest.filter_map(|_| std::future::ready(None));
    Response::new(futures::stream::iter([Ok(result)]).chain(ignored).boxed())
}

fn uploads() -> Fault {
    Fault::unsupported(
        "this server takes no uploads; DoPut is for the parameters of prepared statements and for \
         statements such as SET",
    )
}
