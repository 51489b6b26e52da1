//! Where the files are: the object store, the folder in it, and what may be said about it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path as FilePath, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientConfigKey, ObjectStore, RetryConfig};
use serde_json::Value;
use synoptic_types::parse_duration;
use url::Url;

use crate::options::OptionsError;

/// One attempt of a request, body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// All attempts of a request together.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_RETRIES: usize = 5;

/// A folder in a store.
pub struct Location {
    /// The store of the whole bucket, or of the whole local disk.
    pub store: Arc<dyn ObjectStore>,
    /// The folder, or the one file.
    pub root: Path,
    /// On this machine's disk.
    pub local: Option<PathBuf>,
    display: String,
    secrets: Vec<String>,
}

impl Location {
    /// Reads `location`, which may be a URL or a local path relative to `base`.
    pub fn new(
        location: &str,
        base: &FilePath,
        storage: &BTreeMap<String, Value>,
    ) -> Result<Self, OptionsError> {
        let at = |message: String| OptionsError::at(&["location"], message);
        if location.trim().is_empty() {
            return Err(at("is empty: write a folder, or s3://bucket/prefix/".to_owned()));
        }
        if !location.contains("://") {
            return Self::local(&base.join(location), storage);
        }
        let url = Url::parse(location)
            .map_err(|error| at(format!("is not a path and not a URL: {error}")))?;
        if url.password().is_some() || url.query().is_some() {
            return Err(at("must not hold credentials or parameters: put them under `storage`, \
                           for example from ${NAME}"
                .to_owned()));
        }
        match url.scheme() {
            "file" => {
                let path = url.to_file_path().map_err(|()| at("is not a local path".to_owned()))?;
                Self::local(&path, storage)
            }
            "s3" | "s3a" => {
                let (builder, secrets) =
                    configure(AmazonS3Builder::from_env().with_url(location), storage)?;
                let builder = builder.with_retry(retry(storage)?);
                Self::remote(&url, builder.build().map(|s| Arc::new(s) as _), secrets)
            }
            "gs" => {
                let (builder, secrets) =
                    configure(GoogleCloudStorageBuilder::from_env().with_url(location), storage)?;
                let builder = builder.with_retry(retry(storage)?);
                Self::remote(&url, builder.build().map(|s| Arc::new(s) as _), secrets)
            }
            "az" | "azure" | "adl" | "abfs" | "abfss" => {
                let (builder, secrets) =
                    configure(MicrosoftAzureBuilder::from_env().with_url(location), storage)?;
                let builder = builder.with_retry(retry(storage)?);
                Self::remote(&url, builder.build().map(|s| Arc::new(s) as _), secrets)
            }
            other => Err(at(format!(
                "has the unknown scheme '{other}': write a local path, file://, s3://, gs://, \
                 az:// or abfss://"
            ))),
        }
    }

    fn local(path: &FilePath, storage: &BTreeMap<String, Value>) -> Result<Self, OptionsError> {
        if let Some(key) = storage.keys().next() {
            return Err(OptionsError::at(
                &["storage", key],
                "means nothing for files on this machine: remove `storage`",
            ));
        }
        let at = |message: String| OptionsError::at(&["location"], message);
        let absolute = std::path::absolute(path).map_err(|error| at(error.to_string()))?;
        let path = without_dots(&absolute);
        let root = Path::from_absolute_path(&path)
            .map_err(|error| at(format!("is not a path that can be used: {error}")))?;
        Ok(Self {
            store: Arc::new(LocalFileSystem::new()),
            root,
            display: path.display().to_string(),
            local: Some(path),
            secrets: Vec::new(),
        })
    }

    fn remote(
        url: &Url,
        store: object_store::Result<Arc<dyn ObjectStore>>,
        secrets: Vec<String>,
    ) -> Result<Self, OptionsError> {
        let store = store.map_err(|error| {
            let text = redact(&secrets, error.to_string());
            OptionsError::at(&["location"], format!("cannot be used: {text}"))
        })?;
        let root = Path::from_url_path(url.path())
            .map_err(|error| OptionsError::at(&["location"], error.to_string()))?;
        Ok(Self { store, root, local: None, display: url.to_string(), secrets })
    }

