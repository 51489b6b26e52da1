//! An S3 server for one test: moto in its own process, on a free loopback port, gone when dropped.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;

/// The key every request is signed with.
pub const ACCESS_KEY: &str = "test-access-key";
/// Its secret, which must not occur in any output.
pub const SECRET_KEY: &str = "test-secret-that-must-not-leak";
/// The one bucket.
pub const BUCKET: &str = "lake";

/// Runs its arguments as a child and ends it when standard input closes, so that the server never
/// outlives the test, however that ends.
const KEEPER: &str = r#""$@" & pid=$!; read -r _; kill "$pid"; wait "$pid""#;

/// A running S3 server with an empty bucket [`BUCKET`].
pub struct S3Server {
    child: Child,
    port: u16,
}

impl S3Server {
    /// Starts one and makes the bucket; installs moto into the project's own Python environment
    /// when it is not there yet.
    ///
    /// # Panics
    /// When Python is missing or the server does not come up within a minute.
    pub fn start() -> Self {
        let python = python_with_moto();
        let port = free_port();
        let child = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start moto");
        let server = Self { child, port };
        let started = Instant::now();
        while !server.put_bucket() {
            assert!(started.elapsed() < Duration::from_secs(60), "moto did not come up");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The bucket, for the test's own reads and writes.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        let store = AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_region("us-east-1")
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .build();
        Arc::new(store.expect("the options of the test's own server"))
    }

    /// The `storage` options that reach the server.
    pub fn storage(&self) -> serde_json::Value {
        serde_json::json!({
            "endpoint": self.endpoint(),
            "region": "us-east-1",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "allow_http": true,
            "request_timeout": "10s",
            "retry_timeout": "2s",
        })
    }

    fn put_bucket(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else {
            return false;
        };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let request = format!(
            "PUT /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20200101/us-east-1/s3/\
             aws4_request, SignedHeaders=host, Signature=0\r\nConnection: close\r\n\r\n",
            self.port
        );
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound port").port()
}

fn python_with_moto() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join(".venv/bin/python");
    let has_moto = || {
        let import = Command::new(&python).args(["-c", "import moto.server, flask"]).output();
        import.is_ok_and(|output| output.status.success())
    };
    if !has_moto() {
        let venv = Command::new("python3").args(["-m", "venv"]).arg(root.join(".venv")).status();
        assert!(venv.expect("python3 is installed").success(), "make a Python environment");
        let mut pip = Command::new(&python);
        let install = pip.args(["-m", "pip", "install", "--quiet", "moto[server]"]).status();
        assert!(install.expect("pip runs").success(), "install moto");
    }
    python
}
