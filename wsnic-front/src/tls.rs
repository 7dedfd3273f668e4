//! TLS 1.2 and 1.3 (RFC 5246, RFC 8446) by rustls: certificates from texts, connections between a
//! socket and plain bytes.
//!
//! No I/O but on the socket that each call is given; the texts were read before the sandbox, or came
//! by the admin socket.

use crate::stream::{Socket, Wait};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig, ServerConnection};
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wsnic_os::material::{Material, Pem};
use wsnic_proto::settings::ClientCert;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Plain bytes that one write turns into records at most: more would wait here, not in the TAP.
const WRITE_CHUNK: usize = 64 * 1024;

/// Why certificates and keys are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No PEM, or none of what was looked for.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// rustls refuses.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

fn wrong(path: &Path, problem: impl Into<String>) -> TlsError {
    TlsError::File { path: path.to_owned(), problem: problem.into() }
}

/// How connections are made; None without a certificate.
///
/// # Errors
/// Names the file, what is wrong with it, and what to do.
pub fn config(
    material: &Material,
    client_cert: ClientCert,
) -> Result<Option<Arc<ServerConfig>>, TlsError> {
    let Some(first) = &material.certificate else { return Ok(None) };
    let pairs = std::iter::once(first).chain(&material.more_certificates);
    let pairs = pairs.map(Pair::new).collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &material.client_ca {
        None => builder.with_no_client_auth(),
        Some(source) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&source.path, source.text.as_bytes())? {
                roots.add(certificate).map_err(|error| {
                    wrong(&source.path, format!("a certificate cannot be used: {error}"))
                })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match client_cert {
                ClientCert::Required => verifier,
                ClientCert::Optional => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| wrong(&source.path, error.to_string()))?,
            )
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Pairs(pairs)));
    // What a browser asks for on a WebSocket; without it, one that speaks HTTP/2 might.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(Some(Arc::new(config)))
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| wrong(path, format!("is no PEM file: {error}")))?;
    if found.is_empty() {
        return Err(wrong(path, "holds no certificate: give a PEM file with the chain, own first"));
    }
    Ok(found)
}

/// A certificate with its key.
struct Pair {
    certified: Arc<CertifiedKey>,
    leaf: CertificateDer<'static>,
}

impl Pair {
    fn new(pem: &Pem) -> Result<Pair, TlsError> {
        let chain = certificates(&pem.chain.path, pem.chain.text.as_bytes())?;
        let leaf = chain.first().cloned().ok_or_else(|| wrong(&pem.chain.path, "is empty"))?;
        let key = PrivateKeyDer::from_pem_slice(pem.key.text.as_bytes()).map_err(|error| {
            let remedy = "give an unencrypted PEM key (PKCS#8, PKCS#1 or SEC1) by wss_server_key";
            wrong(&pem.key.path, format!("holds no private key ({error}): {remedy}"))
        })?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|error| {
            wrong(&pem.key.path, format!("the private key is of no use: {error}"))
        })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let problem = format!(
                    "this private key is not that of the certificate in {}: give both of one order",
                    pem.chain.path.display()
                );
                return Err(wrong(&pem.key.path, problem));
            }
            Err(rustls::Error::InconsistentKeys(_)) | Ok(()) => {}
            Err(error) => return Err(wrong(&pem.chain.path, error.to_string())),
        }
        warn_of_dates(&pem.chain.path, &leaf);
        Ok(Pair { certified: Arc::new(certified), leaf })
    }

    fn is_for(&self, name: &ServerName<'_>) -> bool {
        ParsedCertificate::try_from(&self.leaf)
            .is_ok_and(|leaf| rustls::client::verify_server_name(&leaf, name).is_ok())
    }
}

fn warn_of_dates(path: &Path, leaf: &CertificateDer<'_>) {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return };
    let validity = certificate.validity();
    let path = path.display();
    match validity.time_to_expiration() {
        None if validity.is_valid() => {}
        None => tracing::warn!(%path, "the certificate is not valid today, clients will refuse it"),
        Some(left) if left.whole_days() < 14 => {
            tracing::warn!(%path, days = left.whole_days(), "the certificate ends soon");
        }
        Some(_) => {}
    }
}

