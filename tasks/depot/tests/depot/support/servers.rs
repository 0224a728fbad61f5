//! The two real servers, each on a free port of loopback.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::handle;

pub(crate) const KEY_ID: &str = "AKIDEXAMPLE";
pub(crate) const KEY: &str = "a-secret-that-nobody-may-see";
pub(crate) const BUCKET: &str = "vault";

/// `s3s-fs` over a folder.
pub(crate) struct Strict {
    pub(crate) address: SocketAddr,
    folder: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Strict {
    pub(crate) fn start() -> Self {
        Self::with(None)
    }

    /// With TLS, and this certificate and key in PEM.
    pub(crate) fn start_tls(certificate: &str, key: &str) -> Self {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(
            tokio_rustls::rustls::crypto::ring::default_provider().into(),
        )
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
        Self::with(Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn with(tls: Option<TlsAcceptor>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let files = s3s_fs::FileSystem::new(folder.path()).unwrap();
        let mut service = s3s::service::S3ServiceBuilder::new(files);
        service.set_auth(s3s::auth::SimpleAuth::from_single(KEY_ID, KEY));
        let service = service.build();
        let listener = handle().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let task = handle().spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, tls) = (service.clone(), tls.clone());
                tokio::spawn(async move {
                    let server = Builder::new(TokioExecutor::new());
                    let Some(tls) = tls else {
                        let _ = server.serve_connection(TokioIo::new(socket), service).await;
                        return;
                    };
                    if let Ok(socket) = tls.accept(socket).await {
                        let _ = server.serve_connection(TokioIo::new(socket), service).await;
                    }
                });
            }
        });
        Self { address, folder, task }
    }

    /// The folder of the bucket: an object is a file of its key's name.
    pub(crate) fn bucket(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// Files of parts of uploads that are neither complete nor aborted. An upload without parts is a note of this
    /// server that cannot be listed, and is left where the answer to its beginning was lost.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let parts = |entry: std::fs::DirEntry| entry.file_name().into_string().unwrap();
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| parts(entry.unwrap()));
        files.filter(|name| name.starts_with(".upload") && !name.ends_with(".json")).collect()
    }

    /// Keys of all objects.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut folders = vec![self.bucket()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let key = path.strip_prefix(self.bucket()).unwrap().to_str().unwrap().to_owned();
                    if !key.starts_with('.') {
                        keys.push(key);
                    }
                }
            }
        }
        keys.sort();
        keys
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `moto`, which knows storage classes, Glacier and object lock.
pub(crate) struct Moto {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Moto {
    pub(crate) fn start() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/depot-venv/bin");
        let program = folder.join("moto_server");
        assert!(program.exists(), "{} is not there: run tests/install", program.display());
        let mut child = Command::new(folder.join("python3"))
            .arg(program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "moto ended before it served");
            if let Some((_, address)) = line.split_once("Running on http://") {
                break address.trim().parse().unwrap();
            }
        };
        // Its log must be read, or it would wait for us.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { address, child }
    }

    /// Asks it something that S3 itself does not know, or needs no signature there.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String) {
        // It reads who asks, and holds no signature against its key.
        let who = format!(
            "AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        );
        let headers: Vec<_> = headers.iter().copied().chain([("authorization", who.as_str())]).collect();
        super::proxy::ask(self.address, method, path, &headers, body)
    }

    /// Lets thaws last for some questions, instead of being over at once.
    pub(crate) fn held(&self, times: u32) {
        let text = format!(
            "{{\"model_name\": \"s3::keyrestore\", \"transition\": {{\"progression\": \"manual\", \"times\": {times}}}}}"
        );
        let json = [("content-type", "application/json")];
        let (status, answer) = self.ask("POST", "/moto-api/state-manager/set-transition", &json, &text);
        assert_eq!(status, 201, "{answer}");
    }

    /// Makes the bucket.
    pub(crate) fn bucket(&self, headers: &[(&str, &str)]) {
        let (status, text) = self.ask("PUT", &format!("/{BUCKET}"), headers, "");
        assert_eq!(status, 200, "{text}");
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
