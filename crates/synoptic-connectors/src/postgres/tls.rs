//! `sslmode` → rustls, with the `ring` provider.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use synoptic_source::{ErrorKind, Result, SourceError};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::options::{Options, Verify};

/// How a connection is secured, and a cancel request with it.
#[derive(Clone)]
pub(super) enum Tls {
    Off,
    On(MakeRustlsConnect),
}

impl Tls {
    /// Reads the root certificates, off the async threads.
    pub async fn load(options: &Options) -> Result<Self> {
        if options.config.get_ssl_mode() == SslMode::Disable {
            return Ok(Self::Off);
        }
        let verify = options.verify;
        let path = options.tls_root_cert.clone();
        let config = tokio::task::spawn_blocking(move || {
            let roots = match (verify, path) {
                (Verify::Nothing, _) => RootCertStore::empty(),
                (_, Some(path)) => roots_of(&path)?,
                (_, None) => system_roots()?,
            };
            client_config(verify, roots)
                .map_err(|error| unusable(format!("TLS cannot be set up: {error}")))
        });
        let config = config
            .await
            .map_err(|_| SourceError::internal("reading root certificates was interrupted"))??;
        Ok(Self::On(MakeRustlsConnect::new(config)))
    }
}

fn unusable(message: String) -> SourceError {
    SourceError::new(ErrorKind::Unavailable, message)
}

fn roots_of(path: &std::path::Path) -> Result<RootCertStore> {
    let place = format!("tls_root_cert {}", path.display());
    let pem = std::fs::read(path)
        .map_err(|error| unusable(format!("{place} cannot be read: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate =
            certificate.map_err(|error| unusable(format!("{place} is not PEM: {error:?}")))?;
        roots
            .add(certificate)
            .map_err(|error| unusable(format!("{place} holds a bad certificate: {error}")))?;
    }
    if roots.is_empty() {
        return Err(unusable(format!("{place} holds no certificate: give a PEM file with one")));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let message = "the system has no root certificates: set tls_root_cert";
        return Err(unusable(message.to_owned()));
    }
    Ok(roots)
}

fn client_config(verify: Verify, roots: RootCertStore) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let mut config = if verify == Verify::ChainAndName {
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        let chain = match verify {
            Verify::Nothing => None,
            Verify::Chain | Verify::ChainAndName => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .map_err(|error| Error::General(error.to_string()))?,
            ),
        };
        let lenient = Arc::new(Lenient { provider, chain });
        builder.dangerous().with_custom_certificate_verifier(lenient).with_no_client_auth()
    };
    // Servers from 17 on ask for it when TLS starts without the SSLRequest packet.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(config)
}

/// What libpq checks below `verify-full`: nothing, or the chain without the name. The handshake's
/// signatures are checked in either case.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let name_differs = |error: &Error| {
            matches!(
                error,
                Error::InvalidCertificate(
                    CertificateError::NotValidForName
                        | CertificateError::NotValidForNameContext { .. }
                )
            )
        };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(error) if name_differs(&error) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