/// The certificate that has the name which a client asks for, else the first.
struct Pairs(Vec<Pair>);

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pairs({})", self.0.len())
    }
}

impl ResolvesServerCert for Pairs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = name
            .filter(|_| self.0.len() > 1)
            .and_then(|name| self.0.iter().find(|pair| pair.is_for(&name)));
        named.or(self.0.first()).map(|pair| Arc::clone(&pair.certified))
    }
}

/// The server's end of a connection.
pub struct Tls {
    connection: ServerConnection,
    /// Plain bytes that are decrypted and not read.
    unread: usize,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("unread", &self.unread).finish_non_exhaustive()
    }
}

impl Tls {
    /// A connection whose client has not spoken.
    ///
    /// # Errors
    /// rustls'.
    pub fn new(config: &Arc<ServerConfig>) -> Result<Tls, TlsError> {
        let mut connection = ServerConnection::new(Arc::clone(config))?;
        // Bounded by the writer: one chunk at a time.
        connection.set_buffer_limit(None);
        Ok(Tls { connection, unread: 0 })
    }

    /// Goes on with the handshake as far as it can; None when it is done.
    pub fn handshake(&mut self, socket: &Socket) -> Option<Wait> {
        loop {
            match self.send(socket) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Some(Wait::Write);
                }
                Err(error) => return Some(Wait::Failed(error)),
            }
            if !self.connection.is_handshaking() {
                return None;
            }
            match self.receive(socket) {
                Ok(0) => return Some(Wait::Failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(Wait::Read),
                Err(error) => {
                    // The alert that tells the client why.
                    let _ = self.send(socket);
                    return Some(Wait::Failed(error));
                }
            }
        }
    }

    /// True if plain bytes wait to be read.
    pub fn has_unread(&self) -> bool {
        self.unread > 0
    }

    /// True if records wait for the socket.
    pub fn has_unsent(&self) -> bool {
        self.connection.wants_write()
    }

    /// Reads plain bytes; 0 is the end, said by TLS or by TCP alone.
    ///
    /// # Errors
    /// `WouldBlock`, the socket's, and `InvalidData` for what is no TLS.
    pub fn read(&mut self, mut socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.connection.reader().read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(len) => {
                    self.unread = self.unread.saturating_sub(len);
                    filled += len;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => {}
            }
            match self.receive(socket) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && filled > 0 => break,
                Err(error) => {
                    let _ = self.connection.write_tls(&mut socket);
                    return Err(error);
                }
            }
        }
        Ok(filled)
    }

    /// Reads and decrypts what one call gives; the number of bytes from the socket.
    fn receive(&mut self, mut socket: &Socket) -> io::Result<usize> {
        let len = self.connection.read_tls(&mut socket)?;
        let state = self.connection.process_new_packets();
        let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.unread = state.plaintext_bytes_to_read();
        Ok(len)
    }

    /// Takes plain bytes, one chunk at most, and sends as much of them as the socket takes.
    ///
    /// # Errors
    /// `WouldBlock`: what was taken before is not sent yet. The socket's.
    pub fn write(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        self.send(socket)?;
        let chunk = &bytes[..bytes.len().min(WRITE_CHUNK)];
        let len = self.connection.writer().write(chunk)?;
        match self.send(socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(len),
        }
    }

    fn send(&mut self, mut socket: &Socket) -> io::Result<()> {
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut socket)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Queues the message that nothing more comes (close_notify).
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// The common name in the client's certificate, or else its whole subject.
    pub fn subject(&self) -> Option<String> {
        let leaf = self.connection.peer_certificates()?.first()?;
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
        let subject = certificate.subject();
        let name =
            subject.iter_common_name().find_map(|name| name.as_str().ok().map(str::to_owned));
        name.or_else(|| Some(subject.to_string()))
    }
}