    /// What `error` says, without any secret of this location.
    pub fn say(&self, error: impl fmt::Display) -> String {
        redact(&self.secrets, error.to_string())
    }

    /// `path` relative to the root, for people.
    pub fn relative(&self, path: &Path) -> String {
        let text = path.as_ref();
        let root = self.root.as_ref();
        match text.strip_prefix(root).map(|rest| rest.trim_start_matches('/')) {
            Some("") | None => path.filename().unwrap_or(text).to_owned(),
            Some(rest) => rest.to_owned(),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

/// Shows the place and nothing of the store, whose own `Debug` may hold credentials.
impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Location").field(&self.display).finish()
    }
}

/// Takes `.` and `..` out of an absolute path, as a URL would.
fn without_dots(path: &FilePath) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

/// The three builders of object_store, which have no common trait.
trait Configure: Sized {
    fn set(self, key: &str, value: String) -> Option<Self>;
}

macro_rules! configure_with {
    ($builder:ty, $key:ty) => {
        impl Configure for $builder {
            fn set(self, key: &str, value: String) -> Option<Self> {
                let client = ClientConfigKey::from_str(key).ok().map(<$key>::Client);
                let key = <$key>::from_str(key).ok().or(client)?;
                Some(self.with_config(key, value))
            }
        }
    };
}
configure_with!(AmazonS3Builder, AmazonS3ConfigKey);
configure_with!(GoogleCloudStorageBuilder, GoogleConfigKey);
configure_with!(MicrosoftAzureBuilder, AzureConfigKey);

fn configure<B: Configure>(
    mut builder: B,
    storage: &BTreeMap<String, Value>,
) -> Result<(B, Vec<String>), OptionsError> {
    let mut secrets = environment_secrets();
    let timeout = duration(storage, "request_timeout", REQUEST_TIMEOUT)?;
    let unknown = |key: &str| {
        OptionsError::at(
            &["storage", key],
            "is not an option of this kind of store; the names are those of the object_store \
             library, for example endpoint, region, access_key_id, secret_access_key, \
             session_token, allow_http, virtual_hosted_style, request_timeout, retry_timeout",
        )
    };
    builder = builder
        .set("timeout", format!("{}ms", timeout.as_millis()))
        .ok_or_else(|| unknown("request_timeout"))?;
    for (key, value) in storage {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => return Err(OptionsError::at(&["storage", key], "must be a text, number or bool")),
        };
        if is_secret(key) && text.len() > 3 {
            secrets.push(text.clone());
        }
        let key = match key.as_str() {
            "request_timeout" | "retry_timeout" => continue,
            "virtual_hosted_style" => "virtual_hosted_style_request",
            other => other,
        };
        builder = builder.set(key, text).ok_or_else(|| unknown(key))?;
    }
    Ok((builder, secrets))
}

fn retry(storage: &BTreeMap<String, Value>) -> Result<RetryConfig, OptionsError> {
    let retry_timeout = duration(storage, "retry_timeout", RETRY_TIMEOUT)?;
    Ok(RetryConfig { max_retries: MAX_RETRIES, retry_timeout, ..RetryConfig::default() })
}

fn duration(
    storage: &BTreeMap<String, Value>,
    key: &str,
    default: Duration,
) -> Result<Duration, OptionsError> {
    let Some(value) = storage.get(key) else { return Ok(default) };
    let text = value.as_str().unwrap_or_default();
    parse_duration(text).map_err(|error| OptionsError::at(&["storage", key], error.to_string()))
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["secret", "token", "key", "password", "credential", "sas"].iter().any(|w| key.contains(w))
}

fn environment_secrets() -> Vec<String> {
    std::env::vars()
        .filter(|(name, value)| {
            let store = ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|p| name.starts_with(p));
            store && is_secret(name) && value.len() > 3
        })
        .map(|(_, value)| value)
        .collect()
}

fn redact(secrets: &[String], mut text: String) -> String {
    for secret in secrets {
        text = text.replace(secret.as_str(), "***");
    }
    text
}
