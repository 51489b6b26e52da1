//! From a socket to a connection whose COPYs can be tapped.
//!
//! tokio-postgres lets nothing come between itself and a socket but TLS. So it is told to make TLS
//! at once, and what it calls TLS is [`Connector`], which agrees with the server on real TLS or none as
//! `sslmode` says (PostgreSQL's manual, "SSL Session Encryption") and puts the tap on top of that.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::either::Either;

use super::tap::{Tap, Tapped};
use super::tls::Tls;

type Secured<S> = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;

/// Whether tokio-postgres would accept a [`Connector`] for every host of `config`: it wants their names.
pub(super) fn can_be_tapped(config: &Config) -> bool {
    let hosts = config.get_hosts();
    !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Tcp(_)))
}

/// `config` for a [`Connector`], which does what `config` says of TLS.
pub(super) fn without_tls(config: &Config) -> Config {
    let mut config = config.clone();
    config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    config
}

/// See the module.
#[derive(Clone)]
pub(super) struct Connector {
    tls: Tls,
    mode: SslMode,
    negotiation: SslNegotiation,
    tap: Arc<Tap>,
}

impl Connector {
    /// For one connection, which `tap` will be of.
    pub fn new(config: &Config, tls: Tls, tap: Arc<Tap>) -> Self {
        let (mode, negotiation) = (config.get_ssl_mode(), config.get_ssl_negotiation());
        Self { tls, mode, negotiation, tap }
    }

    /// Asks the server whether it takes TLS.
    async fn agree<S>(&self, stream: &mut S) -> io::Result<bool>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match (self.mode, self.negotiation) {
            (SslMode::Disable, _) => return Ok(false),
            (SslMode::Prefer, SslNegotiation::Direct) => {
                let message = "sslnegotiation=direct needs sslmode=require or stricter";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            (_, SslNegotiation::Direct) => return Ok(true),
            _ => {}
        }
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        stream.write_all(&request).await?;
        if stream.read_u8().await? == b'S' {
            return Ok(true);
        }
        match self.mode {
            SslMode::Prefer => Ok(false),
            _ => Err(io::Error::other("server does not support TLS")),
        }
    }
}

impl<S> MakeTlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Tapped<Either<S, Secured<S>>>;
    type TlsConnect = Named;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Named> {
        Ok(Named { connector: self.clone(), host: host.to_owned() })
    }
}

/// A [`Connector`] for one host.
pub(super) struct Named {
    connector: Connector,
    host: String,
}

impl<S> TlsConnect<S> for Named
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Tapped<Either<S, Secured<S>>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, Self::Error>> + Send>>;

    fn connect(self, mut stream: S) -> Self::Future {
        Box::pin(async move {
            let Self { connector, host } = self;
            let stream = match (connector.agree(&mut stream).await?, &connector.tls) {
                (true, Tls::On(rustls)) => {
                    let mut rustls = rustls.clone();
                    let connect = MakeTlsConnect::<S>::make_tls_connect(&mut rustls, &host)?;
                    Either::Right(connect.connect(stream).await?)
                }
                (true, Tls::Off) => return Err("TLS is agreed on and not set up".into()),
                (false, _) => Either::Left(stream),
            };
            Ok(Tapped::new(stream, connector.tap))
        })
    }
}
