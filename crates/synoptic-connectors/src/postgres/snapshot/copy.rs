//! One COPY, or one query, on a leg of a snapshot: made ready, begun, running, given back.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::join;
use synoptic_source::Result;
use tokio_postgres::types::Type;
use tokio_postgres::{CopyOutStream, RowStream, Statement as Prepared};

use super::super::pool::Lease;
use super::super::tap::Rows;
use super::begin::changed_error;
use super::{CopyId, Hold, Leg, ScanRequest, Shared};

/// A COPY that is prepared, and what it was made of: a scan may have been narrowed since.
#[derive(Debug)]
pub(super) struct ReadyCopy {
    pub id: CopyId,
    pub request: Arc<ScanRequest>,
    pub ready: Ready,
}

/// How far it is.
pub(super) enum Ready {
    /// Its texts are known to the server.
    Prepared(PreparedCopy),
    /// It is a query, which needs no preparation.
    Query,
    /// It is a query and was sent together with what began its transaction. Its rows must be read
    /// before anything else is asked on its connection.
    Running(Pin<Box<RowStream>>),
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepared(_) => "Prepared",
            Self::Query => "Query",
            Self::Running(_) => "Running",
        })
    }
}

/// What comes from the server.
pub enum Incoming {
    /// The rows that come past tokio-postgres, and what comes behind them; without the former all is
    /// in the latter.
    Copy(Option<Rows>, Pin<Box<CopyOutStream>>),
    Rows(Pin<Box<RowStream>>),
}

#[derive(Debug)]
pub(super) struct PreparedCopy {
    pub copy: Prepared,
    pub shape: Option<Prepared>,
}

/// A running COPY. Dropping it before its end cancels it.
pub struct OpenCopy {
    pub(super) shared: Arc<Shared>,
    pub(super) leg: Option<Leg>,
    /// Dropped after the leg was given back.
    pub(super) _hold: Hold,
    pub incoming: Incoming,
}

impl OpenCopy {
    /// The COPY came to its end: the leg can run another, or go.
    pub fn finished(mut self) {
        if let Some(leg) = self.leg.take() {
            leg.lease.set_busy(false);
            self.shared.give_back(leg, true);
        }
    }

    /// The server ended the COPY with an error.
    pub fn failed(mut self, error: &tokio_postgres::Error) {
        if let Some(leg) = self.leg.take() {
            leg.lease.set_busy(false);
            leg.lease.note(error);
            self.shared.give_back(leg, false);
        }
    }
}

impl Drop for OpenCopy {
    fn drop(&mut self) {
        if let Some(leg) = self.leg.take() {
            self.shared.give_back(leg, false);
        }
    }
}

/// A leg on its way from the snapshot to a running COPY.
pub(super) struct HeldLeg<'a> {
    pub shared: &'a Arc<Shared>,
    pub leg: Option<Leg>,
    pub hold: Hold,
}

impl HeldLeg<'_> {
    pub fn lease(&self) -> &Lease {
        match &self.leg {
            Some(leg) => &leg.lease,
            None => unreachable!("the leg is taken only once its COPY runs"),
        }
    }

    pub fn take_ready(&mut self) -> Option<ReadyCopy> {
        self.leg.as_mut().and_then(|leg| leg.ready.take())
    }

    pub async fn prepare(
        &self,
        request: &ScanRequest,
        partition: usize,
    ) -> Result<Ready, tokio_postgres::Error> {
        self.lease().run(made_ready(self.lease(), request, partition, false)).await
    }

    /// Reads rows that nobody wants, so that the connection can be asked something else. There are
    /// few, or else another has estimated wrongly; they are not kept.
    pub async fn read_away(
        &self,
        mut rows: Pin<Box<RowStream>>,
    ) -> Result<(), tokio_postgres::Error> {
        self.lease()
            .run(async {
                while rows.next().await.transpose()?.is_some() {}
                Ok(())
            })
            .await
    }

    /// The leg, which runs its COPY now, and the claim to it.
    pub fn into_parts(mut self) -> (Option<Leg>, Hold) {
        let hold = Hold { shared: Arc::clone(self.shared), scan: self.hold.scan.take() };
        (self.leg.take(), hold)
    }

    /// Leaves the lease busy when the COPY, or the query, runs.
    pub async fn start(
        &self,
        ready: Ready,
        request: &ScanRequest,
    ) -> Result<Incoming, tokio_postgres::Error> {
        let lease = self.lease();
        lease.set_busy(true);
        let result = match ready {
            Ready::Running(rows) => Ok(Incoming::Rows(rows)),
            Ready::Query => query(lease, request).await.map(Incoming::Rows),
            Ready::Prepared(prepared) => {
                let past = lease.rows();
                let copy = lease.client().copy_out(&prepared.copy).await;
                copy.map(|messages| Incoming::Copy(past, Box::pin(messages)))
            }
        };
        if let Err(error) = &result {
            lease.set_busy(false);
            lease.note(error);
        }
        result
    }
}

impl Drop for HeldLeg<'_> {
    fn drop(&mut self) {
        if let Some(leg) = self.leg.take() {
            self.shared.give_back(leg, false);
        }
    }
}

/// Begins a query. The first poll sends it.
async fn query(
    lease: &Lease,
    request: &ScanRequest,
) -> Result<Pin<Box<RowStream>>, tokio_postgres::Error> {
    let sql = request.copies.first().map_or("", String::as_str);
    let none: [(&str, Type); 0] = [];
    Ok(Box::pin(lease.client().query_typed_raw(sql, none).await?))
}

/// Prepares a scan's texts, or begins its query when it is one and `reads`. The first poll sends
/// all there is.
pub(super) async fn made_ready(
    lease: &Lease,
    request: &ScanRequest,
    partition: usize,
    reads: bool,
) -> Result<Ready, tokio_postgres::Error> {
    if request.by_rows {
        return match reads {
            true => query(lease, request).await.map(Ready::Running),
            false => Ok(Ready::Query),
        };
    }
    prepare(lease, request, partition).await.map(Ready::Prepared)
}

async fn prepare(
    lease: &Lease,
    request: &ScanRequest,
    partition: usize,
) -> Result<PreparedCopy, tokio_postgres::Error> {
    let client = lease.client();
    // `open` has checked the number.
    let copy = client.prepare(request.copies.get(partition).map_or("", String::as_str));
    match &request.select {
        None => Ok(PreparedCopy { copy: copy.await?, shape: None }),
        Some(select) => {
            let (shape, copy) = join(client.prepare(select), copy).await;
            Ok(PreparedCopy { shape: Some(shape?), copy: copy? })
        }
    }
}

/// A table that could not be locked before the snapshot is locked by now, and this is what it is.
pub(super) fn check_shape(request: &ScanRequest, shape: Option<&Prepared>) -> Result<()> {
    let Some(shape) = shape else { return Ok(()) };
    let found: Vec<u32> = shape.columns().iter().map(|column| Type::oid(column.type_())).collect();
    for (i, (found, planned)) in found.iter().zip(&request.wire_types).enumerate() {
        if found != planned {
            let name = shape.columns().get(i).map_or("?", |column| column.name());
            let is = shape.columns().get(i).map_or("?", |column| column.type_().name());
            return Err(
                changed_error(format!("column {name} is {is} now")).in_table(request.table.name())
            );
        }
    }
    if found.len() == request.wire_types.len() {
        return Ok(());
    }
    Err(changed_error("it has other columns now".to_owned()).in_table(request.table.name()))
}
